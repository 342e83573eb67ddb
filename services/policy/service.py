"""PolicyService: decisions for the broker, directives for everyone who is authenticated."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from countersign.policy.v1 import policy_pb2 as pb
from countersign.policy.v1.policy_pb2_grpc import PolicyServiceServicer
from directive.book import Directive
from directive.holdings import Held, midnight
from policy.applied import Applied, Current
from policy.deciding import Deciding
from policy.publishing import OnRecord, Publishing
from policy.registering import Registering
from shared.clock import Clock, stamp
from shared.errors import FieldViolation, InvalidRequest, NotFound, NotReady
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


def _may_hand_in(caller: SpiffeId) -> bool:
    return caller.kind in ("agency", "oversight", "operator")


ACCESS: Final[dict[str, AccessRule]] = {
    # Facts of a search come from the broker, which has checked who asks.
    f"/{SERVICE}/Evaluate": _broker,
    # What a party has ordered is no secret: whoever is refused must be able to read it.
    f"/{SERVICE}/ListDirectives": _any_authenticated,
    f"/{SERVICE}/GetDirective": _any_authenticated,
    # Looking at what is handed in takes seconds of CPU.
    f"/{SERVICE}/PublishDirective": _may_hand_in,
    f"/{SERVICE}/WithdrawDirective": _may_hand_in,
    f"/{SERVICE}/PublishRegistration": _may_hand_in,
    f"/{SERVICE}/PublishOrder": _may_hand_in,
    f"/{SERVICE}/GetRegistration": _any_authenticated,
}


@dataclass(frozen=True)
class TakingIn:
    """What takes documents in."""

    directives: Publishing
    registrations: Registering


class PolicyServicer(PolicyServiceServicer):
    """Translates; `Deciding` and what is applied answer. Without `taking_in`, directives are files."""

    def __init__(
        self,
        deciding: Deciding,
        current: Current,
        clock: Clock,
        taking_in: TakingIn | None = None,
    ) -> None:
        self._deciding = deciding
        self._current = current
        self._clock = clock
        self._taking_in = taking_in

    async def Evaluate(  # noqa: N802
        self, request: pb.EvaluateRequest, context: Context
    ) -> pb.EvaluateResponse:
        """See policy.proto."""
        return await self._deciding.evaluate(request)

    async def PublishDirective(  # noqa: N802
        self, request: pb.PublishDirectiveRequest, context: Context
    ) -> pb.PublishDirectiveResponse:
        """See policy.proto."""
        done = await self._taken_in().directives.publish(request)
        return pb.PublishDirectiveResponse(
            directive=self._described_held(done), receipt=done.receipt
        )

    async def WithdrawDirective(  # noqa: N802
        self, request: pb.WithdrawDirectiveRequest, context: Context
    ) -> pb.WithdrawDirectiveResponse:
        """See policy.proto."""
        done = await self._taken_in().directives.withdraw(request)
        return pb.WithdrawDirectiveResponse(
            directive=self._described_held(done), receipt=done.receipt
        )

    async def PublishRegistration(  # noqa: N802
        self, request: pb.PublishRegistrationRequest, context: Context
    ) -> pb.PublishRegistrationResponse:
        """See policy.proto."""
        return await self._taken_in().registrations.publish(request)

    async def PublishOrder(  # noqa: N802
        self, request: pb.PublishOrderRequest, context: Context
    ) -> pb.PublishOrderResponse:
        """See policy.proto."""
        return await self._taken_in().registrations.order(request)

    async def GetRegistration(  # noqa: N802
        self, request: pb.GetRegistrationRequest, context: Context
    ) -> pb.GetRegistrationResponse:
        """See policy.proto."""
        return await self._taken_in().registrations.get(request.owner)

    def _taken_in(self) -> TakingIn:
        if self._taking_in is None:
            raise NotReady(
                "DIRECTIVES_ARE_FILES",
                "this policy service reads its directives from a folder: put them there",
            )
        return self._taking_in

    def _described_held(self, done: OnRecord) -> pb.Directive:
        return self._described(done.held.directive, done.held)

    async def ListDirectives(  # noqa: N802
        self, request: pb.ListDirectivesRequest, context: Context
    ) -> pb.ListDirectivesResponse:
        """See policy.proto."""
        after = _read_token(request)
        applied = self._current()
        wanted = [
            directive
            for name, directive in applied.book.directives.items()
            if name > after and request.party in ("", directive.document.manifest.party)
        ]
        size = min(request.page_size or PAGE_DEFAULT, PAGE_MAX)
        page, more = wanted[:size], len(wanted) > size
        return pb.ListDirectivesResponse(
            directives=[
                self._described(directive, _held(applied, directive)) for directive in page
            ],
            next_page_token=_token(request.party, page) if more else "",
        )

    async def GetDirective(  # noqa: N802
        self, request: pb.GetDirectiveRequest, context: Context
    ) -> pb.GetDirectiveResponse:
        """See policy.proto."""
        applied = self._current()
        directive = applied.book.directives.get(request.name)
        if directive is None:
            raise NotFound("DIRECTIVE_UNKNOWN", f"there is no directive {request.name!r}")
        held = _held(applied, directive)
        return pb.GetDirectiveResponse(
            directive=self._described(directive, held),
            manifest=directive.document.manifest_text,
            rules=directive.document.rules_text,
            cases=held.cases if held else "",
            note=held.note if held else "",
        )

    def _described(self, directive: Directive, held: Held | None) -> pb.Directive:
        manifest = directive.document.manifest
        described = pb.Directive(
            name=manifest.name,
            party=manifest.party,
            title=manifest.title,
            source=manifest.source,
            source_sha256=bytes.fromhex(manifest.source_sha256 or ""),
            effective_from=midnight(manifest.effective_from),
            sha256=directive.document.sha256,
            rules=[rule.as_proto for rule in directive.rules],
            in_force=directive.in_force(self._clock.now().astimezone(UTC).date()),
        )
        if directive.ends is not None:
            described.ends.CopyFrom(midnight(directive.ends))
        if held is not None:
            described.published_index = held.index
            described.received_at.CopyFrom(stamp(held.received))
            described.replaced_by = held.replaced_by
            if held.withdrawn_index is not None:
                described.withdrawn_index = held.withdrawn_index
        if manifest.effective_until is not None:
            described.effective_until.CopyFrom(midnight(manifest.effective_until))
        return described


def _held(applied: Applied, directive: Directive) -> Held | None:
    if applied.holdings is None:
        return None
    return applied.holdings.held[directive.document.name]


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
