"""LedgerService: the ledger as any authenticated party reads it."""

from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.ledger.v1 import ledger_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceServicer
from countersign.type.v1.decision_pb2 import Receipt
from ledger.archive import Archive
from ledger.page_tokens import read_token, token
from ledger.reading import Filter
from ledger.requests import invalid, known_index
from ledger.witness_client import shown
from ledger.witnessed import WitnessedReceipts
from ledger.writer import Writer
from shared.kinds import KIND_MAX, KIND_MIN, KINDS, kind_of
from shared.rpc import Context

SERVICE: Final = "countersign.ledger.v1.LedgerService"
RPCS: Final = (
    "GetEntry",
    "ListEntries",
    "WatchEntries",
    "GetCheckpoint",
    "GetInclusionProof",
    "GetConsistencyProof",
    "GetReceipt",
)

PAGE_DEFAULT: Final = 100
WATCH_PAGE: Final = 100
"""Entries a watcher may have waiting in memory here; a slow one reads on from the file later."""


class LedgerServicer(LedgerServiceServicer):
    """Translates; the archive answers."""

    def __init__(
        self,
        archive: Archive,
        sequencer: Writer,
        verifier_key: str,
        witnessed: WitnessedReceipts | None = None,
    ) -> None:
        self._archive = archive
        self._witnessed = witnessed or WitnessedReceipts(archive, None)
        self._sequencer = sequencer
        self._verifier_key = verifier_key

    async def GetEntry(  # noqa: N802
        self, request: pb.GetEntryRequest, context: Context
    ) -> pb.GetEntryResponse:
        """See ledger.proto."""
        leaf = await self._archive.entry(known_index(request.index, "index"))
        return pb.GetEntryResponse(record=_record(request.index, leaf))

    async def ListEntries(  # noqa: N802
        self, request: pb.ListEntriesRequest, context: Context
    ) -> pb.ListEntriesResponse:
        """See ledger.proto."""
        start = known_index(request.start_index, "start_index")
        if request.page_token:
            start = max(start, read_token(request.page_token, question=_asked(request))[0])
        wanted = Filter(
            start_index=start,
            search_id=request.search_id or None,
            kind=_kind(request.kind),
            origin_agency=request.origin_agency or None,
        )
        page = await self._archive.page(wanted, request.page_size or PAGE_DEFAULT)
        return pb.ListEntriesResponse(
            records=[_record(index, leaf) for index, leaf in page.entries],
            next_page_token=""
            if page.next_index is None
            else token(page.next_index, question=_asked(request)),
        )

    async def WatchEntries(  # noqa: N802
        self, request: pb.WatchEntriesRequest, context: Context
    ) -> AsyncIterator[pb.WatchEntriesResponse]:
        """See ledger.proto."""
        at = known_index(request.start_index, "start_index")
        while True:
            await self._sequencer.grown(at)
            page = await self._archive.page(Filter(start_index=at), WATCH_PAGE)
            for index, leaf in page.entries:
                yield pb.WatchEntriesResponse(record=_record(index, leaf))
                at = index + 1

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        """See ledger.proto."""
        return pb.GetCheckpointResponse(
            checkpoint=self._sequencer.published.note, verifier_key=self._verifier_key
        )

    async def GetInclusionProof(  # noqa: N802
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.GetInclusionProofResponse:
        """See ledger.proto."""
        size, hashes, proof = await self._archive.inclusion_proof(
            known_index(request.index, "index"), known_index(request.tree_size, "tree_size")
        )
        return pb.GetInclusionProofResponse(tree_size=size, hashes=hashes, tlog_proof=proof)

    async def GetReceipt(  # noqa: N802
        self, request: pb.GetReceiptRequest, context: Context
    ) -> pb.GetReceiptResponse:
        """See ledger.proto."""
        index = known_index(request.index, "index")
        published = self._sequencer.published
        best = await self._witnessed.best(
            [index], published, request.wait.ToTimedelta().total_seconds()
        )
        (receipt,) = best.receipts
        cosignatures = [
            pb.Cosignature(witness=shown(name), cosigned_at=Timestamp(seconds=time_s))
            for name, time_s in best.cosigned.items()
        ]
        return pb.GetReceiptResponse(
            receipt=Receipt(index=index, leaf=receipt.leaf, tlog_proof=receipt.tlog_proof),
            tree_size=best.size,
            quorum=not best.lacking,
            cosignatures=cosignatures,
            lacking=best.lacking,
        )

    async def GetConsistencyProof(  # noqa: N802
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        """See ledger.proto."""
        size, hashes = await self._archive.consistency_proof(
            known_index(request.first_tree_size, "first_tree_size"),
            known_index(request.second_tree_size, "second_tree_size"),
        )
        return pb.GetConsistencyProofResponse(second_tree_size=size, hashes=hashes)


def _record(index: int, leaf: bytes) -> pb.EntryRecord:
    return pb.EntryRecord(index=index, leaf=leaf, entry=Entry.FromString(leaf))


def _kind(name: str) -> int | None:
    if not name:
        return None
    number = kind_of(name)
    if number is None:
        raise invalid(
            "kind", f"is not one of {', '.join(KINDS)}, nor a number from {KIND_MIN} to {KIND_MAX}"
        )
    return number


def _asked(request: pb.ListEntriesRequest) -> pb.ListEntriesRequest:
    """A token belongs to the question it was given for, with any page size."""
    return pb.ListEntriesRequest(
        start_index=request.start_index,
        search_id=request.search_id,
        kind=request.kind,
        origin_agency=request.origin_agency,
    )
