"""The ledger's side of the bus for documents: directives, their withdrawals, registries (append.proto).

Invariant: the documents are one chain. Each names the one before it, and bears an idempotency key made of
that name, so that at most one document ever follows another: of two publishers that know the same last
document, one is told what the other has published. Whoever follows the chain knows that nothing was left out.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1 import decision_pb2
from countersign.type.v1.decision_pb2 import Decision
from ledger.archive import Archive, Receipt
from ledger.entry import DOCUMENT_KEYS, Completer, Opening
from ledger.requests import invalid, known_index
from ledger.writer import Writer
from shared.bus import Bus
from shared.errors import InvalidRequest
from shared.kinds import DOCUMENTS, REGISTRATIONS

QUEUE: Final = "ledger"
IN_FLIGHT_MAX: Final = 16
"""A few policy services, each of which asks one question at a time."""
PAGE_DOCUMENTS_MAX: Final = 256
PAGE_BYTES_MAX: Final = 1024 * 1024
"""With one more document of at most 200 kB still far below the bus's bound on a message."""
_DECISIONS: Final = frozenset({"search_decided", "search_checked"})


class DocumentService:
    """Translates; the sequencer writes and the archive answers."""

    def __init__(
        self,
        completer: Completer,
        sequencer: Writer,
        archive: Archive,
        opened: Callable[[Sequence[int]], Awaitable[Mapping[int, Sequence[Opening]]]],
        fresh: Callable[[], Awaitable[None]] | None = None,
        heard: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`opened` gives the openings of entries that have any; `heard` is told of a document more."""
        self._heard = heard
        self._opened = opened
        self._completer = completer
        self._sequencer = sequencer
        self._archive = archive
        self._fresh = fresh
        self._head: int | None = None
        self._counting: int | None = None
        """The newest that changes what is decided: a part of a registration does not, before its last."""

    async def begin(self) -> None:
        """Find the newest document, as the only writer."""
        for kind in DOCUMENTS:
            for index, leaf in await self._archive.newest(kind, 0, 1):
                self._take(index, Entry.FromString(leaf))
        # Parts that were recorded last may have others of their kind before them that count.
        self._counting = self._head

    def _take(self, index: int, document: Entry) -> None:
        self._head = index if self._head is None else max(index, self._head)
        if _counts(document):
            self._counting = index if self._counting is None else max(index, self._counting)

    def check_newest(self, entry: Entry, place: str) -> None:
        """Raise InvalidRequest for a decision that was made without the newest document.

        Whoever was told that a document is on record is decided by it: a policy service that has not heard of
        it yet is asked again.
        """
        kind = entry.WhichOneof("event")
        if kind not in _DECISIONS:
            return
        decision: Decision = getattr(entry, kind).decision
        known = decision.documents_index if decision.HasField("documents_index") else None
        # Also where directives are files: once some are on record, a folder is not what binds any more.
        before, newest = (-1 if at is None else at for at in (self._counting, self._head))
        if not before <= (-1 if known is None else known) <= newest:
            raise InvalidRequest(
                "DECISION_OUTDATED",
                f"{place} was decided by the documents up to {known}; the newest is {self._head}",
                metadata={} if self._head is None else {"documents_index": str(self._head)},
            )

    async def serve(self, bus: Bus) -> None:
        """Answer on the bus from now on."""
        await bus.serve(
            "ledger.publish", QUEUE, pb.PublishDocumentRequest, self.publish, IN_FLIGHT_MAX
        )
        for subject, handler in (
            ("ledger.list_documents", self.list),
            ("ledger.list_public_documents", self.list_public),
        ):
            await bus.serve(subject, QUEUE, pb.ListDocumentsRequest, handler, IN_FLIGHT_MAX)

    async def publish(self, request: pb.PublishDocumentRequest) -> pb.PublishDocumentResponse:
        """Make a document durable, unless another came first."""
        pending = pb.PendingEntry()
        pending.CopyFrom(request.document)
        if pending.idempotency_key:
            raise invalid("document.idempotency_key", "is the ledger's to set")
        previous = None
        if pending.entry.HasField("previous_document"):
            previous = known_index(
                pending.entry.previous_document, "document.entry.previous_document"
            )
            await self._archive.document(previous)
        pending.idempotency_key = key_after(previous)
        try:
            (placed,) = await self._sequencer.append(await self._completer.completed([pending]))
            # Before anything is awaited: from now on a decision without it is outdated.
            self._take(placed.index, Entry.FromString(placed.leaf))
        finally:
            if self._heard is not None:  # also when it may be on record though that is not known
                await self._heard()
        receipt = decision_pb2.Receipt(
            index=placed.index, leaf=placed.leaf, tlog_proof=placed.tlog_proof
        )
        return pb.PublishDocumentResponse(
            appended=pb.Appended(receipt=receipt, existing=placed.existing)
        )

    async def list(self, request: pb.ListDocumentsRequest) -> pb.ListDocumentsResponse:
        """Give documents in their order, with what opens their commitments."""
        found = await self._after(request)
        openings = await self._opened(
            [one.index for one in found if Entry.FromString(one.leaf).commitments]
        )
        return _told(found, openings)

    async def list_public(self, request: pb.ListDocumentsRequest) -> pb.ListDocumentsResponse:
        """Give documents in their order, as everybody may read them."""
        return _told(await self._after(request), {})

    async def _after(self, request: pb.ListDocumentsRequest) -> Sequence[Receipt]:
        after = None
        if request.HasField("after_index"):
            after = known_index(request.after_index, "after_index")
            # Whoever knows of one that is not here follows another log, or one that was restored.
            await self._archive.document(after)
        if self._fresh is not None:
            await self._fresh()
        found = await self._archive.chain(key_after, after, PAGE_DOCUMENTS_MAX)
        for one in found:  # also what was recorded though its publisher was told that it was not
            self._take(one.index, Entry.FromString(one.leaf))
        return found


def _told(
    found: Sequence[Receipt], openings: Mapping[int, Sequence[Opening]]
) -> pb.ListDocumentsResponse:
    response = pb.ListDocumentsResponse()
    for one in found:
        if response.ByteSize() > PAGE_BYTES_MAX:
            break  # with their openings, documents may be larger than a page of entries
        told = response.documents.add()
        receipt = told.receipt
        receipt.index, receipt.leaf, receipt.tlog_proof = one.index, one.leaf, one.tlog_proof
        for opening in openings.get(one.index, ()):
            told.openings.add(field=opening.field, value=opening.value)
    return response


def _counts(document: Entry) -> bool:
    kind = document.WhichOneof("event")
    if kind in REGISTRATIONS:
        registration = getattr(document, kind)
        return bool(registration.part == registration.parts)
    return True


def key_after(previous: int | None) -> str:
    """Give the key of the document that follows this one; None for the first of all."""
    return f"{DOCUMENT_KEYS}first" if previous is None else f"{DOCUMENT_KEYS}after/{previous}"
