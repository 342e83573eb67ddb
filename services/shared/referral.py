"""What one installation must see proved before it believes another of a search between the two. Pure.

The peer's own word counts for nothing: what it says is taken from entries of its ledger, proved by the key
of its log that is in our trust roots, and each side's entry names the other's. The words that a failure is
known by are stable; they stand in the ledger.

Of a referral, by whoever has the system (`prove_referral`):
1. the receipt proves an entry of the peer's log; [PEER_RECEIPT_INVALID]
2. it is a decision to refer this very search to us, that did not itself come from another peer, with all
   who were asked there permitting, the origin among them, and waits no longer than a search may;
   [PEER_DECISION_MISMATCH, PEER_NOT_PERMITTED, PEER_DEADLINE]
3. it is bound to the request that was sent, of valid facts, of an agency of the peer;
   [PEER_REQUEST_MISMATCH, PEER_REQUEST_INVALID, PEER_ORIGIN]
4. the sealed probe is the one that the request is bound to; [PEER_PROBE_MISMATCH]
   and once our own parties have been asked, before anything is on record (`require_same_meaning`), that both
   registries have the system and the gallery alike. [PEER_SUMMARY_MISMATCH]

Of what came of it, by the one that referred it and by the requester (`prove_decision`, `prove_end`):
5. the receipts prove entries of the peer's log; [PEER_RECEIPT_INVALID]
6. its decision is on this very request, names our decision, says of our parties what they said, and lets
   the search live no longer than we do; [PEER_DECISION_MISMATCH, PEER_VERDICT_CHANGED]
7. its end is of that decision, and bears the digest of the answer. [PEER_END_MISMATCH, PEER_ANSWER_MISMATCH]
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import protovalidate
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from countersign.broker.v1.broker_pb2 import PeerSearch
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.connector.v1.connector_pb2 import SignedAnswer
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry, SearchDecided, SearchSummary
from countersign.type.v1.decision_pb2 import (
    DecisionOutcome,
    Receipt,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import BoundRequest
from shared.binding import payload_digest, request_digest
from shared.entry_facts import ENDS
from shared.kinds import kind_number
from shared.registry import OFFICER_PATTERN, Peer, RegistryError, SystemKeys, TrustRoots
from shared.times import no_times
from shared.unknown_fields import has_unknown_fields
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError
from tlog.proof import verify_receipt

ASKED_AT_PEER: Final = "ASKED_AT_PEER"
"""The fault of a verdict that only the peer can give."""

VALIDITY_S: Final = 7 * 86_400 + 60
"""The longest that a search may ask to wait for, and what brokers' and ledgers' clocks may differ by."""

_TIME_S_MAX: Final = 253_402_300_800
"""The year 10000, in which no time can be read."""
_NANOS_MAX: Final = 999_999_999
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT
_CANNOT_TELL: Final = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED
_REFUSED: Final = DecisionOutcome.DECISION_OUTCOME_REFUSED
VOUCHED_SEATS: Final = frozenset({Seat.SEAT_ORIGIN, Seat.SEAT_BENEFICIARY, Seat.SEAT_JURISDICTION})
"""Nobody but we can speak for who runs our system, or owns its galleries."""
_VERDICT_BYTES_MAX: Final = 16_384
"""Of a peer's permit: the titles and texts of some dozens of rules."""
_KEYS_AT_HAND: Final = 64

_log = functools.lru_cache(maxsize=_KEYS_AT_HAND)(parse_log_vkey)


class NotProved(Exception):
    """The peer's word for it does not hold; the check's name is stable."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


@dataclass(frozen=True)
class ProvedReferral:
    """A search that a peer refers to us."""

    request: BoundRequest
    request_sha256: bytes
    decided: SearchDecided
    by: PeerEntry
    vouched: tuple[Verdict, ...]
    """What its parties said, each in its seat."""


@dataclass(frozen=True)
class OwnDecision:
    """Our decision to refer a search."""

    leaf: bytes
    index: int
    log_origins: frozenset[str]
    """The names of our own log."""

    @functools.cached_property
    def entry(self) -> Entry:
        """What it says."""
        return Entry.FromString(self.leaf)

    @classmethod
    def of(cls, receipt: Receipt, trust: TrustRoots) -> "OwnDecision":
        """Of a receipt that was verified, or that our own ledger gave."""
        names = frozenset(_log(vkey).name for vkey in trust.log_verifier_keys)
        return cls(receipt.leaf, receipt.index, names)


@dataclass(frozen=True)
class Proved:
    """An entry of a peer's ledger."""

    entry: Entry
    at: PeerEntry


def check_peers(trust: TrustRoots) -> None:
    """Raises RegistryError when the trust roots say two things of one name."""
    names = [peer.trust_domain for peer in trust.peers]
    names += [system for peer in trust.peers for system in peer.systems]
    names += [party for peer in trust.peers for party in peer.parties]
    twice = sorted(
        {name for name in names if names.count(name) > 1} | trust.systems.keys() & {*names}
    )
    if twice:
        raise RegistryError(f"trust_roots: {', '.join(twice)}: named more than once among peers")
    try:
        for keys in (trust.log_verifier_keys, *(peer.log_verifier_keys for peer in trust.peers)):
            for vkey in keys:
                _log(vkey)
    except TlogError as error:
        raise RegistryError(f"trust_roots: a log's verifier key cannot be read: {error}") from error


def peer_with(trust: TrustRoots, system: str) -> Peer | None:
    """The peer that has the system; None for one of our own, or of nobody's."""
    if system in trust.systems:
        return None
    return next((peer for peer in trust.peers if system in peer.systems), None)


def peer_named(trust: TrustRoots, trust_domain: str) -> Peer | None:
    """The peer of this trust domain."""
    return next((peer for peer in trust.peers if peer.trust_domain == trust_domain), None)


def keys_of(trust: TrustRoots, system: str) -> SystemKeys | None:
    """The keys of a system's connector, here or at a peer."""
    peer = peer_with(trust, system)
    return trust.systems.get(system) if peer is None else peer.systems[system]


def is_referral(verdicts: Iterable[Verdict], peer: str) -> bool:
    """True if all who were asked here permit, the origin among them, and the operator is asked there."""
    said = list(verdicts)
    here = [one for one in said if not one.asked_at]
    there = [one for one in said if one.asked_at]
    return (
        all(one.outcome == _PERMIT for one in here)
        and all(_is_asked_at(one, peer) for one in there)
        and any(one.seat == Seat.SEAT_ORIGIN for one in here)
        and any(one.seat == Seat.SEAT_OPERATOR for one in there)
    )


def _says_too_much(said: Verdict) -> bool:
    """What would put a stranger's free text into our own public ledger."""
    return (
        bool(said.faults or said.unmet or said.unknown_facts)
        or said.ByteSize() > _VERDICT_BYTES_MAX
    )


def _is_asked_at(said: Verdict, peer: str) -> bool:
    return (
        said.asked_at == peer
        and said.outcome == _CANNOT_TELL
        and list(said.faults) == [ASKED_AT_PEER]
    )


def prove_referral(peer: Peer, here: str, request: ReferSearchRequest) -> ProvedReferral:
    """Steps 1 to 4; raises NotProved. `here` is our own trust domain."""
    proved = prove(peer, request.decision_receipt)
    decided = proved.entry.search_decided
    if not proved.entry.HasField("search_decided") or decided.HasField("referred_by"):
        raise NotProved("PEER_DECISION_MISMATCH", "the entry is no decision of the peer's own")
    if (decided.decision.outcome, decided.referred_to) != (_REFERRED, here):
        raise NotProved("PEER_NOT_PERMITTED", f"the decision does not refer the search to {here}")
    if any(_says_too_much(one) for one in decided.decision.verdicts if not one.asked_at):
        raise NotProved("PEER_NOT_PERMITTED", "a permit bears what no permit has, or too much")
    if not is_referral(decided.decision.verdicts, here) or not decided.HasField("deadline"):
        raise NotProved("PEER_NOT_PERMITTED", "not everybody who was asked there permits")
    lasts_s = decided.deadline.seconds - proved.entry.recorded_at.seconds
    if not 0 <= lasts_s <= VALIDITY_S or not _is_time(decided.deadline):
        raise NotProved("PEER_DEADLINE", "the search is to wait for longer than any may")
    bound = _bound(request.bound_request)
    facts, summary = bound.facts, decided.summary
    digest = request_digest(request.bound_request)
    about = (facts.search_id, facts.origin_agency, facts.system, facts.gallery)
    entered = (proved.entry.search_id, summary.origin_agency, summary.system, summary.gallery)
    if digest != decided.request_sha256 or about != entered:
        raise NotProved("PEER_REQUEST_MISMATCH", "the decision is on another request")
    if facts.origin_agency not in peer.parties:
        raise NotProved("PEER_ORIGIN", "the origin agency does not ask through this peer")
    if payload_digest(request.sealed_probe) != bound.sealed_probe_sha256:
        raise NotProved("PEER_PROBE_MISMATCH", "the probe is not the one that was decided on")
    vouched = tuple(
        one
        for one in decided.decision.verdicts
        if not one.asked_at and one.seat in VOUCHED_SEATS and one.party in peer.parties
    )
    return ProvedReferral(bound, digest, decided, proved.at, vouched)


def _is_time(time: Timestamp) -> bool:
    return 0 <= time.seconds < _TIME_S_MAX and 0 <= time.nanos <= _NANOS_MAX


def require_same_meaning(proved: ProvedReferral, summary: SearchSummary) -> None:
    """The peer's parties permitted the gallery that it is by our registry; raises NotProved."""
    if _about(proved.decided.summary) != _about(summary):
        raise NotProved(
            "PEER_SUMMARY_MISMATCH",
            "the peer's registry has another operator, owner or gallery class",
        )


def _bound(data: bytes) -> BoundRequest:
    try:
        bound = BoundRequest.FromString(data)
    except DecodeError:
        raise NotProved("PEER_REQUEST_INVALID", "the request cannot be read") from None
    if (
        len(bound.answer_public_key) != 32
        or not re.fullmatch(OFFICER_PATTERN, bound.officer)
        or has_unknown_fields(bound)
        or protovalidate.collect_violations(bound.facts)
        or any(no_times(bound.facts))
    ):
        raise NotProved("PEER_REQUEST_INVALID", "the request breaks a rule of its contract")
    return bound


def prove_decision(peer: Peer, own: OwnDecision, receipt: Receipt) -> Proved:
    """Steps 5 and 6: the peer's decision on a search of ours; raises NotProved."""
    proved = prove(peer, receipt)
    ours, theirs = own.entry.search_decided, proved.entry.search_decided
    by = theirs.referred_by
    if (
        not proved.entry.HasField("search_decided")
        or proved.entry.search_id != own.entry.search_id
        or theirs.request_sha256 != ours.request_sha256
        or _about(theirs.summary) != _about(ours.summary)
        or (by.index, by.leaf_sha256) != (own.index, hashlib.sha256(own.leaf).digest())
        or by.log_origin not in own.log_origins
    ):
        raise NotProved("PEER_DECISION_MISMATCH", "the peer's decision is not on our search")
    decision = theirs.decision
    if decision.outcome not in (_PERMITTED, _REFUSED):
        raise NotProved(
            "PEER_DECISION_MISMATCH", "the peer's decision is no refusal, and no permit"
        )
    said = [_plain(one) for one in ours.decision.verdicts if not one.asked_at]
    if any(
        _plain(one) not in said for one in decision.verdicts if one.asked_at and _is_permit(one)
    ):
        raise NotProved(
            "PEER_VERDICT_CHANGED", "the peer has one of our parties say something else"
        )
    if decision.outcome == _PERMITTED:
        _require_whole_permit(theirs, ours)
    return proved


def _require_whole_permit(theirs: SearchDecided, ours: SearchDecided) -> None:
    """Everybody permits, and whoever we left to the peer is among them."""
    verdicts = theirs.decision.verdicts
    asked = {(one.seat, one.party) for one in verdicts if not one.asked_at}
    left = {(one.seat, one.party) for one in ours.decision.verdicts if one.asked_at and one.party}
    if (
        not all(_is_permit(one) for one in verdicts)
        or Seat.SEAT_OPERATOR not in {seat for seat, _ in asked}
        or not left <= asked
    ):
        raise NotProved("PEER_DECISION_MISMATCH", "not everybody whom we left to the peer permits")
    limit = ours.deadline
    if not theirs.HasField("deadline") or _later(theirs, limit.seconds, limit.nanos):
        raise NotProved("PEER_DECISION_MISMATCH", "the peer's deadline is later than ours")


def _later(decided: SearchDecided, seconds: int, nanos: int) -> bool:
    return (decided.deadline.seconds, decided.deadline.nanos) > (seconds, nanos)


def prove_end(
    peer: Peer, decided: Proved, told: PeerSearch, answer: SignedAnswer | None
) -> Proved | None:
    """Steps 5 and 7: the end of what was decided; None while there is none. Raises NotProved."""
    permitted = decided.entry.search_decided.decision.outcome == _PERMITTED
    if not told.HasField("end_receipt"):
        if answer is not None:
            raise NotProved("PEER_ANSWER_MISMATCH", "the peer's ledger has no such answer")
        return None
    ended = prove(peer, told.end_receipt)
    kind = str(ended.entry.WhichOneof("event"))
    if (
        not permitted
        or kind_number(ended.entry) not in ENDS
        or ended.entry.search_id != decided.entry.search_id
        or getattr(ended.entry, kind).decided_index != decided.at.index
    ):
        raise NotProved("PEER_END_MISMATCH", "the entry is not the end of the peer's decision")
    if answer is not None:
        digest = hashlib.sha256(answer.answer).digest()
        if digest != getattr(getattr(ended.entry, kind), "answer_sha256", b""):
            raise NotProved("PEER_ANSWER_MISMATCH", "the peer's ledger has another answer")
    return ended


def named_in(end: Entry) -> tuple[PeerEntry, PeerEntry]:
    """The peer's decision and end, as our own end names them; empty where it does not."""
    event = end.search_failed if end.HasField("search_failed") else end.search_answered
    return event.peer_decided, event.peer_ended


def is_same_end(ours: Entry, theirs: Entry) -> bool:
    """Whether both say the same of how a search ended, but for their places in the two ledgers."""
    return _end_alone(ours) == _end_alone(theirs)


def _end_alone(entry: Entry) -> Entry:
    copy = Entry()
    kind = str(entry.WhichOneof("event"))
    event = getattr(copy, kind)
    event.CopyFrom(getattr(entry, kind))
    for name in ("decided_index", "peer_decided", "peer_ended"):
        if name in event.DESCRIPTOR.fields_by_name:
            event.ClearField(name)
    return copy


def prove(peer: Peer, receipt: Receipt) -> Proved:
    """An entry of the peer's log; raises NotProved."""
    for vkey in peer.log_verifier_keys:
        try:
            index, checkpoint = verify_receipt(receipt.leaf, receipt.tlog_proof, _log(vkey))
            if index != receipt.index:
                break
            at = PeerEntry(
                peer=peer.trust_domain,
                log_origin=checkpoint.origin,
                index=index,
                leaf_sha256=hashlib.sha256(receipt.leaf).digest(),
            )
            return Proved(Entry.FromString(receipt.leaf), at)
        except (TlogError, DecodeError):
            continue
    raise NotProved("PEER_RECEIPT_INVALID", "the receipt is of no entry in the peer's log")


def _is_permit(said: Verdict) -> bool:
    return said.outcome == _PERMIT


def _about(summary: SearchSummary) -> Sequence[object]:
    """What both must mean alike; each has the last three from a registry of its own."""
    return (
        *(summary.origin_agency, summary.beneficiary_agency, summary.system, summary.gallery),
        *(summary.operator_agency, summary.gallery_owner, summary.gallery_class),
    )


def _plain(said: Verdict) -> bytes:
    """A verdict, whoever hands it on."""
    copy = Verdict()
    copy.CopyFrom(said)
    copy.ClearField("asked_at")
    return copy.SerializeToString(deterministic=True)
