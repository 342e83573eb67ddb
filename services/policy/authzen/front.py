"""The standard's endpoints over one policy domain: from a request's JSON to a response's.

Invariants:
- A decision is the domain's. An error is never one, but for a question among several: there the standard
  says `false`, with the error beside it.
- One question is decided at a time, and whoever else waits comes in between: searches wait for the answers
  to the broker's questions.
- Whatever a search finds was decided as an evaluation would have been.
"""

import asyncio
import base64
import binascii
import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from policy.authzen import reading
from policy.authzen.questions import Action, Answer, Domain, Question, Sought
from shared.errors import (
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    Overloaded,
    ServiceError,
    Unavailable,
)
from shared.identity import SpiffeId

DECISIONS_MAX: Final = 64
"""For one page of a search: whoever seeks a needle asks again for the rest of the haystack."""

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
SEARCHES: Final[Mapping[str, Sought]] = {
    "/access/v1/search/subject": "subject",
    "/access/v1/search/resource": "resource",
    "/access/v1/search/action": "action",
}
METADATA: Final = "/.well-known/authzen-configuration"

_FORMAT: Final = b"countersign/authzen-page/v1\0"
_DIGEST_BYTES: Final = 16
"""Enough to tell a caller that the token belongs to another search; nothing is kept safe by it."""

Json = dict[str, Any]


_STATUSES: Final = {
    InvalidRequest: 400,
    NotAuthentic: 401,
    NotAllowed: 403,
    Overloaded: 503,
    Unavailable: 503,
}


def http_status(error: ServiceError) -> int:
    """The status of an expected failure."""
    return _STATUSES.get(type(error), 500)


class Front:
    """Answers for one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._turn = asyncio.Lock()

    async def answer(self, path: str, asker: SpiffeId, body: bytes) -> Json:
        """The response to what was sent to one of the paths; raises ServiceError."""
        tree = reading.parse(body)
        if path in SEARCHES:
            return await self._search(asker, SEARCHES[path], tree)
        several = reading.evaluations(tree) if path == EVALUATIONS else None
        if several is None:
            return _decision(await self._decide(asker, reading.question(tree)))
        return await self._evaluations(asker, several)

    def metadata(self, url: str) -> Json:
        """What this decision point is, at its base URL."""
        obligations = list(self._domain.supported_obligations)
        return {
            "policy_decision_point": url,
            "access_evaluation_endpoint": url + EVALUATION,
            "access_evaluations_endpoint": url + EVALUATIONS,
            **{f"search_{sought}_endpoint": url + path for path, sought in SEARCHES.items()},
            # A parameter without a value must not be there.
            **({"supported_obligations": obligations} if obligations else {}),
        }

    async def _decide(self, asker: SpiffeId, question: Question) -> Answer:
        async with self._turn:
            answer = await self._domain.decide(asker, question)
            await asyncio.sleep(0)
        return answer

    async def _evaluations(self, asker: SpiffeId, several: reading.Evaluations) -> Json:
        decisions: list[Json] = []
        for item in several.items:
            decision = await self._one_of_several(asker, item)
            decisions.append(decision)
            if several.semantic == "deny_on_first_deny" and not decision["decision"]:
                break
            if several.semantic == "permit_on_first_permit" and decision["decision"]:
                break
        return {"evaluations": decisions}

    async def _one_of_several(
        self, asker: SpiffeId, item: Mapping[str, Any] | InvalidRequest
    ) -> Json:
        try:
            if isinstance(item, InvalidRequest):
                raise item
            return _decision(await self._decide(asker, reading.question(item)))
        except ServiceError as error:
            return {"decision": False, "context": {"error": _error(error)}}

    async def _search(self, asker: SpiffeId, sought: Sought, tree: Mapping[str, Any]) -> Json:
        template, page = reading.question(tree, sought), reading.page(tree)
        digest = _digest(asker, sought, template)
        names = self._domain.names(asker, sought, template)
        at = bisect_right(names, _read_token(page.token, digest)) if page.token else 0
        until = min(at + DECISIONS_MAX, len(names))
        results: list[Json] = []
        while at < until and len(results) < page.limit:
            answer = await self._decide(asker, _named(template, sought, names[at]))
            if answer.permits:
                results.append(_result(template, sought, names[at], answer))
            at += 1
        token = _token(names[at - 1], digest) if 0 < at < len(names) else ""
        return {"page": {"next_token": token, "count": len(results)}, "results": results}


def _decision(answer: Answer) -> Json:
    context = dict(answer.context)
    if answer.obligations:
        context["obligations"] = [dict(duty) for duty in answer.obligations]
    return {"decision": answer.permits, **({"context": context} if context else {})}


def _error(error: ServiceError) -> Json:
    return {
        "status": http_status(error),
        "reason": error.reason,
        "message": error.message,
        "violations": [asdict(violation) for violation in error.violations],
    }


def _named(template: Question, sought: Sought, name: str) -> Question:
    if sought == "subject":
        return replace(template, subject=replace(template.subject, id=name))
    if sought == "resource":
        return replace(template, resource=replace(template.resource, id=name))
    return replace(template, action=Action(name))


def _result(template: Question, sought: Sought, name: str, answer: Answer) -> Json:
    result: Json = {"name": name}
    if sought != "action":
        result = {"type": getattr(template, sought).type, "id": name}
    if answer.obligations:
        result["obligations"] = [dict(duty) for duty in answer.obligations]
    return result


def _digest(asker: SpiffeId, sought: Sought, template: Question) -> bytes:
    """What a page token belongs to: the same search, of the same asker."""
    asked = reading.canonical([str(asker), sought, asdict(template)])
    return hashlib.sha256(_FORMAT + asked).digest()[:_DIGEST_BYTES]


def _token(after: str, digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest + after.encode()).decode()


def _read_token(token: str, digest: bytes) -> str:
    try:
        read = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if read[:_DIGEST_BYTES] == digest:
            return read[_DIGEST_BYTES:].decode()
    except (binascii.Error, ValueError):
        pass
    raise reading.invalid(
        "the page token is not one of this search",
        ("page.token", "take it from the last answer, unchanged, with the same search"),
    )
