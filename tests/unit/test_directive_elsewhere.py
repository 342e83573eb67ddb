"""Parties that are asked at another installation never permit by being absent."""

from dataclasses import replace

import pytest

from countersign.policy.v1.policy_pb2 import Peer
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Seat,
    Verdict,
    VerdictOutcome,
)
from directive.book import Directive
from directive.elsewhere import Elsewhere
from directive.evaluate import Evaluator
from directive.explain import Differs, Explanation, differences, explain
from directive.recorded import RecordedSearch
from directive.worlds import World
from shared.referral import ASKED_AT_PEER, is_referral
from support.directives import (
    FORBID,
    LAPD,
    LASD,
    NOON,
    TRAINED,
    book,
    directive,
    ordinary,
    permits_everything,
    registry,
)

pytestmark = pytest.mark.promise(3)

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
REFERRED = DecisionOutcome.DECISION_OUTCOME_REFERRED
EAST, WEST = "east.test", "west.test"

CALIFORNIA = permits_everything("US-CA", "CA-")
ORIGIN = permits_everything(LAPD, "LAPD-")
OPERATOR = permits_everything(LASD, "LASD-")


def decided(elsewhere: Peer, *directives: Directive, **facts: object) -> Decision:
    """By these directives, with others asked elsewhere."""
    evaluator = Evaluator(book(*directives), registry())
    return evaluator.evaluate(ordinary(**facts), TRAINED, NOON, Elsewhere.of(elsewhere))


def said(decision: Decision) -> dict[int, Verdict]:
    return {one.seat: one for one in decision.verdicts}


def referral(**changes: object) -> Peer:
    """As the broker of the west names the east."""
    return Peer(trust_domain=EAST, parties=[LASD], refer=True, **changes)  # type: ignore[arg-type]


def vouched() -> list[Verdict]:
    """What the west's parties said."""
    return [one for one in decided(referral(), ORIGIN, CALIFORNIA).verdicts if one.party == LAPD]


def test_search_is_referred_when_all_who_are_asked_here_permit() -> None:
    decision = decided(referral(), ORIGIN, CALIFORNIA)
    assert decision.outcome == REFERRED
    operator = said(decision)[Seat.SEAT_OPERATOR]
    assert operator.outcome == VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
    assert (list(operator.faults), operator.asked_at) == ([ASKED_AT_PEER], EAST)
    assert is_referral(decision.verdicts, EAST)
    assert not is_referral(decision.verdicts, "north.test")


def test_peer_speaks_for_its_own_parties_alone_and_for_no_operator() -> None:
    def permit(seat: Seat.ValueType, party: str) -> Verdict:
        return Verdict(seat=seat, party=party, outcome=VerdictOutcome.VERDICT_OUTCOME_PERMIT)

    # Not of its own, and one of its own in a seat that is not for it to speak in.
    told = [permit(Seat.SEAT_OPERATOR, LASD), permit(Seat.SEAT_GALLERY_OWNER, LASD)]
    for parties in ([LAPD], [LAPD, LASD]):
        peer = Peer(trust_domain=WEST, parties=parties, vouched=[*vouched(), *told])
        assert decided(peer, CALIFORNIA).outcome == REFUSED
    peer = Peer(trust_domain=WEST, parties=[LASD], vouched=vouched())
    assert decided(peer, OPERATOR, CALIFORNIA).outcome == REFUSED


def test_a_forbid_here_is_a_refusal_whatever_the_peer_would_say() -> None:
    forbids = directive(FORBID + ";")
    assert decided(referral(), forbids, CALIFORNIA).outcome == REFUSED


def test_a_party_that_is_nobodys_is_not_left_to_the_peer() -> None:
    assert decided(referral(), ORIGIN).outcome == REFUSED


def test_what_makes_every_party_doubt_is_a_refusal() -> None:
    assert decided(referral(), ORIGIN, CALIFORNIA, gallery="another").outcome == REFUSED


def test_operator_is_left_to_the_peer_even_if_the_registry_has_another_name_for_it() -> None:
    """Else a system that is elsewhere could be permitted by those at hand alone."""
    peer = Peer(trust_domain=EAST, parties=[], refer=True)
    decision = decided(peer, ORIGIN, OPERATOR, CALIFORNIA)
    assert decision.outcome == REFERRED
    assert said(decision)[Seat.SEAT_OPERATOR].asked_at == EAST


def test_a_peers_parties_permit_as_their_ledger_has_it() -> None:
    peer = Peer(trust_domain=WEST, parties=[LAPD], vouched=vouched())
    decision = decided(peer, OPERATOR, CALIFORNIA)
    assert decision.outcome == PERMITTED
    assert said(decision)[Seat.SEAT_ORIGIN].asked_at == WEST
    assert not said(decision)[Seat.SEAT_OPERATOR].asked_at


def test_a_peers_party_without_a_verdict_refuses() -> None:
    (origin, *_) = vouched()
    peer = Peer(trust_domain=WEST, parties=[LAPD], vouched=[origin])
    decision = decided(peer, ORIGIN, OPERATOR, CALIFORNIA)
    assert decision.outcome == REFUSED
    assert list(said(decision)[Seat.SEAT_BENEFICIARY].faults) == [ASKED_AT_PEER]


def test_our_own_party_may_refuse_what_a_peer_brings() -> None:
    peer = Peer(trust_domain=WEST, parties=[LAPD], vouched=vouched())
    assert decided(peer, CALIFORNIA).outcome == REFUSED


@pytest.mark.parametrize("side", ["west", "east"])
def test_decision_of_either_side_is_made_again_bit_for_bit(side: str) -> None:
    if side == "west":
        directives, peer, named = (ORIGIN, CALIFORNIA), referral(), {"referred_to": EAST}
    else:
        directives = (OPERATOR, CALIFORNIA)
        peer = Peer(trust_domain=WEST, parties=[LAPD], vouched=vouched())
        named = {"referred_by": WEST}
    search = on_record(decided(peer, *directives), **named)
    parties = {EAST: [LASD], WEST: [LAPD]}
    explanation = explain(search, World(book(*directives), registry()), parties)
    assert explanation.explained, [str(one) for one in explanation.differences]
    assert explanation.taken == {peer.trust_domain: 2}


def on_record(decision: Decision, **named: str) -> RecordedSearch:
    return replace(RecordedSearch.of(7, ordinary(), TRAINED, decision), at=NOON, **named)  # type: ignore[arg-type]  # the peers' names


def test_a_verdict_that_only_says_of_itself_that_a_peer_gave_it_explains_nothing() -> None:
    """Whoever writes the record could mark a refusal at home as a permit from elsewhere."""
    peer = Peer(trust_domain=WEST, parties=[LAPD], vouched=vouched())
    decision = decided(peer, OPERATOR, CALIFORNIA)
    world = World(book(OPERATOR, CALIFORNIA), registry())
    for named in ({}, {"referred_by": EAST}, {"referred_to": WEST}):
        explanation = explain(on_record(decision, **named), world)
        assert {one.what for one in explanation.differences} == {Differs.VERDICT}
        assert explanation.contradicts
    seats = Decision()
    seats.CopyFrom(decision)
    for one in seats.verdicts:
        if one.seat == Seat.SEAT_OPERATOR:
            one.asked_at = WEST
    own = explain(on_record(seats, referred_by=WEST), world)
    assert Differs.VERDICT in {one.what for one in own.differences}, "who runs it is asked here"
    strange = explain(on_record(decision, referred_by=WEST), world, {WEST: ["CA0000000"]})
    assert {one.what for one in strange.differences} == {Differs.PEER}
    assert not strange.explained


def test_a_refusal_before_a_peer_was_asked_is_explained() -> None:
    """Its entry names no peer: nothing was referred."""
    decision = decided(referral(), CALIFORNIA)
    assert decision.outcome == REFUSED
    explanation = explain(on_record(decision), World(book(CALIFORNIA), registry()), {EAST: [LASD]})
    assert explanation.explained, [str(one) for one in explanation.differences]


def test_a_replay_says_that_a_peer_was_asked_and_calls_it_no_contradiction() -> None:
    decision = decided(referral(), ORIGIN, CALIFORNIA)
    here = Evaluator(book(ORIGIN, CALIFORNIA), registry()).evaluate(ordinary(), TRAINED, NOON)
    found = list(differences(decision, here, World(book(ORIGIN, CALIFORNIA), registry())))
    assert (found[0].what, found[0].recorded) == (Differs.PEER, EAST)
    assert (
        Explanation(
            RecordedSearch.of(7, ordinary(), TRAINED, decision), here, tuple(found)
        ).contradicts
        is False
    )
