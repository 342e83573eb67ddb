"""A search between two installations, as honest ones would record and tell it, and as a peer that lies would.

`ReferralWorkshop` holds the keys of both sides. Each part can be changed on its way, and what comes after is
then made from the changed part, as a forger with those keys would.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countersign.broker.v1.broker_pb2 import Search, SearchState
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.connector.v1.connector_pb2 import SignedAnswer
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Receipt,
    Seat,
    Verdict,
    VerdictOutcome,
)
from shared.binding import bind
from shared.referral import ASKED_AT_PEER
from shared.registry import Peer, SystemKeys, TrustRoots
from support.orders import OFFICER, OPERATOR, SYSTEM
from support.searches import DECIDED_AT, LogInMemory, SearchWorkshop
from tlog.cosignature import CosignatureKind, Cosigner, LogCosigner
from tlog.note import Signer

WEST, EAST = "west.test", "east.test"
LAPD: Final = "CA0194200"
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT

Change: TypeAlias = Callable[[Entry], None]


def unchanged(_: Entry) -> None:
    """As honest ones have it."""


def log_of(domain: str) -> LogInMemory:
    """A log of its own."""
    return LogInMemory(Signer(f"{domain}/ledger", Ed25519PrivateKey.generate()))


def ml_dsa_log_of(domain: str) -> tuple[LogInMemory, str]:
    """One that signs with ML-DSA-44 as well, and that verifier key."""
    name = f"{domain}/ledger"
    cosigner = Cosigner.from_seed(name, os.urandom(32), CosignatureKind.ML_DSA_44)
    beside = LogCosigner(cosigner, lambda: DECIDED_AT)
    return LogInMemory(Signer(name, Ed25519PrivateKey.generate()), beside), beside.vkey


def permit(seat: Seat.ValueType, party: str, asked_at: str = "") -> Verdict:
    """A party that permits."""
    return Verdict(seat=seat, party=party, outcome=_PERMIT, asked_at=asked_at)


def left_to(peer: str, seat: Seat.ValueType, party: str) -> Verdict:
    """A party that is asked at the peer."""
    return Verdict(
        seat=seat,
        party=party,
        outcome=VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL,
        faults=[ASKED_AT_PEER],
        asked_at=peer,
    )


@dataclass
class ReferralWorkshop:
    """West asks, east has the system."""

    west: LogInMemory = field(default_factory=lambda: log_of(WEST))
    east: LogInMemory = field(default_factory=lambda: log_of(EAST))

    def __post_init__(self) -> None:
        self.search = SearchWorkshop(log=self.west)
        keys = SystemKeys(
            sealing_public_key=self.search.probes.public_key,
            answer_verify_key=self.search.connector.verify_key.raw,
        )
        self.east_as_peer = Peer(
            trust_domain=EAST,
            log_verifier_keys=(self.east.signer.verifier.vkey,),
            systems={SYSTEM: keys},
            parties=frozenset({OPERATOR}),
        )
        self.west_as_peer = Peer(
            trust_domain=WEST,
            log_verifier_keys=(self.west.signer.verifier.vkey,),
            parties=frozenset({LAPD}),
        )
        self.trust = TrustRoots(
            log_verifier_keys=(self.west.signer.verifier.vkey,),
            broker_verify_keys=(bytes(32),),
            peers=(self.east_as_peer,),
        )

    @property
    def bound(self) -> bytes:
        """What was decided on."""
        one = self.search.prepared
        return bind(one.facts, OFFICER, one.sealed_probe, one.answer_key.public_key, one.salt)

    def referred(self, changed: Change = unchanged) -> Search:
        """The search once the west has decided to refer it."""
        decision = Decision(
            outcome=DecisionOutcome.DECISION_OUTCOME_REFERRED,
            verdicts=[
                permit(Seat.SEAT_ORIGIN, LAPD),
                permit(Seat.SEAT_BENEFICIARY, LAPD),
                left_to(EAST, Seat.SEAT_OPERATOR, OPERATOR),
                left_to(EAST, Seat.SEAT_GALLERY_OWNER, OPERATOR),
                permit(Seat.SEAT_JURISDICTION, "US-CA"),
            ],
        )

        def change(entry: Entry) -> None:
            entry.search_decided.referred_to = EAST
            entry.search_decided.deadline.FromSeconds(entry.recorded_at.seconds + 60)
            changed(entry)

        search = self.search.decide(decision, change)
        decided = Entry.FromString(search.decision_receipt.leaf).search_decided
        search.state = SearchState.SEARCH_STATE_PENDING
        search.deadline.CopyFrom(decided.deadline)
        search.decision.CopyFrom(decided.decision)
        return search

    def request(self, search: Search) -> ReferSearchRequest:
        """What goes to the east."""
        return ReferSearchRequest(
            bound_request=self.bound,
            sealed_probe=self.search.prepared.sealed_probe,
            decision_receipt=search.decision_receipt,
        )

    def decide_there(self, search: Search, changed: Change = unchanged) -> Receipt:
        """The east's decision."""
        ours = Entry.FromString(search.decision_receipt.leaf)
        entry = Entry(schema_epoch=1, search_id=ours.search_id, recorded_at=ours.recorded_at)
        decided = entry.search_decided
        decided.summary.CopyFrom(ours.search_decided.summary)
        decided.request_sha256 = ours.search_decided.request_sha256
        decided.deadline.CopyFrom(ours.search_decided.deadline)
        decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED
        decided.decision.verdicts.extend(
            [
                permit(Seat.SEAT_ORIGIN, LAPD, WEST),
                permit(Seat.SEAT_BENEFICIARY, LAPD, WEST),
                permit(Seat.SEAT_OPERATOR, OPERATOR),
                permit(Seat.SEAT_GALLERY_OWNER, OPERATOR),
                permit(Seat.SEAT_JURISDICTION, "US-CA"),
            ]
        )
        decided.referred_by.CopyFrom(entry_of(WEST, self.west, search.decision_receipt))
        changed(entry)
        return self.east.receipt(self.east.append(entry))

    def end_there(
        self, decided: Receipt, signed: SignedAnswer, changed: Change = unchanged
    ) -> Receipt:
        """The east's end, of a search that was answered."""
        answered = self.search.end(Search(), signed)
        entry = Entry.FromString(answered.end_receipt.leaf)
        del self.west.leaves[-1]
        entry.search_id = Entry.FromString(decided.leaf).search_id
        entry.search_answered.decided_index = decided.index
        changed(entry)
        return self.east.receipt(self.east.append(entry))

    def answered(
        self,
        decided_changed: Change = unchanged,
        ended_changed: Change = unchanged,
        end_changed: Change = unchanged,
    ) -> Search:
        """The search as the west's broker gives it out in the end: `end_changed` is the west's own end."""
        search = self.referred()
        signed = self.search.sign(self.search.answer())
        decided = self.decide_there(search, decided_changed)
        ended = self.end_there(decided, signed, ended_changed)
        search.peer.trust_domain = EAST
        search.peer.decision_receipt.CopyFrom(decided)
        search.peer.end_receipt.CopyFrom(ended)

        def change(entry: Entry) -> None:
            event = entry.search_answered
            event.peer_decided.CopyFrom(entry_of(EAST, self.east, decided))
            event.peer_ended.CopyFrom(entry_of(EAST, self.east, ended))
            end_changed(entry)

        return self.search.end(search, signed, change)


def entry_of(domain: str, log: LogInMemory, receipt: Receipt) -> PeerEntry:
    """The entry as the other side names it."""
    return PeerEntry(
        peer=domain,
        log_origin=log.signer.verifier.name,
        index=receipt.index,
        leaf_sha256=hashlib.sha256(receipt.leaf).digest(),
    )
