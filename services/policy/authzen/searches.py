"""Face searches as a policy domain: an officer, `submitSearch`, a gallery, and the facts as context.

Invariants:
- The decision is `Deciding`'s, from the same facts under the same rules as over gRPC and the bus.
- What is not known is refused, never left out of account: a property, a member of the context, a word.
- An agency system asks in the name of its own agency only, and about the present.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import protovalidate
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError

from countersign.policy.v1.policy_pb2 import EvaluateRequest
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Obligation
from directive.case_request import Request
from directive.vocabulary import Vocabulary
from policy.authzen.front import EVALUATION, EVALUATIONS, METADATA, SEARCHES
from policy.authzen.questions import Answer, Entity, Question, Sought
from policy.authzen.reading import canonical, invalid
from policy.deciding import Deciding
from shared.clock import Clock, stamp
from shared.door import VIOLATIONS_MAX, AccessRule, check_rules
from shared.errors import NotAllowed
from shared.identity import SpiffeId
from shared.registry import Registry

OFFICER: Final = "officer"
GALLERY: Final = "gallery"
ACTION: Final = "submitSearch"
"""As the vocabulary names it."""
AGENCY: Final = "agency"
SYSTEM: Final = "system"
TIME: Final = "time"
SUPPORTED_OBLIGATIONS: Final = "supported_obligations"
OBLIGATION_TYPE: Final = "custom"
"""The profile's type for duties that it has no name for; what duty it is, is within the properties."""
VENDOR: Final = "countersign"

_SAID_ELSEWHERE: Final = frozenset({"officer", "origin", "system", "gallery"})
"""What a case states besides its context; here subject and resource do."""


def access(agencies: Sequence[str]) -> dict[str, AccessRule]:
    """Who may ask for which path."""
    named = frozenset(agencies)

    def may_ask(asker: SpiffeId) -> bool:
        # Facts of a search come from the broker, which has checked who asks; an agency's own come from
        # itself, if the operator lets it.
        if asker.kind == "agency":
            return asker.name in named
        return _is_broker(asker)

    def any_authenticated(_: SpiffeId) -> bool:
        return True

    asking = dict.fromkeys((EVALUATION, EVALUATIONS, *SEARCHES), may_ask)
    return {METADATA: any_authenticated, **asking}


def _is_broker(asker: SpiffeId) -> bool:
    return (asker.kind, asker.name) == ("service", "broker")


class _Candidates:
    """What there is to be found in one registry, sorted once: an agency may have 100,000 officers."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.galleries = sorted(registry.galleries)
        self.officers: dict[str, list[str]] = {}
        for name in sorted(registry.officers):
            self.officers.setdefault(registry.officers[name].agency, []).append(name)


class SearchDomain:
    """What the parties' directives say of face searches."""

    supported_obligations: Final = (OBLIGATION_TYPE,)

    def __init__(
        self,
        deciding: Deciding,
        registry: Callable[[], Registry],
        vocabulary: Callable[[], Vocabulary],
        clock: Clock,
    ) -> None:
        """Registry and vocabulary are asked for at each question: those that `deciding` applies by then.

        Not before the first: a policy service that has not heard from the ledger yet has neither.
        """
        self._deciding = deciding
        self._registry = registry
        self._vocabulary = vocabulary
        self._clock = clock
        self._validator = protovalidate.Validator()
        self._candidates: _Candidates | None = None

    async def decide(self, asker: SpiffeId, question: Question) -> Answer:
        """See `Domain`."""
        for place, known, given in (
            ("subject.type", OFFICER, question.subject.type),
            ("action.name", ACTION, question.action.name),
            ("resource.type", GALLERY, question.resource.type),
        ):
            if given != known:
                raise invalid("this decision point decides face searches only", (place, known))
        response = await self._deciding.evaluate(self._request(asker, question))
        return _answer(response.decision)

    def names(self, asker: SpiffeId, sought: Sought, template: Question) -> Sequence[str]:
        """See `Domain`."""
        known = (
            template.subject.type == OFFICER
            and template.resource.type == GALLERY
            and (sought == "action" or template.action.name == ACTION)
        )
        if not known:
            return ()
        origin, system = _origin(asker, template.subject), _system(template.resource)
        if sought == "action":
            return (ACTION,)
        registry = self._registry()
        candidates = self._candidates
        if candidates is None or candidates.registry is not registry:
            candidates = self._candidates = _Candidates(registry)
        if sought == "subject":
            return candidates.officers.get(origin, ())
        galleries = registry.galleries
        return [n for n in candidates.galleries if system in (None, galleries[n].system)]

    def _request(self, asker: SpiffeId, question: Question) -> EvaluateRequest:
        _only(question.action.properties, "action.properties", ())
        context = dict(question.context)
        at = _at(asker, context.pop(TIME, None), self._clock)
        # It changes nothing: a duty is what the rule says, whoever can or cannot keep it.
        context.pop(SUPPORTED_OBLIGATIONS, None)
        twice = sorted(_SAID_ELSEWHERE & context.keys())
        if twice:
            raise invalid(
                "subject and resource say that already",
                *((f"context.{name}", "is not a member of the context") for name in twice),
            )
        case = {
            **context,
            "officer": question.subject.id,
            "origin": _origin(asker, question.subject),
            "system": self._system_of(question.resource),
            "gallery": question.resource.id,
        }
        request = EvaluateRequest(officer=question.subject.id, at=stamp(at))
        try:
            # In strict mode: "no" is not false, and "20" is no number.
            stated = Request.model_validate_json(canonical(case), strict=True)
            request.facts.CopyFrom(stated.facts(self._vocabulary()))
        except ValidationError as error:
            raise invalid("the facts are not those of a search", *_problems(error)) from error
        except ValueError as error:
            raise invalid("a fact is not in the vocabulary", ("context", str(error))) from error
        check_rules(self._validator, request)
        return request

    def _system_of(self, gallery: Entity) -> str:
        """The system to be searched: the one that is said, or that of the registry."""
        said = _system(gallery)
        registered = self._registry().galleries.get(gallery.id)
        if said is not None or registered is None:
            # A gallery that nobody registered is in no system: its own name stands there, for the
            # parties' verdicts to say that it is unknown.
            return said or gallery.id
        return registered.system


def _origin(asker: SpiffeId, officer: Entity) -> str:
    """The origin agency, which the asker may speak for. Raises InvalidRequest or NotAllowed."""
    _only(officer.properties, "subject.properties", (AGENCY,))
    agency = officer.properties.get(AGENCY)
    if not isinstance(agency, str):
        rule = "is required: the ORI of the agency whose officer asks"
        raise invalid("nobody is said to ask", (f"subject.properties.{AGENCY}", rule))
    if not _is_broker(asker) and (asker.kind, asker.name) != ("agency", agency):
        raise NotAllowed("ORIGIN_NOT_CALLER", f"{asker} may not ask in the name of another agency")
    return agency


def _system(gallery: Entity) -> str | None:
    _only(gallery.properties, "resource.properties", (SYSTEM,))
    system = gallery.properties.get(SYSTEM)
    if system is not None and not isinstance(system, str):
        raise invalid("a field has the wrong type", (f"resource.properties.{SYSTEM}", "a string"))
    return system


def _only(given: Mapping[str, Any], place: str, known: Sequence[str]) -> None:
    unknown = sorted(given.keys() - set(known))[:VIOLATIONS_MAX]
    if unknown:
        raise invalid(
            "a property is not known", *((f"{place}.{name}", "is not known") for name in unknown)
        )


def _at(asker: SpiffeId, time: object, clock: Clock) -> datetime:
    """The time of the decision: now, unless the broker says another."""
    if time is None:
        return clock.now()
    if not _is_broker(asker):
        raise NotAllowed("TIME_NOT_CALLERS", f"{asker} may not say what time it is")
    try:
        moment = datetime.fromisoformat(time) if isinstance(time, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise invalid("the time is none", (f"context.{TIME}", "must be as RFC 3339 has it"))
    return moment


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    # Without the input, which may be a case number or what an officer wrote.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        (".".join(["context", *(str(part) for part in problem["loc"])]), problem["msg"])
        for problem in problems[:VIOLATIONS_MAX]
    ]


def _answer(decision: Decision) -> Answer:
    context = MessageToDict(decision, preserving_proto_field_name=True)
    context.pop("obligations", None)
    return Answer(
        decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED,
        context,
        [_obligation(number, duty) for number, duty in enumerate(decision.obligations, start=1)],
    )


def _obligation(number: int, duty: Obligation) -> dict[str, Any]:
    properties = MessageToDict(duty, preserving_proto_field_name=True)
    return {
        "id": str(number),
        "type": OBLIGATION_TYPE,
        "properties": {"vendor": VENDOR, **properties},
    }
