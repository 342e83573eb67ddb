"""Reads what is on record of a system's runs: what was decided on a day, how it ended, what was reported."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from countersign.connector.v1.connector_pb2 import RunsReport
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED
from ledger.archive import Archive
from ledger.differences import Decided, Ended, ReportedRun
from ledger.index_process import IndexProcess
from ledger.questions import Question
from shared.kinds import KINDS

REPORTS_MAX: Final = 100
"""Of one day: one as a rule, and one for each later day on which a search of it was still run."""
PAGES_MAX: Final = 1000
"""Of one report: 300,000 runs."""
ENDS_WITHIN: Final = timedelta(days=8)
"""An order is valid for seven days at most: so long after its day each search of it has its end."""
INDEXES_PAGE: Final = 5000
_DECIDED: Final = KINDS["search_decided"]
_ENDED: Final = (KINDS["search_answered"], KINDS["search_failed"])
_REPORTED: Final = KINDS["runs_reported"]


def page_key(system: str, day: str, report: int, page: int) -> str:
    """Give the idempotency key of a page."""
    return f"runs/{system}/{day}/{report}/{page}"


def bounds_us(day: str) -> tuple[int, int]:
    """Give the first microsecond of a UTC day, and the first after it."""
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    start_us = int(start.timestamp()) * 1_000_000
    return start_us, start_us + timedelta(days=1) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Reported:
    """What the reports of a day say."""

    reports: int
    """Those that are whole."""
    runs: Sequence[ReportedRun]
    """Also of reports of which a part is there."""


class RunsOnRecord:
    """Reads; where a size is given, the answer is of the tree of this size."""

    def __init__(self, archive: Archive, index: IndexProcess) -> None:
        self._archive = archive
        self._index = index

    async def reports(self, system: str, day: str) -> int:
        """Count the reports of a day that have begun."""
        keys = [page_key(system, day, report, 1) for report in range(1, REPORTS_MAX + 1)]
        found = await self._archive.bearing_keys(keys)
        return max((Entry.FromString(leaf).runs_reported.report for _, leaf in found), default=0)

    async def has_page(self, system: str, day: str, report: int, page: int) -> bool:
        """Whether a page is there; then all before it are."""
        return bool(await self._archive.bearing_keys([page_key(system, day, report, page)]))

    async def reported(self, system: str, day: str) -> Reported:
        """Read all reports of a day that are there by now."""
        reports, whole = await self.reports(system, day), 0
        runs: list[ReportedRun] = []
        for report in range(1, reports + 1):
            keys = [page_key(system, day, report, 1)]
            ((_, leaf),) = await self._archive.bearing_keys(keys)
            pages = Entry.FromString(leaf).runs_reported.pages
            keys = [page_key(system, day, report, page) for page in range(1, pages + 1)]
            found = await self._archive.bearing_keys(keys)
            whole += len(found) == pages
            for index, page in found:
                signed = Entry.FromString(page).runs_reported.signed_report
                told = RunsReport.FromString(signed.report).runs
                runs += [ReportedRun(index, run) for run in told]
                await asyncio.sleep(0)  # appends are not held up by a day with many runs
        return Reported(whole, runs)

    async def first_day(self, system: str, size: int) -> str | None:
        """Give the day of the first report of a system; None when it has never reported."""
        found = await self._index.page(Question(size=size, kinds=(_REPORTED,), system=system), 1)
        if not found.indexes:
            return None
        return Entry.FromString(await self._archive.entry(found.indexes[0])).runs_reported.day

    async def decided(self, system: str, day: str, size: int) -> dict[str, Decided]:
        """Read the permits of a day, by search."""
        from_us, until_us = bounds_us(day)
        question = Question(
            size=size,
            from_us=from_us,
            until_us=until_us,
            kinds=(_DECIDED,),
            system=system,
            outcome=DECISION_OUTCOME_PERMITTED,
        )
        return {
            entry.search_id: Decided.of(index, entry) async for index, entry in self._all(question)
        }

    async def ended(
        self, system: str, day: str, decided: dict[str, Decided], size: int
    ) -> list[Ended]:
        """Read the ends of these searches of a day that are among the first entries."""
        if not decided:
            return []
        _, after_us = bounds_us(day)
        question = Question(
            size=size,
            start_index=min(one.index for one in decided.values()),
            until_us=after_us + ENDS_WITHIN // timedelta(microseconds=1),
            kinds=_ENDED,
            system=system,
        )
        ends = [Ended.of(index, entry) async for index, entry in self._all(question)]
        return [end for end in ends if end is not None and end.search_id in decided]

    async def ended_between(self, from_us: int, until_us: int, size: int) -> list[Ended]:
        """Read the ends by an answer, of all systems, that were recorded within a time."""
        question = Question(size=size, from_us=from_us, until_us=until_us, kinds=_ENDED)
        ends = [Ended.of(index, entry) async for index, entry in self._all(question)]
        return [end for end in ends if end is not None]

    async def days_of(self, ends: Sequence[Ended], size: int) -> list[str]:
        """Give for each end the UTC day of its decision."""
        days: dict[int, str] = {}
        wanted = sorted({end.decided_index for end in ends})
        async for index, entry in self._read(wanted, size):
            days[index] = entry.recorded_at.ToDatetime(tzinfo=UTC).date().isoformat()
        return [days[end.decided_index] for end in ends]

    async def search(self, search_id: str) -> tuple[Decided | None, Ended | None]:
        """Look one search up."""
        found = await self._archive.search(search_id)
        if found.decided is None:
            return None, None
        decided = Decided.of(found.decided.index, Entry.FromString(found.decided.leaf))
        if found.ended is None:
            return decided, None
        return decided, Ended.of(found.ended.index, Entry.FromString(found.ended.leaf))

    async def _all(self, question: Question) -> AsyncIterator[tuple[int, Entry]]:
        at: int | None = question.start_index
        while at is not None:
            page = await self._index.page(replace(question, start_index=at), INDEXES_PAGE)
            async for index, entry in self._read(page.indexes, question.size):
                yield index, entry
            at = page.next_index

    async def _read(self, indexes: Sequence[int], size: int) -> AsyncIterator[tuple[int, Entry]]:
        done = 0
        while done < len(indexes):
            found = await self._archive.found(size, indexes[done:], with_proofs=False)
            for record in found.records:
                yield record.index, Entry.FromString(record.leaf)
            done += len(found.records)
