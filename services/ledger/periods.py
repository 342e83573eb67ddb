"""Closes periods: counts a span of entries into one entry, so that a report can be seen to be complete.

Spans follow each other without gap, so each entry is counted in exactly one. What is counted follows from
the entries alone, and whoever has them can count again (countersign.client.periods does).
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import PeriodClosed
from ledger.archive import Archive
from ledger.entry import Completer
from ledger.index_process import IndexProcess
from ledger.questions import Question, SpanCounts
from ledger.sequencer import Sequencer
from shared.clock import Clock, stamp
from shared.entry_facts import micros
from shared.errors import ServiceError
from shared.kinds import KINDS

log = logging.getLogger(__name__)

GRACE_US: Final = 10_000_000
"""A period is closed so long after its end: what was completed before it may still be in the queue."""
LOOK_EVERY_S: Final = 60.0
RETRY_S: Final = 5.0
TOTALS_MAX: Final = 1000
"""Totals of one part: with the longest agency 30 kB, half of what an entry may have."""
PERIODS_AT_ONCE: Final = 400
"""After a long absence each missed day is closed; no more than a year of them in one go."""

_PERIOD_CLOSED: Final = KINDS["period_closed"]


@dataclass(frozen=True)
class _Last:
    """Where the last period ended."""

    end_index: int
    ends_us: int
    previous_index: int | None


class PeriodCloser:
    """Closes each period once it is over."""

    def __init__(
        self,
        sequencer: Sequencer,
        archive: Archive,
        index: IndexProcess,
        completer: Completer,
        clock: Clock,
        length: timedelta,
    ) -> None:
        self._sequencer = sequencer
        self._archive = archive
        self._index = index
        self._completer = completer
        self._clock = clock
        self._length_us = length // timedelta(microseconds=1)

    async def run(self) -> None:
        """Close periods until cancelled."""
        while True:
            try:
                await self.close_due()
                pause = LOOK_EVERY_S
            except ServiceError as error:
                log.warning("period not closed yet", extra={"fields": {"reason": error.reason}})
                pause = RETRY_S
            await asyncio.sleep(pause)

    async def close_due(self) -> int:
        """Close the periods that are over; says how many. Raises ServiceError."""
        now_us = micros(stamp(self._clock.now()))
        last = await self._last()
        closed = 0
        while last is not None and closed < PERIODS_AT_ONCE:
            ends_us = last.ends_us + self._length_us
            if ends_us + GRACE_US > now_us:
                break
            last = await self._close(last, ends_us)
            closed += 1
        return closed

    async def _last(self) -> _Last | None:
        """None while there is no entry. Before the first period lies the beginning of the first entry's."""
        size = self._sequencer.published.size
        if size == 0:
            return None
        found = await self._index.last(Question(size=size, kinds=(_PERIOD_CLOSED,)))
        if found is None:
            first = Entry.FromString(await self._archive.entry(0)).recorded_at
            recorded_us = first.seconds * 1_000_000 + first.nanos // 1000
            return _Last(0, recorded_us - recorded_us % self._length_us, None)
        closed = Entry.FromString(await self._archive.entry(found)).period_closed
        return _Last(
            closed.end_index, closed.ends_at.ToMicroseconds(), found - (closed.part or 1) + 1
        )

    async def _close(self, last: _Last, ends_us: int) -> _Last:
        size = self._sequencer.published.size
        counted = await self._index.span(last.end_index, ends_us, size)
        parts = closing_entries(last.end_index, counted)
        for part in parts:
            part.starts_at.FromMicroseconds(last.ends_us)
            part.ends_at.FromMicroseconds(ends_us)
            if last.previous_index is not None:
                part.previous_index = last.previous_index
        placed = await self._sequencer.append(
            [self._completer.complete(_pending(one, ends_us), "period") for one in parts]
        )
        return _Last(counted.end_index, ends_us, placed[0].index)


def closing_entries(first_index: int, counted: SpanCounts) -> list[PeriodClosed]:
    """The entries that close a span, without its times: one, or several where it has many totals."""
    chunks: Sequence[list[tuple[str, int, int]]] = [
        counted.totals[at : at + TOTALS_MAX]
        for at in range(0, max(len(counted.totals), 1), TOTALS_MAX)
    ]
    decisions = b"".join(index.to_bytes(8, "big") for index in counted.open_decisions)
    parts = []
    for number, totals in enumerate(chunks, 1):
        part = PeriodClosed(
            first_index=first_index,
            end_index=counted.end_index,
            open_searches=len(counted.open_decisions),
            open_searches_sha256=sha256(decisions).digest(),
            part=number,
            parts=len(chunks),
        )
        for agency, kind, number_of in totals:
            part.totals.add(origin_agency=agency, kind=kind, count=number_of)
        parts.append(part)
    return parts


def _pending(closed: PeriodClosed, ends_us: int) -> PendingEntry:
    """The key lets two that close the same period leave one entry."""
    pending = PendingEntry(idempotency_key=f"period/{ends_us}/{closed.part}")
    pending.entry.period_closed.CopyFrom(closed)
    return pending
