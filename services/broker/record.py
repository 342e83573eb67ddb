"""What the ledger has on record of a search, and what that means. Pure.

A search is nothing but its entries: at most one SearchDecided and, for a permitted search, at most
one terminal entry. Its state follows from them and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.broker.v1.broker_pb2 import Search, SearchState
from countersign.connector.v1.connector_pb2 import FailureReason, SearchAnswer
from countersign.ledger.v1.append_pb2 import PendingEntry, SensitiveField
from countersign.ledger.v1.entry_pb2 import (
    Entry,
    PeerEntry,
    RequestRejected,
    SearchAnswered,
    SearchChecked,
    SearchDecided,
    SearchExpired,
    SearchFailed,
    SearchSummary,
    SearchUndecided,
    SearchWithdrawn,
)
from countersign.policy.v1.policy_pb2 import EvaluateResponse
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Receipt, VerdictOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from shared.clock import stamp
from shared.referral import is_referral

CANDIDATES_DEFAULT: Final = 20
"""What FBI's FRS returns when the request does not say."""

# Looking an enum's value up by its name costs more than comparing it.
_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT
_STATE_REFUSED: Final = SearchState.SEARCH_STATE_REFUSED
_STATE_PENDING: Final = SearchState.SEARCH_STATE_PENDING
_END_STATES: Final = {
    "search_answered": SearchState.SEARCH_STATE_ANSWERED,
    "search_failed": SearchState.SEARCH_STATE_FAILED,
    "search_expired": SearchState.SEARCH_STATE_EXPIRED,
    "search_withdrawn": SearchState.SEARCH_STATE_WITHDRAWN,
}


@dataclass(frozen=True)
class Record:
    """A decided search."""

    search_id: str
    decided: Receipt
    decision: SearchDecided
    decided_at: Timestamp
    ended: Receipt | None = None
    end: Entry | None = None

    @classmethod
    def from_receipts(cls, decided: Receipt, ended: Receipt | None) -> "Record":
        """Reads the entries."""
        entry = Entry.FromString(decided.leaf)
        record = cls(entry.search_id, decided, entry.search_decided, entry.recorded_at)
        return record.ended_by(ended) if ended is not None else record

    def ended_by(self, ended: Receipt) -> "Record":
        """The record with its terminal entry."""
        return replace(self, ended=ended, end=Entry.FromString(ended.leaf))

    @property
    def origin_agency(self) -> str:
        """Who asked."""
        return self.decision.summary.origin_agency

    @property
    def system(self) -> str:
        """The system that was asked for."""
        return self.decision.summary.system

    @cached_property
    def permitted(self) -> bool:
        """True when every party permitted it."""
        return self.decision.decision.outcome == _PERMITTED

    @cached_property
    def referred_to(self) -> str:
        """Trust domain of the peer at which it is to be decided further and run; empty for none."""
        return self.decision.referred_to if self.decision.decision.outcome == _REFERRED else ""

    @property
    def referred_by(self) -> str:
        """Trust domain of the peer that it came from; empty for none."""
        return self.decision.referred_by.peer

    @property
    def goes_on(self) -> bool:
        """True when the decision is not its end."""
        return self.permitted or bool(self.referred_to)

    @property
    def is_open(self) -> bool:
        """True while its end is still to come."""
        return self.goes_on and self.end is None

    @property
    def state(self) -> SearchState.ValueType:
        """Where it stands."""
        if not self.goes_on:
            return _STATE_REFUSED
        if self.end is None:
            return _STATE_PENDING
        return _END_STATES[str(self.end.WhichOneof("event"))]

    @cached_property
    def deadline(self) -> datetime:
        """When it expires, aware, in UTC."""
        return self.decision.deadline.ToDatetime(UTC)

    @property
    def answer_sha256(self) -> bytes:
        """Digest of the answer on record; empty when there is none."""
        if self.end is None:
            return b""
        if self.end.HasField("search_answered"):
            return self.end.search_answered.answer_sha256
        return self.end.search_failed.answer_sha256

    def as_search(self) -> Search:
        """The search as agency systems see it, without its answer."""
        # Messages are copied into place: given to the constructor, they are serialised and read again.
        search = Search(search_id=self.search_id, state=self.state)
        search.summary.CopyFrom(self.decision.summary)
        search.decision.CopyFrom(self.decision.decision)
        search.decision_receipt.CopyFrom(self.decided)
        search.decide_time.CopyFrom(self.decided_at)
        if self.goes_on:
            search.deadline.CopyFrom(self.decision.deadline)
        if self.ended is not None:
            search.end_receipt.CopyFrom(self.ended)
        if self.end is not None:
            search.failure_reason = self.end.search_failed.reason
        return search


@dataclass(frozen=True)
class Referral:
    """The other installation of a search between two."""

    peer: str
    """Its trust domain."""
    by: PeerEntry | None = None
    """Its decision, when the search came from there."""


def is_permitted(decision: Decision) -> bool:
    """True only if there are verdicts and every one permits, whatever the outcome field says."""
    return (
        decision.outcome == _PERMITTED
        and len(decision.verdicts) > 0
        and all(verdict.outcome == _PERMIT for verdict in decision.verdicts)
    )


def is_referred(decision: Decision, peer: str) -> bool:
    """True only if all who were asked here permit, the origin among them, and the operator is asked there."""
    return decision.outcome == _REFERRED and is_referral(decision.verdicts, peer)


def summary_of(facts: SearchFacts, evaluated: EvaluateResponse) -> SearchSummary:
    """What oversight counts."""
    parties = evaluated.parties
    summary = SearchSummary(
        origin_agency=facts.origin_agency,
        beneficiary_agency=facts.beneficiary_agency,
        operator_agency=parties.operator_agency,
        gallery_owner=parties.gallery_owner,
        jurisdictions=parties.jurisdictions,
        system=facts.system,
        gallery=facts.gallery,
        gallery_class=parties.gallery_class,
        purpose=facts.purpose,
        suspicion=facts.suspicion,
        offence=facts.offence,
        provenance=facts.provenance,
        capture_mode=facts.capture_mode,
        candidates_max=facts.candidates_max or CANDIDATES_DEFAULT,
    )
    if facts.HasField("circumstances"):
        summary.circumstances.CopyFrom(facts.circumstances)
    return summary


def _sensitive(facts: SearchFacts, officer: str) -> Sequence[SensitiveField]:
    """Each is committed to even when empty, so that its absence is not public either.

    Whether an instrument and an emergency were spoken of at all is public.
    """
    fields = [
        SensitiveField(field="officer", value=officer),
        SensitiveField(field="case_number", value=facts.case_number),
        SensitiveField(field="narrative", value=facts.narrative),
    ]
    if facts.circumstances.HasField("instrument") or facts.instrument_number:
        fields.append(SensitiveField(field="instrument_number", value=facts.instrument_number))
    if facts.circumstances.HasField("emergency") or facts.emergency_basis:
        fields.append(SensitiveField(field="emergency_basis", value=facts.emergency_basis))
    return fields


def checked_entry(
    facts: SearchFacts, officer: str, evaluated: EvaluateResponse, token_sha256: bytes = b""
) -> PendingEntry:
    """A dry run."""
    event = SearchChecked(
        summary=summary_of(facts, evaluated),
        decision=evaluated.decision,
        officer_token_sha256=token_sha256,
    )
    return PendingEntry(
        entry=Entry(search_checked=event),
        sensitive=[*_sensitive(facts, officer), _unspent(facts.search_id)],
    )


def decided_entry(
    facts: SearchFacts,
    officer: str,
    evaluated: EvaluateResponse,
    request_sha256: bytes,
    deadline: datetime,
    token_sha256: bytes = b"",
    referral: Referral | None = None,
) -> PendingEntry:
    """The decision. Its key makes the search id mean one search for ever."""
    pending = PendingEntry(
        sensitive=_sensitive(facts, officer), idempotency_key=f"decided/{facts.search_id}"
    )
    pending.entry.search_id = facts.search_id
    event = pending.entry.search_decided
    event.summary.CopyFrom(summary_of(facts, evaluated))
    event.request_sha256 = request_sha256
    event.officer_token_sha256 = token_sha256
    event.decision.CopyFrom(evaluated.decision)
    if evaluated.decision.outcome == _REFERRED and referral is not None:
        event.referred_to = referral.peer
    if referral is not None and referral.by is not None:
        event.referred_by.CopyFrom(referral.by)
    if event.referred_to or is_permitted(evaluated.decision):
        event.deadline.CopyFrom(stamp(deadline))
    return pending


def undecided_entry(facts: SearchFacts, officer: str, reason: str) -> PendingEntry:
    """No decision could be made; the id stays free."""
    event = SearchUndecided(origin_agency=facts.origin_agency, system=facts.system, reason=reason)
    return PendingEntry(
        entry=Entry(search_undecided=event),
        sensitive=[*_sensitive(facts, officer), _unspent(facts.search_id)],
    )


def _unspent(search_id: str) -> SensitiveField:
    """An id that stands for no search yet: were it public, another agency could take it first."""
    return SensitiveField(field="search_id", value=search_id)


def rejected_entry(event: RequestRejected, search_id: str, spent: bool) -> PendingEntry:
    """A call that was turned away. `spent` says that the id stands for a search on record."""
    entry = Entry(search_id=search_id if spent else "", request_rejected=event)
    return PendingEntry(entry=entry, sensitive=[] if spent else [_unspent(search_id)])


def _end_entry(record: Record, entry: Entry) -> PendingEntry:
    """A terminal entry: the key is the same for every kind, so there is exactly one."""
    entry.search_id = record.search_id
    return PendingEntry(entry=entry, idempotency_key=f"end/{record.search_id}")


def answered_entry(record: Record, answer: SearchAnswer, answer_sha256: bytes) -> PendingEntry:
    """The end by an answer: candidates, or a failure."""
    if answer.HasField("failure"):
        failed = SearchFailed(
            decided_index=record.decided.index,
            origin_agency=record.origin_agency,
            system=record.system,
            reason=answer.failure.reason,
            check=answer.failure.check,
            answer_sha256=answer_sha256,
        )
        return _end_entry(record, Entry(search_failed=failed))
    answered = SearchAnswered(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        system=record.system,
        gallery=answer.gallery,
        answer_sha256=answer_sha256,
        candidates_returned=answer.found.returned,
        candidates_above_threshold=answer.found.above_threshold,
        gallery_size=answer.found.gallery_size,
        algorithm=answer.found.algorithm,
    )
    return _end_entry(record, Entry(search_answered=answered))


def answered_at_peer_entry(
    record: Record, answer: SearchAnswer, answer_sha256: bytes, decided: PeerEntry, ended: PeerEntry
) -> PendingEntry:
    """The end of a referred search by an answer that the peer has on record."""
    pending = answered_entry(record, answer, answer_sha256)
    event: SearchAnswered | SearchFailed = (
        pending.entry.search_failed
        if pending.entry.HasField("search_failed")
        else pending.entry.search_answered
    )
    event.peer_decided.CopyFrom(decided)
    event.peer_ended.CopyFrom(ended)
    return pending


def refused_at_peer_entry(record: Record, decided: PeerEntry) -> PendingEntry:
    """The end of a referred search that a party at the peer does not permit."""
    event = SearchFailed(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        system=record.system,
        reason=FailureReason.FAILURE_REASON_PEER_REFUSED,
        peer_decided=decided,
    )
    return _end_entry(record, Entry(search_failed=event))


def rejected_at_peer_entry(record: Record, check: str) -> PendingEntry:
    """The end of a referred search that the peer turned away, or of which it proves nothing that holds."""
    event = SearchFailed(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        system=record.system,
        reason=FailureReason.FAILURE_REASON_PEER_REJECTED,
        check=check,
    )
    return _end_entry(record, Entry(search_failed=event))


def expired_entry(record: Record) -> PendingEntry:
    """The end by the deadline."""
    event = SearchExpired(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        system=record.system,
        deadline=record.decision.deadline,
    )
    return _end_entry(record, Entry(search_expired=event))


def withdrawn_entry(record: Record) -> PendingEntry:
    """The end by the origin agency's wish."""
    event = SearchWithdrawn(
        decided_index=record.decided.index,
        origin_agency=record.origin_agency,
        system=record.system,
    )
    return _end_entry(record, Entry(search_withdrawn=event))
