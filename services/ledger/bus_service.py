"""The ledger's side of the bus: the broker's appends and look-ups (append.proto)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1 import decision_pb2
from ledger import archive
from ledger.archive import Archive, SearchOnRecord
from ledger.entry import Completer
from ledger.requests import invalid, known_index
from ledger.sequencer import Placed
from ledger.taken_back import TakenBack
from ledger.witnessed import WitnessedReceipts
from ledger.writer import Writer
from shared.bus import Bus

QUEUE: Final = "ledger"

ENTRIES_MAX: Final = 256
"""Entries of one AppendRequest, as its contract says."""
APPENDS_IN_FLIGHT_MAX: Final = 512
"""The sequencer bounds the entries that wait; this bounds what has not come so far."""
WITNESS_WAIT_S: Final = 3.0
WITNESS_WAIT_S_MAX: Final = 10.0
"""For witnesses, as the contract says."""
RECEIPTS_MAX: Final = 64
"""Of one GetReceiptsRequest: with the checkpoint and its cosignatures each may take 10 kB."""
LOOK_UPS_IN_FLIGHT_MAX: Final = 256
OPEN_SEARCHES_MAX: Final = 1000
SEARCHES_MAX: Final = 100
SEARCHES_DEFAULT: Final = 20


class BusService:
    """Translates; the sequencer writes and the archive answers."""

    def __init__(
        self,
        completer: Completer,
        sequencer: Writer,
        archive: Archive,
        witnessed: WitnessedReceipts | None = None,
        fresh: Callable[[], Awaitable[None]] | None = None,
        check: Callable[[Entry, str], None] | None = None,
    ) -> None:
        """`check` says no to an entry that is sound by itself; raises InvalidRequest."""
        self._check = check
        self._fresh = fresh or _always_fresh
        self._witnessed = witnessed or WitnessedReceipts(archive, None)
        self._completer = completer
        self._sequencer = sequencer
        self._archive = archive

    async def serve(self, bus: Bus) -> None:
        """Answer on the bus from now on."""
        await bus.serve(
            "ledger.append", QUEUE, pb.AppendRequest, self.append, APPENDS_IN_FLIGHT_MAX
        )
        # The writer alone knows what witnesses have cosigned.
        await bus.serve(
            "ledger.get_receipts",
            QUEUE,
            pb.GetReceiptsRequest,
            self.get_receipts,
            LOOK_UPS_IN_FLIGHT_MAX,
        )
        await self.serve_look_ups(bus)

    async def serve_look_ups(self, bus: Bus) -> None:
        """Answer what writes nothing, as every replica does."""
        await bus.serve(
            "ledger.look_up_search",
            QUEUE,
            pb.LookUpSearchRequest,
            self.look_up_search,
            LOOK_UPS_IN_FLIGHT_MAX,
        )
        await bus.serve(
            "ledger.list_open_searches",
            QUEUE,
            pb.ListOpenSearchesRequest,
            self.list_open_searches,
            LOOK_UPS_IN_FLIGHT_MAX,
        )
        await bus.serve(
            "ledger.list_searches",
            QUEUE,
            pb.ListSearchesRequest,
            self.list_searches,
            LOOK_UPS_IN_FLIGHT_MAX,
        )

    async def append(self, request: pb.AppendRequest) -> pb.AppendResponse:
        """Make entries durable together."""
        if not 1 <= len(request.entries) <= ENTRIES_MAX:
            raise invalid("entries", f"{len(request.entries)} given; 1 to {ENTRIES_MAX} allowed")
        completed = await self._completer.completed(request.entries)
        # Last, with nothing waited for until they are queued.
        if self._check is not None:
            for number, pending in enumerate(request.entries):
                self._check(pending.entry, f"entries[{number}]")
        placed = await self._sequencer.append(completed)
        if request.promise == pb.PROMISE_WITNESSED:
            return await self._with_witnesses(request, placed)
        return _response(placed)

    async def _with_witnesses(
        self, request: pb.AppendRequest, placed: Sequence[Placed]
    ) -> pb.AppendResponse:
        """Wait for a quorum, for a while; the entries are durable whatever comes of it."""
        given = request.HasField("witness_wait")
        best = await self._witnessed.best(
            [one.index for one in placed],
            self._sequencer.published,
            _wait_s(request.witness_wait) if given else WITNESS_WAIT_S,
        )
        return pb.AppendResponse(
            appended=[
                pb.Appended(receipt=_receipt(receipt), existing=one.existing)
                for one, receipt in zip(placed, best.receipts, strict=True)
            ],
            witnessed=not best.lacking,
            lacking=best.lacking,
        )

    async def get_receipts(self, request: pb.GetReceiptsRequest) -> pb.GetReceiptsResponse:
        """Wait for a quorum, for a while, and give what there is then."""
        if not 1 <= len(request.indexes) <= RECEIPTS_MAX:
            raise invalid("indexes", f"{len(request.indexes)} given; 1 to {RECEIPTS_MAX} allowed")
        best = await self._witnessed.best(
            [known_index(one, "indexes") for one in request.indexes],
            self._sequencer.published,
            _wait_s(request.wait),
        )
        return pb.GetReceiptsResponse(
            receipts=[_receipt(one) for one in best.receipts],
            witnessed=not best.lacking,
            lacking=best.lacking,
        )

    async def look_up_search(self, request: pb.LookUpSearchRequest) -> pb.LookUpSearchResponse:
        """Give what is on record of a search."""
        if not request.search_id:
            raise invalid("search_id", "is not given")
        await self._fresh()
        return _on_record(await self._archive.search(request.search_id))

    async def list_open_searches(
        self, request: pb.ListOpenSearchesRequest
    ) -> pb.ListOpenSearchesResponse:
        """List the permitted searches without an end."""
        start = known_index(request.start_index, "start_index")
        await self._fresh()
        if request.HasField("taken_back"):
            return await self._list_taken_back(request.taken_back)
        found, following = await self._archive.open_searches(start, OPEN_SEARCHES_MAX)
        return pb.ListOpenSearchesResponse(
            decided=[_receipt(one) for one in found], next_index=following or 0
        )

    async def _list_taken_back(
        self, request: pb.ListTakenBackSearches
    ) -> pb.ListOpenSearchesResponse:
        wanted = TakenBack(
            known_index(request.start_index, "start_index"),
            known_index(request.before_index, "before_index"),
            request.deadline_after.seconds,
        )
        found, following, size = await self._archive.taken_back(wanted)
        return pb.ListOpenSearchesResponse(
            taken_back=[_on_record(one) for one in found],
            before_index=following or 0,
            tree_size=size,
        )

    async def list_searches(self, request: pb.ListSearchesRequest) -> pb.ListSearchesResponse:
        """List an agency's searches, newest first."""
        if not request.origin_agency:
            raise invalid("origin_agency", "is not given")
        await self._fresh()
        found = await self._archive.searches_of(
            request.origin_agency,
            known_index(request.before_index, "before_index"),
            min(request.page_size or SEARCHES_DEFAULT, SEARCHES_MAX),
        )
        return pb.ListSearchesResponse(searches=[_on_record(one) for one in found])


def _wait_s(wait: Duration) -> float:
    return max(0.0, min(wait.seconds + wait.nanos / 1e9, WITNESS_WAIT_S_MAX))


async def _always_fresh() -> None:
    """Nothing to make sure of: this process alone can have written."""


def _response(placed: Sequence[Placed]) -> pb.AppendResponse:
    """Made in place: messages that are put into others are copied each time."""
    response = pb.AppendResponse()
    for one in placed:
        appended = response.appended.add(existing=one.existing)
        receipt = appended.receipt
        receipt.index, receipt.leaf, receipt.tlog_proof = one.index, one.leaf, one.tlog_proof
    return response


def _receipt(receipt: archive.Receipt) -> decision_pb2.Receipt:
    return decision_pb2.Receipt(
        index=receipt.index, leaf=receipt.leaf, tlog_proof=receipt.tlog_proof
    )


def _on_record(search: SearchOnRecord) -> pb.LookUpSearchResponse:
    return pb.LookUpSearchResponse(
        decided=None if search.decided is None else _receipt(search.decided),
        ended=None if search.ended is None else _receipt(search.ended),
    )
