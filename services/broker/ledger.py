"""The broker's hand on the ledger: appends gathered into few messages, and look-ups.

Invariant: `append` returns only what the ledger has made durable. When it raises, the entry may or may
not be on record; callers append again with the same idempotency key, or give up and say so.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from broker.record import Record
from countersign.ledger.v1.append_pb2 import (
    Appended,
    AppendRequest,
    AppendResponse,
    ListOpenSearchesRequest,
    ListOpenSearchesResponse,
    ListSearchesRequest,
    ListSearchesResponse,
    LookUpSearchRequest,
    LookUpSearchResponse,
    PendingEntry,
)
from shared import telemetry
from shared.bus import Bus
from shared.errors import Broken, InvalidRequest, Overloaded, ServiceError

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5
"""An append waits for one fsync, and for a restart of the ledger at most once."""
BATCH_ENTRIES_MAX: Final = 256
"""The ledger takes no more in one message."""
BATCH_BYTES_MAX: Final = 512 * 1024
"""Keeps request and response, which carries the proofs, well below the bus's message size."""
WAITING_MAX: Final = 4096
"""Past this the broker refuses instead of letting calls pile up."""
MESSAGES_IN_FLIGHT_MAX: Final = 4
"""One being committed, the others on their way: enough to keep the ledger busy."""

_append_duration = telemetry.meter.create_histogram(
    "countersign.ledger.append.duration",
    unit="s",
    description="From handing an entry to the ledger until it is durable",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


@dataclass(eq=False)
class _Waiting:
    pending: PendingEntry
    size: int
    done: asyncio.Future[Appended] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Ledger:
    """Appends and look-ups over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: list[_Waiting] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def append(self, pending: PendingEntry) -> Appended:
        """Makes an entry durable. Raises ServiceError."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded(
                "LEDGER_BUSY", f"{WAITING_MAX} entries wait for the ledger", retry_after_s=1
            )
        started = time.perf_counter()
        waiting = _Waiting(pending, pending.ByteSize())
        self._waiting.append(waiting)
        self._send_more()
        try:
            return await asyncio.shield(waiting.done)
        finally:
            _append_duration.record(time.perf_counter() - started)

    def _send_more(self) -> None:
        while self._waiting and len(self._sending) < MESSAGES_IN_FLIGHT_MAX:
            task = asyncio.create_task(self._send_batch())
            self._sending.add(task)
            task.add_done_callback(self._sent)
            if len(self._sending) * BATCH_ENTRIES_MAX >= len(self._waiting):
                break

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("append failed", exc_info=error)
        self._send_more()

    async def _send_batch(self) -> None:
        # One turn of the loop, so that entries that come together go together.
        await asyncio.sleep(0)
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ENTRIES_MAX and size < BATCH_BYTES_MAX:
            batch.append(self._waiting.pop(0))
            size += batch[-1].size
        if not batch:
            return
        try:
            await self._append_together(batch)
        finally:
            # Whatever befell: nobody may wait for ever for a batch that is no longer under way.
            _fail(batch, Broken("LEDGER_ANSWER", "whether the entry is on record is not known"))

    async def _append_together(self, batch: list[_Waiting]) -> None:
        request = AppendRequest(entries=[waiting.pending for waiting in batch])
        try:
            response = await self._bus.request("ledger.append", request, AppendResponse, TIMEOUT_S)
            if len(response.appended) != len(batch):
                raise Broken("LEDGER_ANSWER", "the ledger answered for another number of entries")
        except ServiceError as error:
            if len(batch) == 1 or not isinstance(error, InvalidRequest):
                _fail(batch, error)
                return
            # One bad entry must not sink the others.
            for waiting in batch:
                await self._append_together([waiting])
            return
        for waiting, appended in zip(batch, response.appended, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(appended)

    async def look_up(self, search_id: str) -> Record | None:
        """What is on record of a search. Raises ServiceError."""
        request = LookUpSearchRequest(search_id=search_id)
        found = await self._bus.request(
            "ledger.look_up_search", request, LookUpSearchResponse, TIMEOUT_S
        )
        record = _record(found)
        if record is not None and record.search_id != search_id:
            raise Broken("LEDGER_ANSWER", "the ledger answered with another search")
        return record

    async def open_searches(self) -> list[Record]:
        """Every permitted search without an end. Raises ServiceError."""
        records: list[Record] = []
        start = 0
        while True:
            page = await self._bus.request(
                "ledger.list_open_searches",
                ListOpenSearchesRequest(start_index=start),
                ListOpenSearchesResponse,
                TIMEOUT_S,
            )
            records += [Record.from_receipts(decided, None) for decided in page.decided]
            if page.next_index <= start:
                return records
            start = page.next_index

    async def searches_of(self, agency: str, page_size: int, before_index: int) -> list[Record]:
        """An agency's searches, newest first. Raises ServiceError."""
        request = ListSearchesRequest(
            origin_agency=agency, page_size=page_size, before_index=before_index
        )
        page = await self._bus.request(
            "ledger.list_searches", request, ListSearchesResponse, TIMEOUT_S
        )
        records = [record for found in page.searches if (record := _record(found)) is not None]
        if any(record.origin_agency != agency for record in records):
            raise Broken("LEDGER_ANSWER", "the ledger answered with another agency's search")
        return records


def _fail(batch: list[_Waiting], error: ServiceError) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)
            waiting.done.exception()  # a caller that has gone must not leave a warning


def _record(found: LookUpSearchResponse) -> Record | None:
    if not found.HasField("decided"):
        return None
    return Record.from_receipts(found.decided, found.ended if found.HasField("ended") else None)
