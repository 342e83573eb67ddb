"""Tells the ledger what was run: after each UTC day, signed, again and again until it is receipted.

The ledger is asked first how many entries it has, and only then is looked at what was run: an answer that is
among those entries was kept here before it was published, so it is in the report, whatever the clocks say.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from connector import report_store
from connector.report_store import WaitingReport
from connector.runs import RunStore
from countersign.connector.v1.connector_pb2 import Run, RunsReport, SignedRunsReport
from countersign.ledger.v1.append_pb2 import (
    BeginRunsReport,
    ReportRunsRequest,
    ReportRunsResponse,
)
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Receipt
from shared.clock import Clock
from shared.errors import Broken, ServiceError
from shared.signing import RUNS_CONTEXT, SigningKey
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.proof import verify_receipt

DELAY: Final = timedelta(minutes=20)
"""So long after its end a day is reported: by then most of its searches have ended."""
LOOK_EVERY_S: Final = 300.0
RUNS_PER_PAGE: Final = 300
"""A run has at most 170 bytes, so that a page with its signature stays below an entry's 65,535."""
REPORTS_AT_ONCE: Final = 200
"""After a long absence each missed day is reported, so many in one go."""
TIMEOUT_S: Final = 25.0
"""For a page. With the last the ledger compares the whole day before it answers."""
DAY_REFUSED: Final = frozenset({"DAY_NOT_OVER", "INVALID_REQUEST", "RUNS_REPORTS_MAX"})
"""Why the ledger begins no report of a day, whatever it says to others."""
REPORT_REFUSED: Final = frozenset({"INVALID_REQUEST", "RUNS_OUT_OF_ORDER", "RUNS_REPORT_TAKEN"})
"""Why it will never take a page: another report has its place, or the ledger was restored and has fewer
entries or reports than when the page was made."""

log = logging.getLogger(__name__)


class _DayRefused(Exception):
    """No report of this day now."""

    def __init__(self, why: ServiceError) -> None:
        super().__init__(str(why))
        self.why = why


class Ledger(Protocol):
    """The part of the bus that reports need."""

    async def request(
        self,
        subject: str,
        message: ReportRunsRequest,
        response: type[ReportRunsResponse],
        timeout_s: float,
    ) -> ReportRunsResponse:
        """Asks; raises ServiceError."""


class Reporter:
    """Reports what one system ran."""

    def __init__(
        self,
        system: str,
        key: SigningKey,
        logs: Sequence[LogVerifier],
        runs: RunStore,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._system = system
        self._key = key
        self._logs = logs
        self._runs = runs
        self._ledger = ledger
        self._clock = clock

    async def begin(self) -> None:
        """Note from which day on all runs are known; before the first order is taken."""
        today = self._clock.now().date()
        await self._runs.write(lambda database: report_store.begin(database, today))

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                await self.report_due()
            except ServiceError as error:
                log.warning("runs not reported yet", extra={"fields": {"reason": error.reason}})
            except sqlite3.Error as error:
                fields = {"reason": type(error).__name__}
                log.warning("runs not reported yet", extra={"fields": fields})
            await asyncio.sleep(LOOK_EVERY_S)

    async def report_due(self) -> int:
        """Send the reports that are due; says how many the ledger took. Raises ServiceError."""
        sent = 0
        refused: dict[str, ServiceError] = {}
        for _ in range(REPORTS_AT_ONCE):
            waiting = await self._runs.write(report_store.waiting)
            day = await self._next_day(refused) if waiting is None else waiting.day
            if day is None:
                break
            try:
                await self._send(waiting or await self._prepared(day))
                sent += 1
            except _DayRefused as error:
                # It does not hold up the other days, and is tried again in the next round.
                refused[day] = error.why
        if refused:
            raise next(iter(refused.values()))
        return sent

    async def _next_day(self, refused: Collection[str]) -> str | None:
        today = (self._clock.now() - DELAY).date()
        return await self._runs.write(
            lambda database: report_store.next_day(database, today, refused)
        )

    async def _prepared(self, day: str) -> WaitingReport:
        begin = ReportRunsRequest(begin=BeginRunsReport(system=self._system, day=day))
        try:
            begun = await self._ask(begin)
        except ServiceError as error:
            if error.reason in DAY_REFUSED:
                raise _DayRefused(error) from error
            raise
        # Not before the ledger has said how many entries it has.
        make = self._pages(day, begun.report, begun.tree_size)
        return await self._runs.write(lambda database: report_store.prepare(database, day, make))

    def _pages(
        self, day: str, report: int, known_size: int
    ) -> Callable[[Sequence[bytes]], Sequence[bytes]]:
        def make(records: Sequence[bytes]) -> Sequence[bytes]:
            parts = [
                records[at : at + RUNS_PER_PAGE]
                for at in range(0, max(len(records), 1), RUNS_PER_PAGE)
            ]
            pages = []
            for number, part in enumerate(parts, 1):
                page = RunsReport(
                    system=self._system,
                    day=day,
                    report=report,
                    page=number,
                    pages=len(parts),
                    count=len(records),
                    known_size=known_size,
                    runs=map(Run.FromString, part),
                )
                pages.append(self._signed(page.SerializeToString(deterministic=True)))
            return pages

        return make

    def _signed(self, report: bytes) -> bytes:
        return SignedRunsReport(
            report=report,
            key_id=self._key.key_id,
            signature=self._key.sign(RUNS_CONTEXT, report),
        ).SerializeToString()

    async def _send(self, report: WaitingReport) -> None:
        differences = 0
        for data in report.pages:
            page = SignedRunsReport.FromString(data)
            try:
                taken = await self._ask(ReportRunsRequest(page=page))
            except ServiceError as error:
                if error.reason not in REPORT_REFUSED:
                    raise
                ids = _search_ids(report)
                await self._runs.write(partial(report_store.drop, report=report, search_ids=ids))
                raise _DayRefused(error) from error
            self._check(taken.receipt, page)
            differences = taken.differences
        # A crash before this line sends all of it again, and the ledger knows it.
        await self._runs.write(lambda database: report_store.receipted(database, report))
        fields = {"day": report.day, "pages": len(report.pages), "differences": differences}
        if differences:
            log.error("the ledger's record differs from what was run", extra={"fields": fields})
        else:
            log.info("runs reported", extra={"fields": fields})

    def _check(self, receipt: Receipt, page: SignedRunsReport) -> None:
        """Raise Broken unless the log proves that it has this page."""
        for one in self._logs:
            try:
                verify_receipt(receipt.leaf, receipt.tlog_proof, one)
                if Entry.FromString(receipt.leaf).runs_reported.signed_report == page:
                    return
            except (TlogError, DecodeError):
                continue
        raise Broken("RUNS_RECEIPT", "the ledger did not prove that it recorded the report")

    async def _ask(self, request: ReportRunsRequest) -> ReportRunsResponse:
        subject = f"runs.{self._system}"
        return await self._ledger.request(subject, request, ReportRunsResponse, TIMEOUT_S)


def _search_ids(report: WaitingReport) -> list[str]:
    pages = [SignedRunsReport.FromString(data).report for data in report.pages]
    return [run.search_id for page in pages for run in RunsReport.FromString(page).runs]
