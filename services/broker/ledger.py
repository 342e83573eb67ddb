"""The broker's hand on the ledger: appends gathered into few messages, and look-ups.

Invariant: `append` returns only what the ledger has made durable. When it raises, the entry may or may
not be on record; callers append again with the same idempotency key, or give up and say so.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.batching import Batcher, Bounds
from broker.record import Record
from countersign.ledger.v1.append_pb2 import (
    Appended,
    AppendRequest,
    AppendResponse,
    GetReceiptsRequest,
    GetReceiptsResponse,
    ListOpenSearchesRequest,
    ListOpenSearchesResponse,
    ListSearchesRequest,
    ListSearchesResponse,
    ListTakenBackSearches,
    LookUpSearchRequest,
    LookUpSearchResponse,
    PendingEntry,
)
from countersign.ledger.v1.ledger_pb2 import GetReceiptRequest
from countersign.type.v1.decision_pb2 import Receipt
from shared import telemetry
from shared.bus import Bus
from shared.clock import stamp
from shared.errors import Broken, Unavailable

TIMEOUT_S: Final = 5
"""An append waits for one fsync, and for a restart of the ledger at most once."""
BOUNDS: Final = Bounds(
    # The ledger takes no more in one message.
    items=256,
    # Keeps request and response, which carries the proofs, well below the bus's message size.
    size=512 * 1024,
    waiting=4096,
    # One being committed, one on its way if it is worth it: each costs the ledger a commit with its fsyncs
    # and its checkpoint, and the bus two messages.
    messages=2,
    alongside=64,
    patience_s=TIMEOUT_S,
)
RECEIPTS_BOUNDS: Final = replace(
    BOUNDS,
    # The ledger gives no more in one message, and each waits for the next checkpoint that witnesses cosign.
    items=64,
    messages=8,
    alongside=1,
)

_append_duration = telemetry.meter.create_histogram(
    "countersign.ledger.append.duration",
    unit="s",
    description="From handing an entry to the ledger until it is durable",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


class Ledger:
    """Appends and look-ups over the bus."""

    def __init__(self, bus: Bus, under_way: Callable[[], int] = lambda: 0) -> None:
        """`under_way` gives how many searches are: the more, the longer an append waits for company."""
        self._bus = bus
        self._witnesses = Batcher[GetReceiptRequest, Receipt](
            "WITNESSES", self._send_for_receipts, RECEIPTS_BOUNDS, under_way
        )
        self._batcher = Batcher[PendingEntry, Appended]("LEDGER", self._send, BOUNDS, under_way)

    async def append(self, pending: PendingEntry, until: float | None = None) -> Appended:
        """Makes an entry durable. Raises ServiceError. It is not begun after `until`, by the loop's clock."""
        if not telemetry.switch.on:
            return await self._batcher.ask(pending, until)
        started = time.perf_counter()
        try:
            return await self._batcher.ask(pending, until)
        finally:
            _append_duration.record(time.perf_counter() - started)

    async def end(self, record: Record, pending: PendingEntry) -> Record:
        """The search with its end: this one, or the one that was recorded before. Raises ServiceError."""
        appended = await self.append(pending)
        ended = record.ended_by(appended.receipt)
        if ended.end is None or ended.end.search_id != record.search_id:
            raise Broken("LEDGER_ANSWER", "the ledger answered with another search's end")
        return ended

    async def _send(self, entries: list[PendingEntry], within_s: float) -> Sequence[Appended]:
        request = AppendRequest()
        for entry in entries:
            request.entries.add().CopyFrom(entry)
        response = await self._bus.request(
            "ledger.append", request, AppendResponse, TIMEOUT_S, within_s
        )
        return response.appended

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

    async def witnessed(self, record: Record, wait_s: float) -> Receipt:
        """The decision's receipt with the quorum of the ledger's witnesses. Raises ServiceError."""
        asked = GetReceiptRequest(index=record.decided.index)
        asked.wait.FromTimedelta(timedelta(seconds=wait_s))
        receipt = await self._witnesses.ask(asked)
        if receipt.leaf != record.decided.leaf:
            raise Broken("LEDGER_ANSWER", "the ledger answered with another entry's receipt")
        return receipt

    async def _send_for_receipts(
        self, asked: list[GetReceiptRequest], within_s: float
    ) -> Sequence[Receipt]:
        wait = asked[0].wait
        request = GetReceiptsRequest(indexes=[one.index for one in asked], wait=wait)
        timeout_s = TIMEOUT_S + wait.seconds
        found = await self._bus.request(
            "ledger.get_receipts", request, GetReceiptsResponse, timeout_s, within_s
        )
        if not found.witnessed:
            raise Unavailable(
                "DECISION_UNWITNESSED",
                f"recorded, and not sent yet, for the quorum of witnesses is missing ({found.lacking}); "
                "try again with the same id",
                retry_after_s=1,
            )
        return found.receipts

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

    async def taken_back(self, start: int, now: datetime) -> tuple[list[Record], int]:
        """Searches that ended at or after an index without the peer that they were referred to, newest first.

        And from which index to ask the next time. A ledger of before knows of none. Raises ServiceError.
        """
        records: list[Record] = []
        wanted = ListTakenBackSearches(start_index=start, deadline_after=stamp(now))
        following = start
        while True:
            page = await self._bus.request(
                "ledger.list_open_searches",
                ListOpenSearchesRequest(taken_back=wanted),
                ListOpenSearchesResponse,
                TIMEOUT_S,
            )
            records += [record for one in page.taken_back if (record := _record(one)) is not None]
            # Of the first page: what comes while the others are read is for the next time.
            following = following if wanted.before_index else max(start, page.tree_size)
            if not 0 < page.before_index < (wanted.before_index or page.tree_size):
                return records, following
            wanted.before_index = page.before_index

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


def _record(found: LookUpSearchResponse) -> Record | None:
    if not found.HasField("decided"):
        return None
    return Record.from_receipts(found.decided, found.ended if found.HasField("ended") else None)
