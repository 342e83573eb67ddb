"""PolicyService: decisions for the broker, directives for everyone who is authenticated."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.policy.v1 import policy_pb2 as pb
from countersign.policy.v1.policy_pb2_grpc import PolicyServiceServicer
from directive.book import Book, Directive
from policy.deciding import Deciding
from shared.clock import Clock
from shared.errors import FieldViolation, InvalidRequest, NotFound
from shared.identity import SpiffeId
from shared.rpc import AccessRule, Context

SERVICE: Final = "countersign.policy.v1.PolicyService"
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200

_FORMAT: Final = "1"


def _broker(caller: SpiffeId) -> bool:
    return (caller.kind, caller.name) == ("service", "broker")


def _any_authenticated(_: SpiffeId) -> bool:
    return True


ACCESS: Final[dict[str, AccessRule]] = {
    # Facts of a search come from the broker, which has checked who asks.
    f"/{SERVICE}/Evaluate": _broker,
    # What a party has ordered is no secret: whoever is refused must be able to read it.
    f"/{SERVICE}/ListDirectives": _any_authenticated,
    f"/{SERVICE}/GetDirective": _any_authenticated,
}


class PolicyServicer(PolicyServiceServicer):
    """Translates; `Deciding` and the book answer."""

    def __init__(self, deciding: Deciding, book: Book, clock: Clock) -> None:
        self._deciding = deciding
        self._book = book
        self._clock = clock

    async def Evaluate(  # noqa: N802
        self, request: pb.EvaluateRequest, context: Context
    ) -> pb.EvaluateResponse:
        """See policy.proto."""
        return await self._deciding.evaluate(request)

    async def ListDirectives(  # noqa: N802
        self, request: pb.ListDirectivesRequest, context: Context
    ) -> pb.ListDirectivesResponse:
        """See policy.proto."""
        after = _read_token(request)
        wanted = [
            directive
            for name, directive in self._book.directives.items()
            if name > after and request.party in ("", directive.document.manifest.party)
        ]
        size = min(request.page_size or PAGE_DEFAULT, PAGE_MAX)
        page, more = wanted[:size], len(wanted) > size
        return pb.ListDirectivesResponse(
            directives=[self._described(directive) for directive in page],
            next_page_token=_token(request.party, page) if more else "",
        )

    async def GetDirective(  # noqa: N802
        self, request: pb.GetDirectiveRequest, context: Context
    ) -> pb.GetDirectiveResponse:
        """See policy.proto."""
        directive = self._book.directives.get(request.name)
        if directive is None:
            raise NotFound("DIRECTIVE_UNKNOWN", f"there is no directive {request.name!r}")
        return pb.GetDirectiveResponse(
            directive=self._described(directive),
            manifest=directive.document.manifest_text,
            rules=directive.document.rules_text,
        )

    def _described(self, directive: Directive) -> pb.Directive:
        manifest = directive.document.manifest
        described = pb.Directive(
            name=manifest.name,
            party=manifest.party,
            title=manifest.title,
            source=manifest.source,
            source_sha256=bytes.fromhex(manifest.source_sha256 or ""),
            effective_from=_midnight(manifest.effective_from),
            sha256=directive.document.sha256,
            rules=[rule.as_proto for rule in directive.rules],
            in_force=manifest.in_force(self._clock.now().astimezone(UTC).date()),
        )
        if manifest.effective_until is not None:
            described.effective_until.CopyFrom(_midnight(manifest.effective_until))
        return described


def _midnight(day: date) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.combine(day, time(), UTC))
    return stamp


def _token(party: str, page: Sequence[Directive]) -> str:
    """Where the next page begins, and of which list: a token of another list is not understood."""
    fields = (_FORMAT, party, page[-1].document.name)
    return base64.urlsafe_b64encode("\0".join(fields).encode()).decode()


def _read_token(request: pb.ListDirectivesRequest) -> str:
    if not request.page_token:
        return ""
    try:
        fields = base64.urlsafe_b64decode(request.page_token.encode()).decode().split("\0")
    except (binascii.Error, ValueError):
        fields = []
    if len(fields) != 3 or fields[:2] != [_FORMAT, request.party]:
        raise InvalidRequest(
            "INVALID_REQUEST",
            "the page token is not one of this list",
            violations=[FieldViolation("page_token", "take it from the last answer, unchanged")],
        )
    return fields[2]
