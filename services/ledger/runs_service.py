"""The ledger's side of the bus for connectors: takes what they say that they ran, and compares it.

Invariants:
- a report is of a day that is over by the clock that stamps entries, so that no decision joins the day later;
- a page is on record once, however often it is sent, and another page never takes its place;
- the comparison comes before the last page is answered, so that a connector that was not answered sends the
  page again, and it is made again: its entries have keys, and are recorded once.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from google.protobuf.message import DecodeError

from countersign.connector.v1.connector_pb2 import RunsReport, SignedRunsReport
from countersign.ledger.v1 import append_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from ledger.differences import KIND_OF, Difference, bounded, not_reported, of_run
from ledger.entry import Completer
from ledger.requests import invalid
from ledger.runs_on_record import PAGES_MAX, REPORTS_MAX, RunsOnRecord, page_key
from ledger.sequencer import Placed, Sequencer
from shared import telemetry
from shared.bus import Bus
from shared.clock import Clock
from shared.errors import Conflict, NotAuthentic, NotReady
from shared.signing import RUNS_CONTEXT, BadSignature, VerifyKey

QUEUE: Final = "ledger"
SUBJECT: Final = "runs.*"
IN_FLIGHT_MAX: Final = 64
"""A connector has one question at a time; they are answered one after the other."""
GRACE: Final = timedelta(minutes=10)
"""A day is over so long after its end: what was stamped before it may still be in the queue."""
DAYS_BACK_MAX: Final = 400
RUNS_MAX: Final = 1000
ENTRIES_AT_ONCE: Final = 256

_SEARCH_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")

log = logging.getLogger(__name__)

_differences = telemetry.meter.create_counter(
    "countersign.ledger.reconciliation.differences",
    unit="{difference}",
    description="Differences between what connectors ran and the record, by reason, when recorded",
)


class Alarms:
    """Puts differences on record, each once, and says so loudly."""

    def __init__(self, sequencer: Sequencer, completer: Completer, found_by: str) -> None:
        self._sequencer = sequencer
        self._completer = completer
        self._found_by = found_by

    async def raise_all(self, differences: list[Difference]) -> None:
        """Make them durable. Raises ServiceError."""
        kept = bounded(differences)
        for at in range(0, len(kept), ENTRIES_AT_ONCE):
            some = kept[at : at + ENTRIES_AT_ONCE]
            placed = await self._sequencer.append(
                [self._completer.complete(one.pending(self._found_by), "alarm") for one in some]
            )
            for one, entry in zip(some, placed, strict=True):
                if not entry.existing:
                    _tell(one, entry.index)


def _tell(difference: Difference, index: int) -> None:
    _differences.add(1, {"reason": difference.reason, "system": difference.system})
    fields = {
        "reason": difference.reason,
        "system": difference.system,
        "day": difference.day,
        "about": difference.subject,
        "entry": index,
    }
    log.error("what a connector ran differs from the record", extra={"fields": fields})


class RunsService:
    """Takes reports."""

    def __init__(
        self,
        keys: Mapping[str, VerifyKey],
        sequencer: Sequencer,
        completer: Completer,
        record: RunsOnRecord,
        alarms: Alarms,
        clock: Clock,
    ) -> None:
        """`keys` verify the answers of each system's connector."""
        self._keys = keys
        self._sequencer = sequencer
        self._completer = completer
        self._record = record
        self._alarms = alarms
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def serve(self, bus: Bus) -> None:
        """Answer on the bus from now on."""
        # From 0, so that the very first difference is a rise that an alert sees.
        for system in self._keys:
            for reason in KIND_OF:
                _differences.add(0, {"reason": reason, "system": system})
        await bus.serve(SUBJECT, QUEUE, pb.ReportRunsRequest, self.report, IN_FLIGHT_MAX)

    async def report(self, request: pb.ReportRunsRequest) -> pb.ReportRunsResponse:
        """Answer a step of a report."""
        async with self._one_at_a_time:
            if request.HasField("begin"):
                return await self._begin(request.begin)
            if request.HasField("page"):
                return await self._page(request.page)
        raise invalid("step", "is not given")

    async def _begin(self, begin: pb.BeginRunsReport) -> pb.ReportRunsResponse:
        self._check_day(begin.system, begin.day)
        reports = await self._record.reports(begin.system, begin.day)
        if reports >= REPORTS_MAX:
            raise NotReady("RUNS_REPORTS_MAX", f"{begin.day} has {reports} reports already")
        return pb.ReportRunsResponse(report=reports + 1, tree_size=self._sequencer.published.size)

    def _check_day(self, system: str, day: str) -> None:
        if system not in self._keys:
            raise NotAuthentic("RUNS_SYSTEM", "the ledger has no key of this system's connector")
        try:
            if _DAY.fullmatch(day) is None:
                raise ValueError
            end = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
        except ValueError:
            raise invalid("day", "is no day") from None
        now = self._clock.now()
        if now < end + timedelta(days=1) + GRACE:
            raise NotReady("DAY_NOT_OVER", f"{day} is not over")
        if now > end + timedelta(days=DAYS_BACK_MAX):
            raise invalid("day", f"is more than {DAYS_BACK_MAX} days ago")

    async def _page(self, signed: SignedRunsReport) -> pb.ReportRunsResponse:
        page = self._verified(signed)
        at = (page.system, page.day, page.report, page.page - 1)
        if page.page > 1 and not await self._record.has_page(*at):
            raise NotReady("RUNS_OUT_OF_ORDER", "the page before this one is not on record")
        if page.page == 1 and page.report > await self._record.reports(*at[:2]) + 1:
            raise NotReady("RUNS_OUT_OF_ORDER", "the report before this one is not on record")
        placed = await self._recorded(page, signed)
        response = pb.ReportRunsResponse(
            receipt=Receipt(index=placed.index, leaf=placed.leaf, tlog_proof=placed.tlog_proof)
        )
        if page.page == page.pages:
            differences = await self._compared(page)
            await self._alarms.raise_all(differences)
            response.differences = len(differences)
        return response

    def _verified(self, signed: SignedRunsReport) -> RunsReport:
        """Read the page, if it is the connector's and within bounds."""
        try:
            page = RunsReport.FromString(signed.report)
        except DecodeError:
            raise invalid("page", "cannot be read") from None
        self._check_day(page.system, page.day)
        try:
            self._keys[page.system].verify(RUNS_CONTEXT, signed.report, signed.signature)
        except BadSignature:
            raise NotAuthentic(
                "RUNS_SIGNATURE", "the report does not bear the signature of the system's connector"
            ) from None
        if not (1 <= page.report <= REPORTS_MAX and 1 <= page.page <= page.pages <= PAGES_MAX):
            raise invalid("page", "has a number out of bounds")
        if page.known_size > self._sequencer.published.size:
            raise invalid("known_size", "is more than this log has")
        if len(page.runs) > RUNS_MAX:
            raise invalid("runs", f"has more than {RUNS_MAX}")
        for run in page.runs:
            digests = (run.order_sha256, run.request_sha256, run.answer_sha256)
            if _SEARCH_ID.fullmatch(run.search_id) is None or {len(one) for one in digests} != {32}:
                raise invalid("runs", "has a run without a search or a digest")
        return page

    async def _recorded(self, page: RunsReport, signed: SignedRunsReport) -> Placed:
        pending = pb.PendingEntry(
            idempotency_key=page_key(page.system, page.day, page.report, page.page)
        )
        reported = pending.entry.runs_reported
        reported.system, reported.day, reported.report = page.system, page.day, page.report
        reported.page, reported.pages, reported.runs = page.page, page.pages, len(page.runs)
        reported.signed_report.CopyFrom(signed)
        (placed,) = await self._sequencer.append([self._completer.complete(pending, "page")])
        if placed.existing:
            recorded = type(pending.entry).FromString(placed.leaf).runs_reported.signed_report
            if recorded != signed:
                raise Conflict("RUNS_REPORT_TAKEN", "another report is on record in this place")
        return placed

    async def _compared(self, last: RunsReport) -> list[Difference]:
        """Find the differences of the report of which this is the last page."""
        system, day = last.system, last.day
        size = self._sequencer.published.size
        decided = await self._record.decided(system, day, size)
        ended = await self._record.ended(system, day, decided, size)
        ends = {end.search_id: end for end in ended}
        told = await self._record.reported(system, day)
        differences: list[Difference] = []
        for reported in told.runs:
            search_id = reported.run.search_id
            known, end = decided.get(search_id), ends.get(search_id)
            if known is None or end is None:
                # Of another day or none; or not ended within so many days, or not at all.
                known, end = await self._record.search(search_id)
            found = of_run(reported, day, system, known, end)
            if found is not None:
                differences.append(found)
        had_to_be_there = [end for end in ended if end.index < last.known_size]
        reported_ids = {reported.run.search_id for reported in told.runs}
        return differences + not_reported(had_to_be_there, day, reported_ids)
