"""Parties of a search that are asked at another installation, and what is known here of what they say.

Invariants:
- A party that is asked elsewhere never permits by being absent: it has a verdict in each of its seats, which
  is the one that its installation proved, or that nobody here can tell.
- A verdict from elsewhere says so (`asked_at`), so that it is never taken for one that was given here.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from countersign.policy.v1.policy_pb2 import Peer
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Seat,
    Verdict,
    VerdictOutcome,
)
from shared.referral import ASKED_AT_PEER, VOUCHED_SEATS, is_referral

_CANNOT_TELL: Final = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
FAR_SEATS: Final = frozenset({Seat.SEAT_OPERATOR, Seat.SEAT_GALLERY_OWNER})
"""Of whoever has the system: without them no referral could come out as a permit of the others alone."""


@dataclass(frozen=True)
class Elsewhere:
    """The other installation of a search between two."""

    peer: str
    parties: frozenset[str] = frozenset()
    refer: bool = False
    verdicts: Mapping[tuple[int, str], Verdict] = field(default_factory=dict)
    """By seat and party."""

    @classmethod
    def of(cls, peer: Peer) -> "Elsewhere":
        """As the broker names it."""
        return cls(
            peer.trust_domain,
            frozenset(peer.parties),
            peer.refer,
            _by_seat(
                peer.trust_domain,
                (
                    one
                    for one in peer.vouched
                    if one.party in peer.parties and one.seat in VOUCHED_SEATS
                ),
            ),
        )

    @classmethod
    def on_record(cls, decision: Decision) -> "Elsewhere | None":
        """As a decision has it, to make the decision again; None when all were asked there."""
        said = [one for one in decision.verdicts if one.asked_at]
        if not said:
            return None
        referred = any(ASKED_AT_PEER in one.faults for one in said)
        return cls(said[0].asked_at, refer=referred, verdicts=_by_seat(said[0].asked_at, said))

    def says(self, seat: Seat.ValueType, party: str) -> Verdict | None:
        """What is known of a party that is asked there; None for one that is to be asked here."""
        known = self.verdicts.get((seat, party))
        if known is not None:
            return known
        if party not in self.parties and not (self.refer and seat in FAR_SEATS):
            return None
        return Verdict(
            seat=seat,
            party=party,
            outcome=_CANNOT_TELL,
            faults=[ASKED_AT_PEER],
            asked_at=self.peer,
        )

    def outcome(self, verdicts: Iterable[Verdict]) -> DecisionOutcome.ValueType:
        """Of a search that is to be referred."""
        referred = is_referral(verdicts, self.peer)
        return (
            DecisionOutcome.DECISION_OUTCOME_REFERRED
            if referred
            else DecisionOutcome.DECISION_OUTCOME_REFUSED
        )


def is_left_open(said: Verdict) -> bool:
    """Whether a verdict says no more than that its party is asked elsewhere: it permits nothing."""
    bare = Verdict(seat=said.seat, party=said.party, outcome=_CANNOT_TELL, asked_at=said.asked_at)
    bare.faults.append(ASKED_AT_PEER)
    return said == bare


def is_party_of(parties: Collection[str], said: Verdict) -> bool:
    """Whether a party with these colleagues may be asked at their installation, in its seat."""
    return said.party in parties or (is_left_open(said) and said.seat in FAR_SEATS)


def _by_seat(peer: str, verdicts: Iterable[Verdict]) -> dict[tuple[int, str], Verdict]:
    by_seat: dict[tuple[int, str], Verdict] = {}
    for said in verdicts:
        marked = Verdict()
        marked.CopyFrom(said)
        marked.asked_at = peer
        by_seat[said.seat, said.party] = marked
    return by_seat
