"""Duties that came with a decision: the agency that asked, which owes them, says that one was done.

Nothing here judges whether it was: the entry says who said so, and when. Whoever may not say it is on record,
as everybody is whom the broker turns away.
"""

import hashlib

from broker.admission import Admission, Call, token_digest
from broker.ledger import Ledger
from broker.policy import Policy
from broker.record import Record
from countersign.broker.v1.broker_pb2 import DischargeObligationRequest, DischargeObligationResponse
from countersign.ledger.v1.append_pb2 import PendingEntry, SensitiveField
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DischargeResult, ObligationDischarged
from countersign.type.v1.decision_pb2 import Obligation
from shared.errors import NotAllowed, NotFound


class Discharging:
    """Records what was done."""

    def __init__(self, ledger: Ledger, admission: Admission, policy: Policy) -> None:
        self._ledger = ledger
        self._admission = admission
        self._policy = policy

    def allow(self, call: Call) -> None:
        """Before anything of the call is looked at. Raises Overloaded."""
        self._admission.discharging(call)

    async def discharge(
        self, call: Call, request: DischargeObligationRequest, record: Record | None
    ) -> DischargeObligationResponse:
        """The entry, this one or the first. `record` is of the search, whoever asked for it.

        Raises NotFound, NotAllowed or NotAuthentic, recorded; ServiceError.
        """
        spent = record is not None
        officer = await self._admission.vouched(
            call, request.search_id, request.officer_token, spent
        )
        try:
            record, duty = _owed(call, request, record)
            await self._check_officer(call, officer)
        except (NotFound, NotAllowed) as error:
            await self._admission.turned_away(call, request.search_id, error, spent)
            raise
        pending = discharged_entry(
            record, duty, officer, request.narrative, token_digest(request.officer_token)
        )
        appended = await self._ledger.append(pending, call.until)
        return DischargeObligationResponse(receipt=appended.receipt, existing=appended.existing)

    async def _check_officer(self, call: Call, officer: str) -> None:
        """A provider vouches for whom it knows; who is an officer the registry says. Raises NotAllowed."""
        index = self._admission.documents_index
        if not await self._policy.has_officer(call.caller.name, officer, index, call.until):
            raise NotAllowed("OFFICER_UNKNOWN", "the registry has no such officer of your agency")


def discharged_entry(
    record: Record, duty: Obligation, officer: str, narrative: str, token_sha256: bytes
) -> PendingEntry:
    """A duty was done. Its key makes that one entry, however often it is said."""
    event = ObligationDischarged(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        kind=duty.kind,
        rule_id=duty.rule_id,
        party=duty.party,
        result=DischargeResult.DISCHARGE_RESULT_DONE,
        officer_token_sha256=token_sha256,
    )
    # A digest: there are no bounds on what a rule's name may look like, and there are on a key.
    named = hashlib.sha256("\0".join((duty.kind, duty.rule_id, duty.party)).encode()).hexdigest()
    return PendingEntry(
        entry=Entry(search_id=record.search_id, obligation_discharged=event),
        sensitive=[
            SensitiveField(field="officer", value=officer),
            SensitiveField(field="narrative", value=narrative),
        ],
        idempotency_key=f"discharged/{record.search_id}/{named}",
    )


def _owed(
    call: Call, request: DischargeObligationRequest, record: Record | None
) -> tuple[Record, Obligation]:
    """The duty that is meant, of a search of the caller's agency. Raises NotFound."""
    if record is None or record.origin_agency != call.caller.name:
        raise NotFound("SEARCH_UNKNOWN", f"your agency has no search {request.search_id}")
    named = (request.kind, request.rule_id, request.party)
    for duty in record.decision.decision.obligations:
        if (duty.kind, duty.rule_id, duty.party) == named:
            return record, duty
    raise NotFound(
        "OBLIGATION_NOT_IMPOSED",
        "the decision on this search has no such duty; its obligations name those that it has",
    )
