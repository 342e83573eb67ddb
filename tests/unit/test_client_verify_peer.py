"""Of a search that was referred, a candidate is shown only when both ledgers have it, and agree."""

from collections.abc import Callable

import pytest

from countersign.broker.v1.broker_pb2 import Search
from countersign.client.verify import VerificationError, open_answer, verify_search
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DecisionOutcome, Seat, VerdictOutcome
from support.orders import OFFICER, OPERATOR
from support.referrals import (
    EAST,
    ReferralWorkshop,
    entry_of,
    log_of,
    permit,
)

pytestmark = [pytest.mark.promise(2), pytest.mark.promise(3)]


@pytest.fixture
def workshop() -> ReferralWorkshop:
    return ReferralWorkshop()


def _forbid(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[1].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID


def _to_another(entry: Entry) -> None:
    entry.search_decided.referred_to = "north.test"


def _speaks_for_the_operator(entry: Entry) -> None:
    verdicts = entry.search_decided.decision.verdicts
    verdicts[2].CopyFrom(permit(Seat.SEAT_OPERATOR, OPERATOR))


def opened(workshop: ReferralWorkshop, search: Search) -> str:
    """The reason for which the requester does not open the answer."""
    with pytest.raises(VerificationError) as caught:
        open_answer(workshop.search.prepared, search, OFFICER, workshop.trust)
    return caught.value.reason


def test_sound_answer_opens(workshop: ReferralWorkshop) -> None:
    search = workshop.answered()
    told = open_answer(workshop.search.prepared, search, OFFICER, workshop.trust)
    assert told.candidates == workshop.search.candidates()


def test_permit_of_our_own_does_for_no_system_of_a_peers(workshop: ReferralWorkshop) -> None:
    search, signed = workshop.search, workshop.search.sign(workshop.search.answer())
    # Everybody permits, and it was never referred.
    assert opened(workshop, search.end(search.decide(), signed)) == "DECISION_MISMATCH"


def _names_another_end(entry: Entry) -> None:
    entry.search_answered.peer_ended.leaf_sha256 = b"x" * 32


def _names_no_decision(entry: Entry) -> None:
    entry.search_answered.ClearField("peer_decided")


@pytest.mark.parametrize("lie", [_names_another_end, _names_no_decision])
def test_broker_whose_own_end_does_not_name_the_peers(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    assert opened(workshop, workshop.answered(end_changed=lie)) == "PEER_END_MISMATCH"


def test_ledgers_that_say_different_things_of_the_end(workshop: ReferralWorkshop) -> None:
    def fewer(entry: Entry) -> None:
        entry.search_answered.gallery_size -= 1

    search = workshop.answered(ended_changed=fewer)
    assert opened(workshop, search) == "PEER_END_MISMATCH"


def test_broker_that_keeps_the_peers_receipts_back(workshop: ReferralWorkshop) -> None:
    search = workshop.answered()
    search.ClearField("peer")
    assert opened(workshop, search) == "PEER_NOT_RECORDED"


def test_broker_that_shows_a_decision_of_a_forked_log(workshop: ReferralWorkshop) -> None:
    search = workshop.answered()
    forked = log_of(EAST)
    forked.leaves = workshop.east.leaves
    receipt = search.peer.decision_receipt
    receipt.CopyFrom(forked.receipt(receipt.index))
    assert opened(workshop, search) == "PEER_RECEIPT_INVALID"


@pytest.mark.parametrize("lie", [_forbid, _to_another, _speaks_for_the_operator])
def test_decision_that_is_no_referral_of_the_system(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    search = workshop.referred(lie)
    assert opened(workshop, search) == "DECISION_MISMATCH"


def test_refusal_of_the_peers_is_shown_only_when_its_ledger_has_it(
    workshop: ReferralWorkshop,
) -> None:
    def refuses(entry: Entry) -> None:
        decision = entry.search_decided.decision
        decision.outcome = DecisionOutcome.DECISION_OUTCOME_REFUSED
        decision.verdicts[2].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID
        entry.search_decided.ClearField("deadline")

    search = workshop.referred()
    search.peer.decision_receipt.CopyFrom(workshop.decide_there(search, refuses))
    end = Entry(schema_epoch=1, search_id=search.search_id)
    end.search_failed.decided_index = search.decision_receipt.index
    end.search_failed.reason = FailureReason.FAILURE_REASON_PEER_REFUSED
    at = entry_of(EAST, workshop.east, search.peer.decision_receipt)
    end.search_failed.peer_decided.CopyFrom(at)
    search = workshop.search.close(search, end)
    verified = verify_search(search, search.search_id, workshop.trust)
    assert verified.failure_reason == FailureReason.FAILURE_REASON_PEER_REFUSED
    # Another decision of the same ledger, such as a later one, is not the one that our end names.
    search.peer.decision_receipt.CopyFrom(workshop.decide_there(search, refuses))
    with pytest.raises(VerificationError) as caught:
        verify_search(search, search.search_id, workshop.trust)
    assert caught.value.reason == "PEER_DECISION_MISMATCH"
