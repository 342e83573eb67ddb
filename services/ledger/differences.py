"""What a connector says that it ran, held against the record. Pure.

A run and its search are compared by what both ends have signed: the request's digest, which stands in the
decision, and the answer's, which stands in the end. No times are compared.

Not a difference: a run whose search was withdrawn or has expired meanwhile, or has no end yet; an order that
was refused, of which nothing was run; an end by an order that the connector turned away unread
(ORDER_REJECTED), of which it keeps nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from countersign.connector.v1.connector_pb2 import (
    FAILURE_REASON_ORDER_REJECTED,
    RUN_RESULT_REFUSED,
    Run,
)
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import (
    ALARM_KIND_RUNS_UNREPORTED,
    ALARM_KIND_SEARCH_DIFFERS,
    ALARM_KIND_UNRECORDED_SEARCH,
    ALARM_KIND_UNREPORTED_SEARCH,
    AlarmKind,
)
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED

KIND_OF: Final[Mapping[str, AlarmKind.ValueType]] = {
    "RUN_NOT_ON_RECORD": ALARM_KIND_UNRECORDED_SEARCH,
    "RUN_NOT_PERMITTED": ALARM_KIND_UNRECORDED_SEARCH,
    "RUN_OF_ANOTHER_REQUEST": ALARM_KIND_SEARCH_DIFFERS,
    "RUN_ANSWERED_OTHERWISE": ALARM_KIND_SEARCH_DIFFERS,
    "ANSWER_NOT_REPORTED": ALARM_KIND_UNREPORTED_SEARCH,
    "DAY_NOT_REPORTED": ALARM_KIND_RUNS_UNREPORTED,
    "MORE_DIFFERENCES": ALARM_KIND_SEARCH_DIFFERS,
}
"""Every reason of a difference. They are stable."""

DIFFERENCES_MAX: Final = 1000
"""Of one comparison so many are entries, and one more says how many there are besides."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision on record."""

    index: int
    search_id: str
    system: str
    origin_agency: str
    request_sha256: bytes
    permitted: bool

    @classmethod
    def of(cls, index: int, entry: Entry) -> "Decided":
        """Read a SearchDecided entry."""
        decided = entry.search_decided
        return cls(
            index=index,
            search_id=entry.search_id,
            system=decided.summary.system,
            origin_agency=decided.summary.origin_agency,
            request_sha256=decided.request_sha256,
            permitted=decided.decision.outcome == DECISION_OUTCOME_PERMITTED,
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """An end on record that an answer brought."""

    index: int
    search_id: str
    decided_index: int
    system: str
    origin_agency: str
    answer_sha256: bytes
    kept: bool
    """Whether the connector keeps what it answered."""

    @classmethod
    def of(cls, index: int, entry: Entry) -> "Ended | None":
        """Read an end; None when no answer brought it, or one of a peer's connector, which reports there."""
        kind = entry.WhichOneof("event")
        if kind not in ("search_answered", "search_failed"):
            return None
        end = getattr(entry, kind)
        if end.HasField("peer_decided") or not end.answer_sha256:
            return None
        rejected = kind == "search_failed" and end.reason == FAILURE_REASON_ORDER_REJECTED
        return cls(
            index=index,
            search_id=entry.search_id,
            decided_index=end.decided_index,
            system=end.system,
            origin_agency=end.origin_agency,
            answer_sha256=end.answer_sha256,
            kept=not rejected,
        )


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A run, and the entry that tells of it."""

    index: int
    run: Run


@dataclass(frozen=True, slots=True)
class Difference:
    """What one side has and the other has not, or has otherwise."""

    reason: str
    """Of `KIND_OF`."""
    system: str
    day: str
    subject: str
    """The search, or what else is concerned: at most one entry for each with one reason."""
    on_record: bool = False
    """Whether the search is one that was decided."""
    entry_indexes: tuple[int, ...] = ()
    origin_agency: str = ""
    evidence: tuple[str, ...] = ()

    def pending(self, found_by: str) -> PendingEntry:
        """The entry."""
        pending = PendingEntry(
            idempotency_key=f"reconciliation/{self.reason}/{self.system}/{self.subject}"
        )
        if self.on_record:
            pending.entry.search_id = self.subject
        alarm = pending.entry.alarm_raised
        alarm.kind = KIND_OF[self.reason]
        alarm.reason = self.reason
        alarm.found_by = found_by
        alarm.entry_indexes.extend(self.entry_indexes)
        alarm.origin_agency = self.origin_agency
        alarm.system = self.system
        alarm.evidence.extend((f"day {self.day}", *self.evidence))
        return pending


def of_run(
    reported: ReportedRun, day: str, system: str, decided: Decided | None, ended: Ended | None
) -> Difference | None:
    """Compare a run with what is on record of its search."""
    run = reported.run
    reason, indexes = "", [reported.index]
    if decided is not None:
        indexes.insert(0, decided.index)
    if run.result != RUN_RESULT_REFUSED:
        if decided is None:
            reason = "RUN_NOT_ON_RECORD"
        elif not decided.permitted or decided.system != system:
            reason = "RUN_NOT_PERMITTED"
        elif run.request_sha256 != decided.request_sha256:
            reason = "RUN_OF_ANOTHER_REQUEST"
    if not reason and ended is not None and run.answer_sha256 != ended.answer_sha256:
        reason = "RUN_ANSWERED_OTHERWISE"
        indexes.append(ended.index)
    if not reason:
        return None
    return Difference(
        reason=reason,
        system=system,
        day=day,
        subject=run.search_id,
        on_record=decided is not None,
        entry_indexes=tuple(indexes),
        origin_agency="" if decided is None else decided.origin_agency,
        evidence=(
            f"search {run.search_id}",
            f"order sha256:{run.order_sha256.hex()}",
            f"request sha256:{run.request_sha256.hex()}",
            f"answer sha256:{run.answer_sha256.hex()}",
        ),
    )


def not_reported(ends: Iterable[Ended], day: str, reported: Collection[str]) -> list[Difference]:
    """Find the answers on record that no report has."""
    return [
        Difference(
            reason="ANSWER_NOT_REPORTED",
            system=end.system,
            day=day,
            subject=end.search_id,
            on_record=True,
            entry_indexes=(end.decided_index, end.index),
            origin_agency=end.origin_agency,
            evidence=(f"search {end.search_id}", f"answer sha256:{end.answer_sha256.hex()}"),
        )
        for end in ends
        if end.kept and end.search_id not in reported
    ]


def day_not_reported(system: str, day: str, ends: Collection[Ended]) -> Difference:
    """Say that a day has answers on record, and no report."""
    first = min(ends, key=lambda end: end.index)
    return Difference(
        reason="DAY_NOT_REPORTED",
        system=system,
        day=day,
        subject=day,
        entry_indexes=(first.index,),
        evidence=(f"{len(ends)} answers on record, the first of them named",),
    )


def bounded(differences: list[Difference]) -> list[Difference]:
    """As many as are put on record, and how many more there are."""
    kept = differences[:DIFFERENCES_MAX]
    if more := len(differences) - len(kept):
        first = differences[0]
        kept.append(
            Difference(
                reason="MORE_DIFFERENCES",
                system=first.system,
                day=first.day,
                subject=f"{first.day}/{first.subject}",
                evidence=(f"{more} more differences, which are not named",),
            )
        )
    return kept
