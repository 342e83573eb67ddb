"""One installation believes of another what its ledger proves: each lie, with the check that finds it."""

from collections.abc import Callable

import pytest

from countersign.broker.v1.broker_pb2 import Search
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry
from countersign.type.v1.decision_pb2 import DecisionOutcome, Seat, VerdictOutcome
from countersign.type.v1.search_pb2 import BoundRequest, GalleryClass
from shared.binding import request_digest
from shared.referral import (
    NotProved,
    OwnDecision,
    check_peers,
    prove_decision,
    prove_end,
    prove_referral,
)
from support.orders import OPERATOR
from support.referrals import (
    EAST,
    LAPD,
    WEST,
    ReferralWorkshop,
    entry_of,
    left_to,
    log_of,
    ml_dsa_log_of,
    permit,
)

pytestmark = [pytest.mark.promise(2), pytest.mark.promise(3)]


@pytest.fixture
def workshop() -> ReferralWorkshop:
    return ReferralWorkshop()


def refused(workshop: ReferralWorkshop, request: ReferSearchRequest) -> str:
    """The check by which the east does not take the referral."""
    with pytest.raises(NotProved) as caught:
        prove_referral(workshop.west_as_peer, EAST, request)
    return caught.value.check


def doubted(
    workshop: ReferralWorkshop, search: Search, decided_changed: Callable[[Entry], None]
) -> str:
    """The check by which the west does not believe the east's decision."""
    receipt = workshop.decide_there(search, decided_changed)
    own = OwnDecision.of(search.decision_receipt, workshop.trust)
    with pytest.raises(NotProved) as caught:
        prove_decision(workshop.east_as_peer, own, receipt)
    return caught.value.check


# What the east must see proved before it asks anybody


def test_sound_referral_brings_what_its_own_parties_said(workshop: ReferralWorkshop) -> None:
    proved = prove_referral(workshop.west_as_peer, EAST, workshop.request(workshop.referred()))
    said = [(one.seat, one.party) for one in proved.vouched]
    # US-CA is nobody's alone: it is asked here too.
    assert said == [(Seat.SEAT_ORIGIN, LAPD), (Seat.SEAT_BENEFICIARY, LAPD)]
    assert (proved.by.peer, proved.by.log_origin) == (WEST, f"{WEST}/ledger")


def test_receipt_of_a_forked_log(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    forked = log_of(WEST)
    forked.leaves = workshop.west.leaves
    request.decision_receipt.CopyFrom(forked.receipt(request.decision_receipt.index))
    assert refused(workshop, request) == "PEER_RECEIPT_INVALID"


def test_receipt_of_another_entry(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    end = Entry(schema_epoch=1, search_id=workshop.search.prepared.search_id)
    end.search_withdrawn.decided_index = request.decision_receipt.index
    request.decision_receipt.CopyFrom(workshop.west.receipt(workshop.west.append(end)))
    assert refused(workshop, request) == "PEER_DECISION_MISMATCH"


def test_permit_that_was_edited_after_its_receipt(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    entry = Entry.FromString(request.decision_receipt.leaf)
    entry.search_decided.decision.verdicts[0].rules.add(id="INVENTED")
    request.decision_receipt.leaf = entry.SerializeToString()
    assert refused(workshop, request) == "PEER_RECEIPT_INVALID"


def _forbid(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[1].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID


def _without_origin(entry: Entry) -> None:
    del entry.search_decided.decision.verdicts[:2]


def _permitted(entry: Entry) -> None:
    entry.search_decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED


def _refused(entry: Entry) -> None:
    entry.search_decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_REFUSED


def _permits_with_a_fault(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[0].faults.append("free text")


def _permits_with_something_unmet(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[0].unmet.add()


def _permits_with_an_unknown_fact(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[0].unknown_facts.append("free text")


def _permits_with_a_novel(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[0].rules.add(title="x" * 16_384)


def _to_another(entry: Entry) -> None:
    entry.search_decided.referred_to = "north.test"


def _speaks_for_the_operator(entry: Entry) -> None:
    verdicts = entry.search_decided.decision.verdicts
    verdicts[2].CopyFrom(permit(Seat.SEAT_OPERATOR, OPERATOR))


def _without_deadline(entry: Entry) -> None:
    entry.search_decided.ClearField("deadline")


def _of_a_third(entry: Entry) -> None:
    verdicts = entry.search_decided.decision.verdicts
    verdicts[1].CopyFrom(permit(Seat.SEAT_BENEFICIARY, LAPD, "north.test"))


@pytest.mark.parametrize(
    "lie",
    [
        _forbid,
        _permits_with_a_fault,
        _permits_with_something_unmet,
        _permits_with_an_unknown_fact,
        _permits_with_a_novel,
        _without_origin,
        _permitted,
        _refused,
        _to_another,
        _speaks_for_the_operator,
        _without_deadline,
        _of_a_third,
    ],
)
def test_referral_that_not_everybody_permits(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    assert refused(workshop, workshop.request(workshop.referred(lie))) == "PEER_NOT_PERMITTED"


@pytest.mark.parametrize("seconds", [-1, 8 * 86_400, 2**61])
def test_search_that_would_wait_for_ever(workshop: ReferralWorkshop, seconds: int) -> None:
    def waits(entry: Entry) -> None:
        entry.search_decided.deadline.seconds = entry.recorded_at.seconds + seconds

    assert refused(workshop, workshop.request(workshop.referred(waits))) == "PEER_DEADLINE"


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000])
def test_deadline_that_is_no_time(workshop: ReferralWorkshop, nanos: int) -> None:
    def no_time(entry: Entry) -> None:
        entry.search_decided.deadline.nanos = nanos

    assert refused(workshop, workshop.request(workshop.referred(no_time))) == "PEER_DEADLINE"


def test_what_came_from_a_third_is_not_referred_on(workshop: ReferralWorkshop) -> None:
    def comes_from_north(entry: Entry) -> None:
        entry.search_decided.referred_by.CopyFrom(PeerEntry(peer="north.test", index=4))

    request = workshop.request(workshop.referred(comes_from_north))
    assert refused(workshop, request) == "PEER_DECISION_MISMATCH"


def test_request_that_is_not_the_one_decided_on(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    workshop.search.prepared.facts.case_number = "26-999"
    request.bound_request = workshop.bound
    assert refused(workshop, request) == "PEER_REQUEST_MISMATCH"


@pytest.mark.parametrize(
    ("officer", "nanos"), [("", 0), ("two words", 0), ("x" * 60_000, 0), ("lapd-40123", -1)]
)
def test_request_that_cannot_be_read_or_names_no_officer_or_a_time_that_is_none(
    workshop: ReferralWorkshop, officer: str, nanos: int
) -> None:
    bound = BoundRequest.FromString(workshop.bound)
    bound.officer = officer
    bound.facts.circumstances.emergency.began_at.nanos = nanos

    def changed(entry: Entry) -> None:
        entry.search_decided.request_sha256 = request_digest(bound.SerializeToString())

    request = workshop.request(workshop.referred(changed))
    for unusable in (bound.SerializeToString(), b"\xff"):
        request.bound_request = unusable
        assert refused(workshop, request) == "PEER_REQUEST_INVALID"


def test_probe_that_does_not_match_its_committed_digest(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    request.sealed_probe.ciphertext += b"x"
    assert refused(workshop, request) == "PEER_PROBE_MISMATCH"


def test_agency_that_does_not_ask_through_the_peer(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    workshop.west_as_peer = workshop.west_as_peer.model_copy(update={"parties": frozenset()})
    assert refused(workshop, request) == "PEER_ORIGIN"


# What the west must see proved before it records an end


def test_sound_decision_is_believed(workshop: ReferralWorkshop) -> None:
    search = workshop.referred()
    receipt = workshop.decide_there(search)
    own = OwnDecision.of(search.decision_receipt, workshop.trust)
    proved = prove_decision(workshop.east_as_peer, own, receipt)
    assert proved.at == entry_of(EAST, workshop.east, receipt)


def test_logs_that_the_trust_roots_name_by_another_kind_of_key_are_believed() -> None:
    (west, wests), (east, easts) = ml_dsa_log_of(WEST), ml_dsa_log_of(EAST)
    workshop = ReferralWorkshop(west, east)
    workshop.trust = workshop.trust.model_copy(update={"log_verifier_keys": (wests,)})
    changed = {"log_verifier_keys": (wests,)}
    workshop.west_as_peer = workshop.west_as_peer.model_copy(update=changed)
    changed = {"log_verifier_keys": (easts,)}
    workshop.east_as_peer = workshop.east_as_peer.model_copy(update=changed)
    check_peers(workshop.trust)
    search = workshop.referred()
    assert prove_referral(workshop.west_as_peer, EAST, workshop.request(search)).by.peer == WEST
    receipt = workshop.decide_there(search)
    own = OwnDecision.of(search.decision_receipt, workshop.trust)
    proved = prove_decision(workshop.east_as_peer, own, receipt)
    assert proved.at == entry_of(EAST, workshop.east, receipt)


def _of_another_request(entry: Entry) -> None:
    entry.search_decided.request_sha256 = b"x" * 32


def _of_another_search(entry: Entry) -> None:
    entry.search_id = "0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11"


def _of_another_system(entry: Entry) -> None:
    entry.search_decided.summary.system = "another"


def _of_another_operator(entry: Entry) -> None:
    entry.search_decided.summary.operator_agency = LAPD


def _of_another_owner(entry: Entry) -> None:
    entry.search_decided.summary.gallery_owner = LAPD


def _of_another_class(entry: Entry) -> None:
    summary = entry.search_decided.summary
    summary.gallery_class = GalleryClass.GALLERY_CLASS_BOOKING_PHOTOS


def _of_another_decision(entry: Entry) -> None:
    entry.search_decided.referred_by.index += 1


def _of_an_edited_decision(entry: Entry) -> None:
    entry.search_decided.referred_by.leaf_sha256 = b"x" * 32


def _of_another_log(entry: Entry) -> None:
    entry.search_decided.referred_by.log_origin = "north.test/ledger"


def _referred_on(entry: Entry) -> None:
    entry.search_decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_REFERRED


def _operator_not_asked(entry: Entry) -> None:
    verdicts = entry.search_decided.decision.verdicts
    verdicts[2].CopyFrom(left_to("north.test", Seat.SEAT_OPERATOR, OPERATOR))


def _owner_left_out(entry: Entry) -> None:
    del entry.search_decided.decision.verdicts[3]


def _permits_over_a_forbid(entry: Entry) -> None:
    entry.search_decided.decision.verdicts[4].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID


def _lives_longer(entry: Entry) -> None:
    entry.search_decided.deadline.seconds += 1


@pytest.mark.parametrize(
    "lie",
    [
        _of_another_request,
        _of_another_search,
        _of_another_system,
        _of_another_operator,
        _of_another_owner,
        _of_another_class,
        _of_another_decision,
        _of_an_edited_decision,
        _of_another_log,
        _referred_on,
        _operator_not_asked,
        _owner_left_out,
        _permits_over_a_forbid,
        _lives_longer,
    ],
)
def test_decision_that_is_not_on_our_search(
    workshop: ReferralWorkshop, lie: Callable[[Entry], None]
) -> None:
    assert doubted(workshop, workshop.referred(), lie) == "PEER_DECISION_MISMATCH"


def test_operator_whom_nobody_here_knows_must_have_been_asked_there(
    workshop: ReferralWorkshop,
) -> None:
    def unknown(entry: Entry) -> None:
        for one in entry.search_decided.decision.verdicts[2:4]:
            one.party = ""

    def left_out(entry: Entry) -> None:
        del entry.search_decided.decision.verdicts[2]

    assert doubted(workshop, workshop.referred(unknown), left_out) == "PEER_DECISION_MISMATCH"


def test_receipt_that_claims_another_index(workshop: ReferralWorkshop) -> None:
    request = workshop.request(workshop.referred())
    request.decision_receipt.index += 1
    assert refused(workshop, request) == "PEER_RECEIPT_INVALID"


def test_verdict_of_ours_that_the_peer_edited(workshop: ReferralWorkshop) -> None:
    def says_more(entry: Entry) -> None:
        entry.search_decided.decision.verdicts[0].rules.add(id="INVENTED")

    assert doubted(workshop, workshop.referred(), says_more) == "PEER_VERDICT_CHANGED"


def test_end_of_another_search(workshop: ReferralWorkshop) -> None:
    search = workshop.answered(ended_changed=_of_another_search)
    assert ended_check(workshop, search) == "PEER_END_MISMATCH"


def test_end_of_another_decision(workshop: ReferralWorkshop) -> None:
    def of_another(entry: Entry) -> None:
        entry.search_answered.decided_index += 1

    search = workshop.answered(ended_changed=of_another)
    assert ended_check(workshop, search) == "PEER_END_MISMATCH"


def test_answer_that_is_not_the_one_on_record(workshop: ReferralWorkshop) -> None:
    search = workshop.answered()
    search.answer.answer += b"x"
    assert ended_check(workshop, search) == "PEER_ANSWER_MISMATCH"


def test_answer_without_an_end(workshop: ReferralWorkshop) -> None:
    search = workshop.answered()
    search.peer.ClearField("end_receipt")
    assert ended_check(workshop, search) == "PEER_ANSWER_MISMATCH"


def ended_check(workshop: ReferralWorkshop, search: Search) -> str:
    """The check by which the west does not believe the end."""
    own = OwnDecision.of(search.decision_receipt, workshop.trust)
    decided = prove_decision(workshop.east_as_peer, own, search.peer.decision_receipt)
    with pytest.raises(NotProved) as caught:
        prove_end(workshop.east_as_peer, decided, search.peer, search.answer)
    return caught.value.check
