"""LedgerQueryService: finds, counts and exports entries."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, Protocol

from google.protobuf.message import Message

from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import EntryRecord
from countersign.ledger.v1.query_pb2_grpc import LedgerQueryServiceServicer
from ledger.archive import Archive, Receipt
from ledger.entry import Completer
from ledger.index_process import IndexProcess
from ledger.index_queries import GROUPS_MAX
from ledger.page_tokens import not_given, read_token, token
from ledger.query_filters import (
    dimensions_of,
    public_json,
    question_of,
    shopping_question_of,
    text_of,
)
from ledger.questions import Question
from ledger.sequencer import Placed
from ledger.tree import Published
from ledger.writer import Writer
from shared.errors import InvalidRequest
from shared.identity import SpiffeId
from shared.kinds import KINDS
from shared.rpc import Context, caller

SERVICE: Final = "countersign.ledger.v1.LedgerQueryService"
RPCS: Final = (
    *("QueryEntries", "CountEntries", "WatchQuery", "ExportEntries"),
    "FindRouteShopping",
)

PAGE_DEFAULT: Final = 100
SHOPPING_PAGE: Final = 20
WATCH_PAGE: Final = 100
WATCH_EVERY_S: Final = 0.25
"""A watcher looks at most this often: many entries may come in between, and few may match."""
EXPORT_PAGE: Final = 200
EXPORT_MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""No further row is put into a message that has come to this."""
INDEXES_PAGE: Final = 10_000
_PERIOD_CLOSED: Final = KINDS["period_closed"]


class OpeningsFinder(Protocol):
    """Looks for entries by what only openings hold."""

    async def find(self, reader: SpiffeId, match: pb.OpeningMatch) -> list[int]:
        """Find the entries that bear a value, for a reader entitled to it, on record before it returns.

        Raises NotAllowed.
        """


class LedgerQueryServicer(LedgerQueryServiceServicer):
    """Translates; the index finds and the archive reads and proves."""

    def __init__(
        self,
        archive: Archive,
        sequencer: Writer,
        index: IndexProcess,
        completer: Completer,
        openings: OpeningsFinder,
    ) -> None:
        self._archive = archive
        self._sequencer = sequencer
        self._index = index
        self._completer = completer
        self._openings = openings

    async def QueryEntries(  # noqa: N802
        self, request: pb.QueryEntriesRequest, context: Context
    ) -> pb.QueryEntriesResponse:
        """See query.proto."""
        wanted = request.filter
        start, size = self._continued(request.page_token, wanted)
        question = await self._question(wanted, size, context, start)
        page = await self._index.page(question, request.page_size or PAGE_DEFAULT)
        found = await self._archive.found(size, page.indexes, with_proofs=request.with_receipts)
        following = page.next_index
        if len(found.records) < len(page.indexes):
            following = page.indexes[len(found.records)]
        return pb.QueryEntriesResponse(
            basis=pb.Basis(tree_size=size, root=found.root, checkpoint=found.note),
            entries=[_found(one) for one in found.records],
            next_page_token="" if following is None else token(following, size, wanted),
        )

    async def CountEntries(  # noqa: N802
        self, request: pb.CountEntriesRequest, context: Context
    ) -> pb.CountEntriesResponse:
        """See query.proto."""
        size = self._sequencer.published.size
        question = await self._question(request.filter, size, context)
        dimensions = dimensions_of(request.group_by)
        counts = await self._index.count(question, dimensions)
        if counts.groups is None:
            raise InvalidRequest(
                "TOO_MANY_GROUPS",
                f"more than {GROUPS_MAX} groups; ask for fewer dimensions, or of fewer entries",
            )
        found = await self._archive.found(size, (), with_proofs=False)
        return pb.CountEntriesResponse(
            basis=pb.Basis(tree_size=size, root=found.root, checkpoint=found.note),
            groups=[
                pb.EntryGroup(
                    values=[
                        text_of(dimension, value)
                        for dimension, value in zip(dimensions, group.values, strict=False)
                    ],
                    entries=group.entries,
                    candidates_returned=group.candidates,
                )
                for group in counts.groups
            ],
            entries=counts.entries,
        )

    async def WatchQuery(  # noqa: N802
        self, request: pb.WatchQueryRequest, context: Context
    ) -> AsyncIterator[pb.WatchQueryResponse]:
        """See query.proto."""
        question = await self._question(request.filter, 0, context)
        at, end = question.start_index, question.end_index
        while end is None or at < end:
            size = (await self._sequencer.grown(at)).size
            # What openings hold is not looked through again.
            wanted = replace(question, size=size, start_index=at)
            page = await self._index.page(wanted, WATCH_PAGE)
            found = await self._archive.found(size, page.indexes, with_proofs=False)
            for one in found.records:
                yield pb.WatchQueryResponse(record=_record(one))
            if len(found.records) < len(page.indexes):
                at = page.indexes[len(found.records)]
            elif page.next_index is not None:
                at = page.next_index
            else:
                at = size
                await asyncio.sleep(WATCH_EVERY_S)

    async def ExportEntries(  # noqa: N802
        self, request: pb.ExportEntriesRequest, context: Context
    ) -> AsyncIterator[pb.ExportEntriesResponse]:
        """See query.proto."""
        size = self._sequencer.published.size
        question = await self._question(request.filter, size, context)
        digest, rows = hashlib.sha256(), 0
        async for indexes in self._pages(question):
            rows += len(indexes)
            digest.update(b"".join(index.to_bytes(8, "big") for index in indexes))
        made = await self._record_export(request, caller(context), size, rows, digest.digest())
        published = self._sequencer.published
        tree = await self._archive.found(size, (), with_proofs=False)
        yield pb.ExportEntriesResponse(
            beginning=pb.ExportBeginning(
                basis=pb.Basis(tree_size=size, root=tree.root, checkpoint=tree.note),
                export_made=_found(Receipt(made.index, made.leaf, made.tlog_proof)),
                checkpoint=published.note,
            )
        )
        async for indexes in self._pages(question):
            async for part in self._rows(published, indexes):
                yield pb.ExportEntriesResponse(rows=part)
        periods = Question(size=size, kinds=(_PERIOD_CLOSED,))
        async for indexes in self._pages(periods):
            async for part in self._rows(published, indexes):
                overlapping = [one for one in part.rows if _overlaps(one.leaf, question)]
                if overlapping:
                    yield pb.ExportEntriesResponse(periods=pb.ExportRows(rows=overlapping))

    async def FindRouteShopping(  # noqa: N802
        self, request: pb.FindRouteShoppingRequest, context: Context
    ) -> pb.FindRouteShoppingResponse:
        """See query.proto."""
        asked_anew = pb.FindRouteShoppingRequest()
        asked_anew.CopyFrom(request)
        for field in ("page_token", "page_size", "with_receipts"):
            asked_anew.ClearField(field)
        start, size = self._continued(request.page_token, asked_anew)
        indexes = None
        if request.HasField("opening"):
            indexes = await self._openings.find(caller(context), request.opening)
        wanted = shopping_question_of(request, size, start, indexes)
        page = await self._index.shopping(wanted, request.page_size or SHOPPING_PAGE)
        # What does not fit into an answer is of the first refusals.
        listed = [(one.permit, *reversed(one.last_refusals)) for one in page.cases]
        found = await self._archive.found(
            size, [index for one in listed for index in one], with_proofs=request.with_receipts
        )
        records = iter(found.records)
        response = pb.FindRouteShoppingResponse(
            basis=pb.Basis(tree_size=size, root=found.root, checkpoint=found.note)
        )
        following = page.next_index
        for case, wanted_of in zip(page.cases, listed, strict=True):
            attempts = [_found(one) for one in islice(records, len(wanted_of))]
            if len(attempts) < len(wanted_of) and response.found:
                following = case.permit  # the answer is full
                break
            response.found.add(
                attempts=reversed(attempts), refusals=case.refusals, refused_routes=case.routes
            )
        if following is not None:
            response.next_page_token = token(following, size, asked_anew)
        return response

    def _continued(self, page_token: str, question: Message) -> tuple[int, int]:
        """Where a list goes on, in the tree of which size; raises InvalidRequest."""
        size = self._sequencer.published.size
        if not page_token:
            return 0, size
        start, asked_of = read_token(page_token, question)
        if not start <= asked_of <= size:
            raise not_given()
        return start, asked_of

    async def _question(
        self, wanted: pb.EntryFilter, size: int, context: Context, start: int = 0
    ) -> Question:
        found = None
        question_of(wanted, size)  # a question that cannot be asked is not put on record
        if wanted.HasField("opening"):
            found = await self._openings.find(caller(context), wanted.opening)
        question = question_of(wanted, size, found)
        return replace(question, start_index=max(start, question.start_index))

    async def _pages(self, question: Question) -> AsyncIterator[list[int]]:
        at: int | None = question.start_index
        while at is not None:
            page = await self._index.page(replace(question, start_index=at), INDEXES_PAGE)
            yield page.indexes
            at = page.next_index

    async def _rows(
        self, published: Published, indexes: Sequence[int]
    ) -> AsyncIterator[pb.ExportRows]:
        for at in range(0, len(indexes), EXPORT_PAGE):
            part, part_bytes = pb.ExportRows(), 0
            for index, leaf, hashes in await self._archive.proved(
                published, indexes[at : at + EXPORT_PAGE]
            ):
                part.rows.add(index=index, leaf=leaf, hashes=hashes)
                part_bytes += len(leaf) + 32 * len(hashes)
                if part_bytes > EXPORT_MESSAGE_BYTES_MAX:
                    yield part
                    part, part_bytes = pb.ExportRows(), 0
            if part.rows:
                yield part

    async def _record_export(
        self,
        request: pb.ExportEntriesRequest,
        reader: SpiffeId,
        size: int,
        rows: int,
        indexes_sha256: bytes,
    ) -> Placed:
        """Put an export on record; raises what an append raises, and then nothing leaves."""
        pending = PendingEntry()
        made = pending.entry.export_made
        made.caller = str(reader)
        made.format = request.format
        made.query = public_json(request.filter)
        made.tree_size = size
        made.rows = rows
        made.indexes_sha256 = indexes_sha256
        made.authority = request.authority
        if request.filter.HasField("opening"):
            pending.sensitive.add(field="searched_value", value=request.filter.opening.value)
        (placed,) = await self._sequencer.append(await self._completer.completed([pending]))
        return placed


def _overlaps(leaf: bytes, question: Question) -> bool:
    closed = Entry.FromString(leaf).period_closed
    end = question.size if question.end_index is None else question.end_index
    return closed.first_index < end and closed.end_index > question.start_index


def _found(receipt: Receipt) -> pb.FoundEntry:
    return pb.FoundEntry(record=_record(receipt), tlog_proof=receipt.tlog_proof)


def _record(receipt: Receipt) -> EntryRecord:
    return EntryRecord(index=receipt.index, leaf=receipt.leaf, entry=Entry.FromString(receipt.leaf))
