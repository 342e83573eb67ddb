"""The ledger's documents, followed over the bus by whoever makes something of them.

Invariants:
- What is applied was proved: each document with its inclusion under a checkpoint that a known log key signed,
  and the chain without a gap from the first.
- What is made of them is replaced as a whole: a document that comes meanwhile counts from the next request.
- Who has not heard from the ledger for a while gives nothing: a prohibition may have been published since.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Receipt
from shared import telemetry
from shared.bus import Bus
from shared.errors import NotReady, ServiceError, Unavailable
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.proof import verify_receipt

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How soon another policy service's publication is known here."""
FRESH_S: Final = 10.0
"""How long what was last heard is decided by; a restart of the ledger takes less."""
TIMEOUT_S: Final = 5.0

_known_index = telemetry.meter.create_gauge(
    "countersign.documents.index",
    unit="{entry}",
    description="Ledger index of the newest document that is applied",
)


class Documents(Protocol):
    """What documents come to, one after the other."""

    @property
    def head(self) -> int | None:
        """Index of the last that was applied; None before the first."""

    def follow(self, index: int, entry: Entry, openings: Mapping[str, str]) -> None:
        """Apply one that is on record. Raises what its owner says (`Reader.refusals`)."""


Kept = TypeVar("Kept", bound=Documents)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Reader(Generic[Kept, Made]):
    """Who follows, and what is made of the documents."""

    subject: str
    """Where the ledger tells of them, as far as the reader may know."""
    stale: str
    """What is said while nothing may be given: a reason."""
    make: Callable[[Kept], Made]
    refusals: tuple[type[Exception], ...]
    """How it is said that a document, or all together, cannot be applied."""


@dataclass(frozen=True)
class Source:
    """Whose documents are followed."""

    logs: Sequence[LogVerifier]
    publisher: str


class Following(Generic[Kept, Made]):
    """Follows the documents of one ledger."""

    def __init__(
        self, bus: Bus, documents: Kept, source: Source, reader: Reader[Kept, Made]
    ) -> None:
        """`documents` without any; it is changed here alone."""
        self._bus = bus
        self.documents = documents
        self._source = source
        self._reader = reader
        self._refusals: tuple[type[Exception], ...] = (*reader.refusals, TlogError, DecodeError)
        self._busy = asyncio.Lock()
        self._applied: Made | None = None
        self._applied_head: int | None = None
        self._heard = float("-inf")
        self.ended = asyncio.Event()
        """Set when what the ledger holds cannot be applied: nothing more can be decided."""

    def current(self) -> Made:
        """What counts now; raises Unavailable when that may be out of date."""
        if self._applied is None or not self.is_fresh:
            raise Unavailable(
                self._reader.stale,
                f"the ledger has not told of its documents for {FRESH_S:.0f} s: what counts is not known",
                retry_after_s=1,
            )
        return self._applied

    @property
    def is_fresh(self) -> bool:
        """Whether what counts is known."""
        return self._applied is not None and time.monotonic() - self._heard <= FRESH_S

    async def catch_up(self) -> Made:
        """Apply what the ledger has by now. Raises Unavailable, and NotReady for what cannot be applied.

        A caller that gives up does not leave it half-way.
        """
        caught_up = asyncio.ensure_future(self._caught_up())
        caught_up.add_done_callback(_noticed)
        return await asyncio.shield(caught_up)

    async def _caught_up(self) -> Made:
        try:
            return await self._apply_new()
        except ServiceError:
            raise
        except Exception as error:
            # What was applied in part must not be gone on from.
            log.exception("a document was applied in a way that nobody foresaw")
            self._applied = None
            self.ended.set()
            raise NotReady("DOCUMENT_NOT_APPLIED", "a document could not be applied") from error

    async def _apply_new(self) -> Made:
        async with self._busy:
            asked = time.monotonic()
            while True:
                request = pb.ListDocumentsRequest(after_index=self.documents.head)
                page = await self._bus.request(
                    self._reader.subject, request, pb.ListDocumentsResponse, TIMEOUT_S
                )
                if not page.documents:
                    break
                for one in page.documents:
                    self._follow(one)
            head = self.documents.head
            if self._applied is None or self._applied_head != head:
                self._applied = await asyncio.to_thread(self._made)
                self._applied_head = head
                source = {"messaging.destination.template": self._reader.subject}
                _known_index.set(-1 if head is None else head, source)
                log.info("documents applied", extra={"fields": {"index": head}})
            self._heard = asked
            return self._applied

    async def follow(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Catch up again and again, and tell when decisions can be made and when no longer.

        Ends only when what the ledger holds cannot be applied.
        """
        told = False
        while True:
            try:
                await self.catch_up()
            except NotReady as error:
                fields = {"reason": error.reason, "why": error.message}
                log.critical("cannot go on", extra={"fields": fields})
                self._applied = None
                self.ended.set()
            except ServiceError as error:
                log.warning("the ledger was not heard", extra={"fields": {"reason": error.reason}})
            if self.is_fresh != told:
                told = not told
                await tell(told)
            if self.ended.is_set():
                return
            await asyncio.sleep(POLL_S)

    def _follow(self, one: pb.Document) -> None:
        receipt = one.receipt
        try:
            openings = {opening.field: opening.value for opening in one.openings}
            self.documents.follow(receipt.index, self._proved(receipt), openings)
        except self._refusals as error:
            raise NotReady(
                "DOCUMENT_NOT_APPLIED",
                f"ledger entry {receipt.index} cannot be applied, and nothing is decided without it: {error}",
            ) from error

    def _proved(self, receipt: Receipt) -> Entry:
        refusals = []
        for one in self._source.logs:
            try:
                index, _ = verify_receipt(receipt.leaf, receipt.tlog_proof, one)
            except TlogError as error:
                refusals.append(str(error))
                continue
            if index != receipt.index:
                raise TlogError(f"its proof is of entry {index}")
            entry = Entry.FromString(receipt.leaf)
            if entry.recorded_by != self._source.publisher:
                raise TlogError(f"it was recorded by {entry.recorded_by}")
            return entry
        raise TlogError("; ".join(refusals))

    def _made(self) -> Made:
        try:
            return self._reader.make(self.documents)
        except self._reader.refusals as error:
            raise NotReady(
                "DOCUMENTS_NOT_APPLIED",
                f"what the ledger holds cannot be applied together: {error}",
            ) from error


def _noticed(done: asyncio.Future[Made]) -> None:
    """That it failed is for its caller; one that has gone must not leave a stack in the log."""
    if not done.cancelled():
        done.exception()


@contextlib.asynccontextmanager
async def followed(
    following: Following[Kept, Made], tell: Callable[[bool], Awaitable[None]]
) -> AsyncIterator[None]:
    """Followed while the context lasts: the ledger may be started later."""
    task = asyncio.create_task(following.follow(tell))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
