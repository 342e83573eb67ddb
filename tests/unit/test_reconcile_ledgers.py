"""Two ledgers and the searches between them: what one has and the other lacks, or has otherwise, is found."""

from collections.abc import Callable

import pytest

from countersign.client.reconcile import Account, Differs, Reconciled, reconcile
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DecisionOutcome
from support.referrals import EAST, WEST, ReferralWorkshop, entry_of
from support.searches import LogInMemory


@pytest.fixture
def workshop() -> ReferralWorkshop:
    return ReferralWorkshop()


def account(log: LogInMemory, domain: str, now_s: int = 2_000_000_000) -> Account:
    """What the log has, with a newest entry of this time."""
    newest = Entry(recorded_by=f"spiffe://{domain}/service/ledger")
    newest.recorded_at.FromSeconds(now_s)
    newest.heartbeat.SetInParent()
    return Account.of(log.signer.verifier.name, [*log.leaves, newest.SerializeToString()])


def found(
    workshop: ReferralWorkshop, now_s: int = 2_000_000_000, east_now_s: int | None = None
) -> Reconciled:
    """What the comparison of both says, in either order."""
    west = account(workshop.west, WEST, now_s)
    east = account(workshop.east, EAST, now_s if east_now_s is None else east_now_s)
    one, other = reconcile(west, east), reconcile(east, west)
    assert [d.what for d in one.discrepancies] == [d.what for d in other.discrepancies]
    return one


def what(found: Reconciled) -> list[Differs]:
    """What is wrong."""
    return [one.what for one in found.discrepancies]


def test_ledgers_that_agree(workshop: ReferralWorkshop) -> None:
    workshop.answered()
    assert found(workshop) == Reconciled(compared=1)


def test_search_that_the_peer_has_no_trace_of(workshop: ReferralWorkshop) -> None:
    workshop.answered()
    del workshop.east.leaves[2:]
    assert what(found(workshop)) == [Differs.NOT_TAKEN]


def test_search_that_was_never_sent(workshop: ReferralWorkshop) -> None:
    workshop.answered()
    del workshop.west.leaves[2:]
    assert what(found(workshop)) == [Differs.NOT_SENT]


def test_search_that_is_newer_than_the_other_export_is_not_judged(
    workshop: ReferralWorkshop,
) -> None:
    workshop.answered()
    del workshop.west.leaves[2:]
    assert found(workshop, 1_700_000_000, 2_000_000_000) == Reconciled(not_judged=1)


def test_search_that_the_peers_export_is_too_old_to_have(workshop: ReferralWorkshop) -> None:
    def at_ten(entry: Entry) -> None:
        entry.recorded_at.FromSeconds(1_900_000_000)

    workshop.answered(end_changed=at_ten)
    exported = workshop.east.leaves
    workshop.east.leaves = []
    assert found(workshop, east_now_s=1_899_999_999) == Reconciled(not_judged=1)
    # An export that is as new has it, and so has one with an entry at that place.
    assert what(found(workshop, east_now_s=1_900_000_000)) == [Differs.NOT_TAKEN]
    workshop.east.leaves = [*exported[:2], *exported[:2]]
    assert what(found(workshop, east_now_s=1_899_999_999)) == [Differs.NOT_TAKEN]


def test_search_that_was_turned_away_is_on_record_here_alone(workshop: ReferralWorkshop) -> None:
    search = workshop.referred()
    end = Entry(schema_epoch=1, search_id=search.search_id)
    end.search_failed.decided_index = search.decision_receipt.index
    end.search_failed.reason = FailureReason.FAILURE_REASON_PEER_REJECTED
    workshop.search.close(search, end)
    assert found(workshop) == Reconciled(compared=1)
    # Unless the peer has it after all.
    workshop.decide_there(search)
    assert what(found(workshop)) == [Differs.END]


def _of_another_decision(entry: Entry) -> None:
    entry.search_decided.referred_by.leaf_sha256 = b"x" * 32


def _on_another_request(entry: Entry) -> None:
    entry.search_decided.request_sha256 = b"x" * 32


@pytest.mark.parametrize("lie", [_of_another_decision, _on_another_request])
def test_decision_that_answers_to_another(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    workshop.answered(decided_changed=lie)
    assert what(found(workshop)) == [Differs.DECISION]


def _other_figure(entry: Entry) -> None:
    entry.search_answered.candidates_returned += 1


def _other_answer(entry: Entry) -> None:
    entry.search_answered.answer_sha256 = b"x" * 32


@pytest.mark.parametrize("lie", [_other_figure, _other_answer])
def test_end_that_the_peer_has_otherwise(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    workshop.answered(ended_changed=lie)
    assert what(found(workshop)) == [Differs.END]


def test_end_that_names_another_entry(workshop: ReferralWorkshop) -> None:
    def names_another(entry: Entry) -> None:
        entry.search_answered.peer_ended.index += 1

    workshop.answered(end_changed=names_another)
    assert what(found(workshop)) == [Differs.END]


@pytest.mark.parametrize("kind", ["search_expired", "search_withdrawn"])
def test_search_that_was_answered_there_and_ended_otherwise_here(
    workshop: ReferralWorkshop, kind: str
) -> None:
    search = workshop.referred()
    decided = workshop.decide_there(search)
    end = Entry(schema_epoch=1, search_id=search.search_id)
    getattr(end, kind).decided_index = search.decision_receipt.index
    workshop.search.close(search, end)
    there = Entry(schema_epoch=1, search_id=search.search_id)
    getattr(there, kind).decided_index = decided.index
    workshop.east.append(there)
    assert found(workshop) == Reconciled(compared=1)
    del workshop.east.leaves[-1]
    workshop.end_there(decided, workshop.search.sign(workshop.search.answer()))
    assert what(found(workshop)) == [Differs.END]


def test_search_that_may_still_end_is_not_judged(workshop: ReferralWorkshop) -> None:
    search = workshop.referred()
    decided = workshop.decide_there(search)
    deadline = search.deadline.seconds
    assert found(workshop, now_s=deadline) == Reconciled(not_judged=1)
    workshop.end_there(decided, workshop.search.sign(workshop.search.answer()))
    assert found(workshop, now_s=deadline) == Reconciled(not_judged=1)
    # Once its time is over, one ledger has an end and the other none.
    assert what(found(workshop, now_s=deadline + 1)) == [Differs.END]


def test_peer_that_refused(workshop: ReferralWorkshop) -> None:
    def refuses(entry: Entry) -> None:
        entry.search_decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_REFUSED
        entry.search_decided.ClearField("deadline")

    search = workshop.referred()
    decided = workshop.decide_there(search, refuses)
    end = Entry(schema_epoch=1, search_id=search.search_id)
    end.search_failed.decided_index = search.decision_receipt.index
    end.search_failed.reason = FailureReason.FAILURE_REASON_PEER_REFUSED
    end.search_failed.peer_decided.CopyFrom(entry_of(EAST, workshop.east, decided))
    workshop.search.close(search, end)
    assert found(workshop) == Reconciled(compared=1)
