"""What the ledger has on record of a search, and what that means. Pure.

A search is nothing but its entries: at most one SearchDecided and, for a permitted search, at most
one terminal entry. Its state follows from them and from nothing else.
"""

from dataclasses import dataclass
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
from shared.clock import put_stamp
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
    """A decided search. What each step asks of it is worked out when it is read, not at each look."""

    search_id: str
    decided: Receipt
    decision: SearchDecided
    decided_at: Timestamp
    origin_agency: str
    """Who asked."""
    system: str
    """The system that was asked for."""
    permitted: bool
    """True when every party permitted it."""
    referred_to: str
    """Trust domain of the peer at which it is to be decided further and run; empty for none."""
    goes_on: bool
    """True when the decision is not its end."""
    is_open: bool
    """True while its end is still to come."""
    answer_sha256: bytes = b""
    """Digest of the answer on record; empty when there is none."""
    ended: Receipt | None = None
    end: Entry | None = None

    @classmethod
    def from_receipts(cls, decided: Receipt, ended: Receipt | None) -> "Record":
        """Reads the entries."""
        entry = Entry.FromString(decided.leaf)
        decision = entry.search_decided
        summary, outcome = decision.summary, decision.decision.outcome
        permitted = outcome == _PERMITTED
        referred_to = decision.referred_to if outcome == _REFERRED else ""
        goes_on = permitted or bool(referred_to)
        record = cls(
            search_id=entry.search_id,
            decided=decided,
            decision=decision,
            decided_at=entry.recorded_at,
            origin_agency=summary.origin_agency,
            system=summary.system,
            permitted=permitted,
            referred_to=referred_to,
            goes_on=goes_on,
            is_open=goes_on,
        )
        return record.ended_by(ended) if ended is not None else record

    def ended_by(self, ended: Receipt) -> "Record":
        """The record with its terminal entry."""
        end = Entry.FromString(ended.leaf)
        answered = end.HasField("search_answered")
        # In full: `replace` asks the class for its fields each time.
        return Record(
            search_id=self.search_id,
            decided=self.decided,
            decision=self.decision,
            decided_at=self.decided_at,
            origin_agency=self.origin_agency,
            system=self.system,
            permitted=self.permitted,
            referred_to=self.referred_to,
            goes_on=self.goes_on,
            is_open=False,
            answer_sha256=(end.search_answered if answered else end.search_failed).answer_sha256,
            ended=ended,
            end=end,
        )

    @property
    def referred_by(self) -> str:
        """Trust domain of the peer that it came from; empty for none."""
        return self.decision.referred_by.peer

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

    def as_search(self) -> Search:
        """The search as agency systems see it, without its answer."""
        search = Search()
        self.tell(search)
        return search

    def tell(self, search: Search) -> None:
        """The same, told in place: a message that is made elsewhere would be copied into its response."""
        search.search_id = self.search_id
        search.state = self.state
        # Messages are copied into place: given to the constructor, they are serialised and read again.
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


@dataclass(frozen=True)
class Referral:
    """The other installation of a search between two."""

    peer: str
    """Its trust domain."""
    by: PeerEntry | None = None
    """Its decision, when the search came from there."""


def is_permitted(decision: Decision) -> bool:
    """True only if there are verdicts and every one permits, whatever the outcome field says."""
    if decision.outcome != _PERMITTED:
        return False
    verdicts = decision.verdicts
    for verdict in verdicts:
        if verdict.outcome != _PERMIT:
            return False
    return len(verdicts) > 0


def is_referred(decision: Decision, peer: str) -> bool:
    """True only if all who were asked here permit, the origin among them, and the operator is asked there."""
    return decision.outcome == _REFERRED and is_referral(decision.verdicts, peer)


def summary_of(facts: SearchFacts, evaluated: EvaluateResponse) -> SearchSummary:
    """What oversight counts."""
    summary = SearchSummary()
    _summarise(summary, facts, evaluated)
    return summary


def _summarise(summary: SearchSummary, facts: SearchFacts, evaluated: EvaluateResponse) -> None:
    parties = evaluated.parties
    summary.origin_agency = facts.origin_agency
    summary.beneficiary_agency = facts.beneficiary_agency
    summary.operator_agency = parties.operator_agency
    summary.gallery_owner = parties.gallery_owner
    summary.jurisdictions.extend(parties.jurisdictions)
    summary.system = facts.system
    summary.gallery = facts.gallery
    summary.gallery_class = parties.gallery_class
    summary.purpose = facts.purpose
    summary.suspicion = facts.suspicion
    summary.offence.CopyFrom(facts.offence)
    summary.provenance = facts.provenance
    summary.capture_mode = facts.capture_mode
    summary.candidates_max = facts.candidates_max or CANDIDATES_DEFAULT
    if facts.HasField("circumstances"):
        summary.circumstances.CopyFrom(facts.circumstances)


def _keep_apart(pending: PendingEntry, facts: SearchFacts, officer: str) -> None:
    """What is sensitive. Each is committed to even when empty, so that its absence is not public either.

    Whether an instrument and an emergency were spoken of at all is public.
    """
    add = pending.sensitive.add
    add(field="officer", value=officer)
    add(field="case_number", value=facts.case_number)
    add(field="narrative", value=facts.narrative)
    if facts.circumstances.HasField("instrument") or facts.instrument_number:
        add(field="instrument_number", value=facts.instrument_number)
    if facts.circumstances.HasField("emergency") or facts.emergency_basis:
        add(field="emergency_basis", value=facts.emergency_basis)


def checked_entry(
    facts: SearchFacts, officer: str, evaluated: EvaluateResponse, token_sha256: bytes = b""
) -> PendingEntry:
    """A dry run."""
    event = SearchChecked(
        summary=summary_of(facts, evaluated),
        decision=evaluated.decision,
        officer_token_sha256=token_sha256,
    )
    pending = PendingEntry(entry=Entry(search_checked=event))
    _keep_apart(pending, facts, officer)
    pending.sensitive.append(_unspent(facts.search_id))
    return pending


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
    decision, search_id = evaluated.decision, facts.search_id
    pending = PendingEntry(idempotency_key=f"decided/{search_id}")
    _keep_apart(pending, facts, officer)
    entry = pending.entry
    entry.search_id = search_id
    event = entry.search_decided
    _summarise(event.summary, facts, evaluated)
    event.request_sha256 = request_sha256
    event.officer_token_sha256 = token_sha256
    event.decision.CopyFrom(decision)
    if referral is not None:
        if decision.outcome == _REFERRED:
            event.referred_to = referral.peer
        if referral.by is not None:
            event.referred_by.CopyFrom(referral.by)
    if event.referred_to or is_permitted(decision):
        put_stamp(event.deadline, deadline)
    return pending


def undecided_entry(facts: SearchFacts, officer: str, reason: str) -> PendingEntry:
    """No decision could be made; the id stays free."""
    event = SearchUndecided(origin_agency=facts.origin_agency, system=facts.system, reason=reason)
    pending = PendingEntry(entry=Entry(search_undecided=event))
    _keep_apart(pending, facts, officer)
    pending.sensitive.append(_unspent(facts.search_id))
    return pending


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
    pending = PendingEntry(idempotency_key=f"end/{record.search_id}")
    entry = pending.entry
    entry.search_id = record.search_id
    if answer.HasField("failure"):
        failed, failure = entry.search_failed, answer.failure
        failed.decided_index = record.decided.index
        failed.origin_agency = record.origin_agency
        failed.system = record.system
        failed.reason = failure.reason
        failed.check = failure.check
        failed.answer_sha256 = answer_sha256
        return pending
    answered, found = entry.search_answered, answer.found
    answered.decided_index = record.decided.index
    answered.origin_agency = record.origin_agency
    answered.system = record.system
    answered.gallery = answer.gallery
    answered.answer_sha256 = answer_sha256
    answered.candidates_returned = found.returned
    answered.candidates_above_threshold = found.above_threshold
    answered.gallery_size = found.gallery_size
    answered.algorithm = found.algorithm
    return pending


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
