"""Looks for reports that connectors owe, and for answers on record that a report lacks or has otherwise."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date, timedelta
from typing import Final

from ledger.differences import (
    Difference,
    Ended,
    ReportedRun,
    day_not_reported,
    not_reported,
    of_run,
)
from ledger.runs_on_record import RunsOnRecord
from ledger.runs_service import Alarms
from ledger.sequencer import Sequencer
from shared.clock import Clock, stamp
from shared.entry_facts import micros
from shared.errors import ServiceError
from shared.essential import essential

LOOK_EVERY_S: Final = 3600.0
LOOK_BACK: Final = timedelta(days=8)
"""At a start it is looked back so far; what is older was looked at before."""
LOOK_AT_ONCE: Final = timedelta(days=1)
"""Answers of so long a time are in memory together."""

log = logging.getLogger(__name__)


class MissingReports:
    """Looks for answers on record that no report has, when a report should have come long since."""

    def __init__(
        self,
        sequencer: Sequencer,
        record: RunsOnRecord,
        alarms: Alarms,
        clock: Clock,
        grace: timedelta,
        expected_from: date | None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sequencer = sequencer
        self._record = record
        self._alarms = alarms
        self._clock = clock
        self._grace_us = grace // timedelta(microseconds=1)
        self._expected_from = expected_from
        self._pause = pause
        self._done_us: int | None = None

    async def run(self) -> None:
        """Look until cancelled; not at once, as connectors of a ledger that was away have first to report."""
        while True:
            await self._pause(LOOK_EVERY_S)
            try:
                await self.look()
            except ServiceError as error:
                fields = {"reason": error.reason}
                log.warning("missing reports not looked for yet", extra={"fields": fields})

    async def look(self) -> int:
        """Look at the answers whose time has come since the last look; says how many differences there are.

        Raises ServiceError.
        """
        until_us = micros(stamp(self._clock.now())) - self._grace_us
        if self._done_us is None:
            self._done_us = until_us - LOOK_BACK // timedelta(microseconds=1)
        found = 0
        while self._done_us < until_us:
            step_us = min(self._done_us + LOOK_AT_ONCE // timedelta(microseconds=1), until_us)
            found += await self._between(self._done_us, step_us)
            self._done_us = step_us
        return found

    async def _between(self, from_us: int, until_us: int) -> int:
        size = self._sequencer.published.size
        ends = await self._record.ended_between(from_us, until_us, size)
        groups: dict[tuple[str, str], list[Ended]] = {}
        for end, day in zip(ends, await self._record.days_of(ends, size), strict=True):
            groups.setdefault((end.system, day), []).append(end)
        found = 0
        for (system, day), some in groups.items():
            differences = await self._of_day(system, day, some, size)
            # Each day for itself: there is a bound on how many are named at once.
            await self._alarms.raise_all(differences)
            found += len(differences)
        return found

    async def _of_day(
        self, system: str, day: str, ends: list[Ended], size: int
    ) -> list[Difference]:
        kept = [end for end in ends if end.kept]
        if kept and not await self._is_expected(system, day, size):
            fields = {"system": system, "day": day, "answers": len(kept)}
            log.warning("a connector does not report what it runs", extra={"fields": fields})
            return []
        told = await self._record.reported(system, day)
        if kept and not told.reports:
            return [day_not_reported(system, day, kept)]
        reported = {one.run.search_id for one in told.runs}
        return not_reported(kept, day, reported) + await self._otherwise(ends, day, told.runs)

    async def _otherwise(
        self, ends: Sequence[Ended], day: str, runs: Sequence[ReportedRun]
    ) -> list[Difference]:
        """Find the answers that are not those of the runs: they may be younger than the report is."""
        recorded = {end.search_id: end for end in ends}
        found = []
        for reported in runs:
            end = recorded.get(reported.run.search_id)
            if end is not None and end.answer_sha256 != reported.run.answer_sha256:
                decided, _ = await self._record.search(end.search_id)
                found.append(of_run(reported, day, end.system, decided, end))
        return [difference for difference in found if difference is not None]

    async def _is_expected(self, system: str, day: str, size: int) -> bool:
        """Whoever has reported once reports every day; connectors of before did not know how to."""
        if self._expected_from is not None and day >= self._expected_from.isoformat():
            return True
        first = await self._record.first_day(system, size)
        return first is not None and day >= first


@contextlib.asynccontextmanager
async def looking(missing: MissingReports, ended: asyncio.Event) -> AsyncIterator[None]:
    """Look for missing reports until the end; a ledger that no longer looks is told that it has ended."""
    looks = essential(missing.run(), "looking for missing reports", ended)
    try:
        yield
    finally:
        looks.cancel()
        await asyncio.gather(looks, return_exceptions=True)
