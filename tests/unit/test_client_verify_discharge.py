"""That a duty was done: a requester believes only the entry of this duty of this decision."""

from collections.abc import Callable

import pytest

from countersign.broker.v1.broker_pb2 import DischargeObligationResponse
from countersign.client import VerificationError, verify_discharge
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DISCHARGE_RESULT_DONE, DISCHARGE_RESULT_WAIVED
from countersign.type.v1.decision_pb2 import Obligation
from support.orders import SEARCH_ID
from support.searches import SearchWorkshop

DUTY = Obligation(kind="report", rule_id="LAPD-1", party="CA0194200")
OTHER_ID = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"


def _nothing(_: Entry) -> None:
    """As it should be."""


def _another_search(entry: Entry) -> None:
    entry.search_id = OTHER_ID


def _another_decision(entry: Entry) -> None:
    entry.obligation_discharged.decided_index += 1


def _another_duty(entry: Entry) -> None:
    entry.obligation_discharged.rule_id = "LAPD-2"


def _another_agency(entry: Entry) -> None:
    entry.obligation_discharged.origin_agency = "CA0190000"


def _let_go(entry: Entry) -> None:
    entry.obligation_discharged.result = DISCHARGE_RESULT_WAIVED


def _no_discharge(entry: Entry) -> None:
    entry.outcome_reported.decided_index = entry.obligation_discharged.decided_index


def told(change: Callable[[Entry], None]) -> str:
    """Why it is not believed; empty when it is."""
    workshop = SearchWorkshop()
    search = workshop.decide()
    summary = search.summary
    entry = Entry(schema_epoch=1, search_id=SEARCH_ID)
    event = entry.obligation_discharged
    event.decided_index = search.decision_receipt.index
    event.origin_agency = summary.origin_agency
    event.kind, event.rule_id, event.party = DUTY.kind, DUTY.rule_id, DUTY.party
    event.result = DISCHARGE_RESULT_DONE
    change(entry)
    receipt = workshop.log.receipt(workshop.log.append(entry))
    response = DischargeObligationResponse(receipt=receipt)
    try:
        verify_discharge(response, search.decision_receipt, DUTY, workshop.trust)
    except VerificationError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_nothing, ""),
        (_another_search, "DISCHARGE_MISMATCH"),
        (_another_decision, "DISCHARGE_MISMATCH"),
        (_another_duty, "DISCHARGE_MISMATCH"),
        (_another_agency, "DISCHARGE_MISMATCH"),
        (_let_go, "DISCHARGE_MISMATCH"),
        (_no_discharge, "DISCHARGE_MISMATCH"),
    ],
)
def test_only_the_entry_of_this_duty_is_believed(
    change: Callable[[Entry], None], reason: str
) -> None:
    assert told(change) == reason


def test_a_receipt_that_proves_nothing_is_not_believed() -> None:
    workshop = SearchWorkshop()
    search = workshop.decide()
    with pytest.raises(VerificationError) as caught:
        verify_discharge(
            DischargeObligationResponse(), search.decision_receipt, DUTY, workshop.trust
        )
    assert caught.value.reason == "RECEIPT_INVALID"
