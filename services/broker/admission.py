"""Who may ask for what, and how often: the calling agency and its officer.

Whoever is turned away for what they are is on record; by a limit, nothing is.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from broker.ledger import Ledger
from broker.limits import Limits
from broker.participants import Known, Participants
from broker.record import Record, rejected_entry
from countersign.ledger.v1.entry_pb2 import RequestRejected
from countersign.type.v1.search_pb2 import SearchFacts
from shared.errors import Conflict, NotAllowed, NotAuthentic, ServiceError
from shared.identity import SpiffeId
from shared.rejections import Rejections, check_recorded

SERVICE: Final = "countersign.broker.v1.BrokerService"


@dataclass(frozen=True)
class Call:
    """One call: who makes it, to which RPC, and until when they wait."""

    caller: SpiffeId
    rpc: str
    until: float | None = None
    """By the loop's clock; None for as long as it takes."""
    service: str = SERVICE


def token_digest(token: str) -> bytes:
    """Goes on record, so that it can be asked later which token vouched for whom. Empty without one."""
    return hashlib.sha256(token.encode()).digest() if token else b""


@dataclass(frozen=True)
class Admitted:
    """An officer who may ask, and by what that was found."""

    officer: str
    call: Call
    facts: SearchFacts
    token: str
    """Empty when a peer vouches for the officer."""
    by: Participants

    @property
    def token_sha256(self) -> bytes:
        """See `token_digest`."""
        return token_digest(self.token)


class Admission:
    """Admits officers of the calling agency, and records everyone else."""

    def __init__(
        self, known: Known, ledger: Ledger, limits: Limits, rejections: Rejections
    ) -> None:
        self._known = known
        self._ledger = ledger
        self._limits = limits
        self._rejections = rejections

    @property
    def documents_index(self) -> int | None:
        """The newest document by which is admitted; None where the registry is a file. Raises Unavailable."""
        return self._known.current().documents_index

    async def admit(self, call: Call, facts: SearchFacts, token: str) -> Admitted:
        """The officer who asks. Raises NotAllowed or NotAuthentic, recorded; Overloaded, Unavailable."""
        self._limits.agency(call.caller.name)
        admitted = await self._admitted(call, facts, token, self._known.current())
        self._limits.officer(facts.origin_agency, admitted.officer)
        return admitted

    def referred(self, call: Call, facts: SearchFacts, officer: str) -> Admitted:
        """An officer of a peer's agency, who was admitted there as its ledger proves. Raises Overloaded."""
        self._limits.agency(facts.origin_agency)
        self._limits.officer(facts.origin_agency, officer)
        return Admitted(officer, call, facts, "", self._known.current())

    def discharging(self, call: Call) -> None:
        """The calling agency may discharge a duty now. Raises Overloaded."""
        self._limits.discharge(call.caller.name)

    async def confirm(self, admitted: Admitted, documents_index: int | None) -> None:
        """Ask again where the decision knows a later document: a key may have been taken out by it.

        What is recorded was so admitted and decided by the same documents. Raises as `admit`, but for limits:
        it is the same call.
        """
        now = await self._known.reaching(documents_index)
        if now is not admitted.by and admitted.token:
            await self._admitted(admitted.call, admitted.facts, admitted.token, now)

    async def _admitted(
        self, call: Call, facts: SearchFacts, token: str, by: Participants
    ) -> Admitted:
        try:
            if facts.origin_agency != call.caller.name:
                raise NotAllowed(
                    "ORIGIN_NOT_CALLER",
                    f"{call.caller} may not ask in the name of agency {facts.origin_agency}",
                )
            officer = by.tokens.verify(token, facts.origin_agency, facts.search_id)
        except (NotAllowed, NotAuthentic) as error:
            await self.turned_away(call, facts.search_id, error, spent=False)
            raise
        return Admitted(officer, call, facts, token, by)

    async def vouched(self, call: Call, search_id: str, token: str, spent: bool) -> str:
        """The calling agency's officer, who says something of a search. Raises as `admit`, but for limits."""
        try:
            return self._known.current().tokens.verify(token, call.caller.name, search_id)
        except (NotAllowed, NotAuthentic) as error:
            await self.turned_away(call, search_id, error, spent)
            raise

    async def conflict(self, call: Call, record: Record, request_sha256: bytes) -> ServiceError:
        """The error for an id that stands for another request, recorded."""
        recorded = record.decision.request_sha256
        digests = {"rejected_request_sha256": request_sha256.hex()}
        if record.origin_agency == call.caller.name:
            # Another agency learns that the id is taken, not what for.
            digests["recorded_request_sha256"] = recorded.hex()
        error = Conflict(
            "SEARCH_ID_TAKEN",
            "the search id stands for another request; choose a new id for a new search",
            metadata=digests,
        )
        await self.turned_away(call, record.search_id, error, True, recorded, request_sha256)
        return error

    async def turned_away(
        self,
        call: Call,
        search_id: str,
        error: ServiceError,
        spent: bool,
        recorded_sha256: bytes = b"",
        rejected_sha256: bytes = b"",
    ) -> None:
        """Records a call that is refused. `spent` says that the id stands for a search on record."""
        event = RequestRejected(
            rpc=f"{call.service}/{call.rpc}",
            caller=str(call.caller),
            reason=error.reason,
            recorded_request_sha256=recorded_sha256,
            rejected_request_sha256=rejected_sha256,
        )
        wait_s = await self._rejections.record(
            event, lambda event: self._ledger.append(rejected_entry(event, search_id, spent))
        )
        check_recorded(wait_s)
