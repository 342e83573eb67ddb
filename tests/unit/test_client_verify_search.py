"""Attacks on what a requester is told of a search: every lie about state, summary or end is noticed.

The attacker is the broker: it holds true receipts of every search, and writes the rest of the message.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from countersign.broker.v1.broker_pb2 import CheckSearchResponse, Search, SearchState
from countersign.client import VerificationError, verify_check, verify_search
from countersign.connector.v1.connector_pb2 import FailureReason, SearchAnswer
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.circumstances_pb2 import RequestRoute
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from support.orders import OFFICER, SEARCH_ID, log_signer
from support.searches import DECIDED_AT, PERMITTED, LogInMemory, SearchWorkshop

NAMES: Final = ("origin_agency", "beneficiary_agency", "system", "gallery")
STATED: Final = (*NAMES, "purpose", "suspicion", "offence", "provenance", "capture_mode")
OTHER_ID: Final = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"
REFUSED: Final = Decision(outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED)


@pytest.fixture
def workshop() -> SearchWorkshop:
    return SearchWorkshop()


def answered(workshop: SearchWorkshop) -> Search:
    """A sound search with its answer."""
    return workshop.end(workshop.decide(), workshop.sign(workshop.answer()))


def failed(workshop: SearchWorkshop) -> Search:
    """A sound search that gave no list."""

    def fails(answer: SearchAnswer) -> None:
        answer.failure.reason = FailureReason.FAILURE_REASON_NO_FACE

    return workshop.end(workshop.decide(), workshop.sign(workshop.answer(changed=fails)))


def ended(
    workshop: SearchWorkshop, kind: str, changed: Callable[[Entry], None] = lambda _: None
) -> Search:
    """A search that ended without an answer."""
    search = workshop.decide()
    end = Entry(schema_epoch=1, search_id=search.search_id)
    getattr(end, kind).decided_index = search.decision_receipt.index
    changed(end)
    return workshop.close(search, end)


def withdrawn(workshop: SearchWorkshop) -> Search:
    """A sound search that was withdrawn."""
    return ended(workshop, "search_withdrawn")


def expired(workshop: SearchWorkshop) -> Search:
    """A sound search that nobody answered."""
    return ended(workshop, "search_expired")


def pending(workshop: SearchWorkshop) -> Search:
    """A sound search that has not ended."""
    return workshop.decide()


def refused(workshop: SearchWorkshop) -> Search:
    """A sound refusal."""
    return workshop.decide(REFUSED)


def reason(workshop: SearchWorkshop, search: Search, *, asked: str = SEARCH_ID) -> str:
    """Why the search is not believed, by one who only has the trust roots."""
    with pytest.raises(VerificationError) as caught:
        verify_search(search, asked, workshop.trust)
    return caught.value.reason


def reason_to_sender(workshop: SearchWorkshop, search: Search, officer: str = OFFICER) -> str:
    """Why it is not believed by the one who sent it."""
    with pytest.raises(VerificationError) as caught:
        verify_search(search, SEARCH_ID, workshop.trust, workshop.prepared, officer)
    return caught.value.reason


@pytest.mark.parametrize(
    ("made", "state"),
    [
        (refused, SearchState.SEARCH_STATE_REFUSED),
        (pending, SearchState.SEARCH_STATE_PENDING),
        (answered, SearchState.SEARCH_STATE_ANSWERED),
        (failed, SearchState.SEARCH_STATE_FAILED),
        (expired, SearchState.SEARCH_STATE_EXPIRED),
        (withdrawn, SearchState.SEARCH_STATE_WITHDRAWN),
    ],
)
def test_sound_search_is_believed(
    workshop: SearchWorkshop,
    made: Callable[[SearchWorkshop], Search],
    state: SearchState.ValueType,
) -> None:
    search = made(workshop)
    verified = verify_search(search, SEARCH_ID, workshop.trust, workshop.prepared, OFFICER)
    assert verified == verify_search(search, SEARCH_ID, workshop.trust)
    assert verified.state == state
    assert verified.summary == workshop.summary
    assert verified.decision == search.decision
    assert verified.decide_time.seconds == DECIDED_AT
    assert verified.deadline == search.deadline
    assert verified.failure_reason == search.failure_reason


def test_answer_that_is_no_longer_held(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.ClearField("answer")
    verified = verify_search(search, SEARCH_ID, workshop.trust)
    assert verified.state == SearchState.SEARCH_STATE_ANSWERED


# The search asked for


def test_another_search_than_the_one_asked_for(workshop: SearchWorkshop) -> None:
    other = answered(workshop.another(OTHER_ID))
    assert reason(workshop, other) == "SEARCH_MISMATCH"


def test_another_search_under_the_id_asked_for(workshop: SearchWorkshop) -> None:
    other = answered(workshop.another(OTHER_ID))
    other.search_id = SEARCH_ID
    assert reason(workshop, other) == "DECISION_MISMATCH"


@pytest.mark.parametrize("made", [refused, pending, withdrawn])
def test_decision_on_another_request(
    workshop: SearchWorkshop, made: Callable[[SearchWorkshop], Search]
) -> None:
    """A refusal of what was never asked is a lie too: it hides whether the request was decided."""
    search = made(workshop.another(SEARCH_ID))
    verify_search(search, SEARCH_ID, workshop.trust)  # for all that a stranger can tell
    assert reason_to_sender(workshop, search) == "DECISION_MISMATCH"


@pytest.mark.parametrize("made", [refused, pending])
def test_decision_for_another_officer(
    workshop: SearchWorkshop, made: Callable[[SearchWorkshop], Search]
) -> None:
    search = made(workshop)
    assert reason_to_sender(workshop, search, "lapd-40777") == "DECISION_MISMATCH"


def test_decision_on_record_as_about_something_else(workshop: SearchWorkshop) -> None:
    def other_circumstances(entry: Entry) -> None:
        entry.search_decided.summary.circumstances.route = RequestRoute.REQUEST_ROUTE_DIRECT

    search = workshop.decide(changed=other_circumstances)
    assert reason_to_sender(workshop, search) == "SUMMARY_MISMATCH"


@pytest.mark.parametrize("fact", STATED)
def test_decision_on_record_without_what_was_stated(workshop: SearchWorkshop, fact: Any) -> None:
    search = workshop.decide(changed=lambda entry: entry.search_decided.summary.ClearField(fact))
    assert reason_to_sender(workshop, search) == "SUMMARY_MISMATCH"


# The decision


def test_receipts_of_another_log(workshop: SearchWorkshop) -> None:
    forger = SearchWorkshop(log=LogInMemory(log_signer()))
    assert reason(workshop, pending(forger)) == "RECEIPT_INVALID"
    search, forged = withdrawn(workshop), LogInMemory(log_signer())
    forged.leaves = workshop.log.leaves
    search.end_receipt.CopyFrom(forged.receipt(search.end_receipt.index))
    assert reason(workshop, search) == "RECEIPT_INVALID"


def test_permit_presented_as_a_refusal(workshop: SearchWorkshop) -> None:
    search = pending(workshop)
    search.state = SearchState.SEARCH_STATE_REFUSED
    assert reason(workshop, search) == "STATE_MISMATCH"
    search.decision.CopyFrom(REFUSED)
    assert reason(workshop, search) == "DECISION_MISMATCH"


def test_dry_run_presented_as_the_decision(workshop: SearchWorkshop) -> None:
    search = pending(workshop)
    search.decision_receipt.CopyFrom(workshop.check().receipt)
    assert reason(workshop, search) == "DECISION_MISMATCH"


def _forbidden(decision: Decision) -> None:
    decision.verdicts[0].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID


def _of_nobody(decision: Decision) -> None:
    del decision.verdicts[:]


def _open_ended(decision: Decision) -> None:
    decision.outcome = DecisionOutcome.DECISION_OUTCOME_UNSPECIFIED


@pytest.mark.parametrize("change", [_forbidden, _of_nobody, _open_ended])
def test_decision_on_record_that_is_neither_permit_nor_refusal(
    workshop: SearchWorkshop, change: Callable[[Decision], None]
) -> None:
    decision = Decision()
    decision.CopyFrom(PERMITTED)
    change(decision)
    assert reason(workshop, workshop.decide(decision)) == "DECISION_MISMATCH"


# The end


def test_refusal_with_an_end(workshop: SearchWorkshop) -> None:
    search = refused(workshop)
    end = Entry(schema_epoch=1, search_id=SEARCH_ID)
    end.search_withdrawn.decided_index = search.decision_receipt.index
    workshop.close(search, end)
    search.state = SearchState.SEARCH_STATE_REFUSED
    assert reason(workshop, search) == "END_MISMATCH"


def test_refusal_with_an_answer(workshop: SearchWorkshop) -> None:
    search = refused(workshop)
    search.answer.CopyFrom(workshop.sign(workshop.answer()))
    assert reason(workshop, search) == "ANSWER_NOT_RECORDED"


def _of_another_search(end: Entry) -> None:
    end.search_id = OTHER_ID


def _of_no_search(end: Entry) -> None:
    end.ClearField("search_id")


def _of_another_decision(end: Entry) -> None:
    end.search_withdrawn.decided_index -= 1


def _of_no_decision(end: Entry) -> None:
    end.search_withdrawn.ClearField("decided_index")


@pytest.mark.parametrize(
    "change", [_of_another_search, _of_no_search, _of_another_decision, _of_no_decision]
)
def test_end_of_something_else(workshop: SearchWorkshop, change: Callable[[Entry], None]) -> None:
    search = ended(workshop, "search_withdrawn", change)
    assert reason(workshop, search) == "END_MISMATCH"


def test_end_receipt_of_another_search_and_a_forged_summary(workshop: SearchWorkshop) -> None:
    """What the review found: all the rest is as the broker likes it."""
    search = pending(workshop)
    other = withdrawn(workshop.another(OTHER_ID))
    search.end_receipt.CopyFrom(other.end_receipt)
    search.state = SearchState.SEARCH_STATE_WITHDRAWN
    search.summary.gallery = "another-gallery"
    assert reason(workshop, search) == "END_MISMATCH"


def test_entry_that_ends_nothing_as_the_end(workshop: SearchWorkshop) -> None:
    search = pending(workshop)
    undecided = Entry(schema_epoch=1, search_id=SEARCH_ID)
    undecided.search_undecided.reason = "POLICY_UNAVAILABLE"
    for leaf in (undecided, Entry.FromString(search.decision_receipt.leaf), Entry()):
        search.end_receipt.CopyFrom(workshop.log.receipt(workshop.log.append(leaf)))
        assert reason(workshop, search) == "END_MISMATCH"


def test_answer_that_is_not_on_record(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.answer.answer += b"\x00"
    assert reason(workshop, search) == "ANSWER_NOT_RECORDED"


@pytest.mark.parametrize("made", [pending, expired, withdrawn])
def test_answer_to_a_search_that_was_not_answered(
    workshop: SearchWorkshop, made: Callable[[SearchWorkshop], Search]
) -> None:
    search = made(workshop)
    search.answer.CopyFrom(workshop.sign(workshop.answer()))
    assert reason(workshop, search) == "ANSWER_NOT_RECORDED"


# What the message says


@pytest.mark.parametrize("made", [refused, pending, answered, failed, expired, withdrawn])
def test_every_state_but_the_recorded_one(
    workshop: SearchWorkshop, made: Callable[[SearchWorkshop], Search]
) -> None:
    search = made(workshop)
    for lie in set(SearchState.values()) - {search.state}:
        search.state = lie
        assert reason(workshop, search) == "STATE_MISMATCH"


@pytest.mark.parametrize("made", [answered, failed, expired, withdrawn])
def test_end_without_its_receipt(
    workshop: SearchWorkshop, made: Callable[[SearchWorkshop], Search]
) -> None:
    search = made(workshop)
    search.ClearField("end_receipt")
    search.ClearField("answer")
    assert reason(workshop, search) == "STATE_MISMATCH"


def _forged_summary(search: Search) -> None:
    search.summary.origin_agency = "CA0191200"


def _no_summary(search: Search) -> None:
    search.ClearField("summary")


def _other_failure(search: Search) -> None:
    search.failure_reason = FailureReason.FAILURE_REASON_ORDER_REJECTED


def _no_failure(search: Search) -> None:
    search.ClearField("failure_reason")


def _earlier(search: Search) -> None:
    search.decide_time.seconds -= 1


def _later_deadline(search: Search) -> None:
    search.deadline.seconds += 3600


def _no_deadline(search: Search) -> None:
    search.ClearField("deadline")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_forged_summary, "SUMMARY_MISMATCH"),
        (_no_summary, "SUMMARY_MISMATCH"),
        (_other_failure, "FAILURE_MISMATCH"),
        (_no_failure, "FAILURE_MISMATCH"),
        (_earlier, "DECIDE_TIME_MISMATCH"),
        (_later_deadline, "DEADLINE_MISMATCH"),
        (_no_deadline, "DEADLINE_MISMATCH"),
    ],
)
def test_message_that_says_otherwise(
    workshop: SearchWorkshop, change: Callable[[Search], None], expected: str
) -> None:
    search = failed(workshop)
    change(search)
    assert reason(workshop, search) == expected


# Dry runs


def reason_of_check(workshop: SearchWorkshop, response: CheckSearchResponse) -> str:
    """Why the dry run is not believed."""
    with pytest.raises(VerificationError) as caught:
        verify_check(response, workshop.prepared.facts, workshop.trust)
    return caught.value.reason


@pytest.mark.parametrize("decision", [PERMITTED, REFUSED])
def test_sound_check_is_believed(workshop: SearchWorkshop, decision: Decision) -> None:
    entry = verify_check(workshop.check(decision), workshop.prepared.facts, workshop.trust)
    assert entry.search_checked.decision == decision


def test_check_told_otherwise(workshop: SearchWorkshop) -> None:
    response = workshop.check(REFUSED)
    response.decision.CopyFrom(PERMITTED)
    assert reason_of_check(workshop, response) == "CHECK_MISMATCH"


def test_check_without_its_own_receipt(workshop: SearchWorkshop) -> None:
    decided = CheckSearchResponse(decision=PERMITTED, receipt=workshop.decide().decision_receipt)
    assert reason_of_check(workshop, decided) == "CHECK_MISMATCH"
    response = workshop.check()
    response.ClearField("receipt")
    assert reason_of_check(workshop, response) == "RECEIPT_INVALID"


@pytest.mark.parametrize("field", NAMES)
def test_check_of_other_facts(workshop: SearchWorkshop, field: str) -> None:
    response = workshop.check(
        changed=lambda entry: setattr(entry.search_checked.summary, field, "another")
    )
    assert reason_of_check(workshop, response) == "SUMMARY_MISMATCH"
