"""The only writer: takes entries from a queue, commits them together, signs, and answers.

Invariants:
- an appender is answered only after the transaction that holds its entries is durable;
- a checkpoint leaves this module only after the transaction that stores it is durable, so no two
  that are out in the world can contradict each other;
- when it is not known whether a commit happened, nothing more is written, everyone waiting is told
  so, and the process must end: the start after it reads what is on disk.

There is no timer: whatever has gathered while the last commit was under way is the next batch.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.batch import Batch
from ledger.entry import CompletedEntry
from ledger.guard import Guard, Tree
from ledger.keys import KeyUnavailable, LogKeys
from ledger.last_signed import Signed, SigningRefused
from ledger.storage import Head, Storage, StorageFailed, StorageInDoubt
from ledger.tree import Published, Receipts, Tiles
from shared import telemetry
from shared.errors import NotReady, Overloaded, ServiceError, Unavailable
from tlog.checkpoint import Checkpoint
from tlog.merkle import TreeAtSize, leaf_hash
from tlog.tiles import TreeEdge

log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 10.0
"""Bound on writing what is queued when the process is told to stop."""

_entries_appended = telemetry.meter.create_counter(
    "countersign.ledger.entries", unit="{entry}", description="Entries made durable"
)
_commit_duration = telemetry.meter.create_histogram(
    "countersign.ledger.commit.duration",
    unit="s",
    description="From taking a batch until it is durable",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


@dataclass(frozen=True)
class Limits:
    """Bounds of the writer."""

    batch_entries: int = 1000
    """Past this a larger batch gains nothing and the first in it wait longer."""
    batch_bytes: int = 1024 * 1024
    """No further request is taken into a batch that has come to this."""
    queue_entries: int = 8192
    """About a second of work; who comes later is better told so."""
    queue_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry on record, with its proof."""

    index: int
    leaf: bytes
    tlog_proof: str
    existing: bool
    """True when its idempotency key was on record already: this is that earlier entry."""


@dataclass(frozen=True, slots=True)
class _Request:
    entries: Sequence[CompletedEntry]
    size_bytes: int
    done: asyncio.Future[list[Placed]]


@dataclass(frozen=True)
class _Staged:
    """A tree that is signed and may be committed, and what is to be remembered of it."""

    following: Published
    tree: TreeAtSize
    signed: Signed


class Sequencer:
    """Puts entries in order and makes them durable. One per process."""

    def __init__(
        self,
        storage: Storage,
        keys: LogKeys,
        guard: Guard,
        published: Published,
        tiles: Tiles,
        limits: Limits,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._guard = guard
        self._published = published
        self._tiles = tiles
        self._limits = limits
        self._reading = storage.reading()
        self._loop = asyncio.get_running_loop()
        self._arrival = threading.Condition()
        self._queue: deque[_Request] = deque()
        self._queued_entries = 0
        self._queued_bytes = 0
        self._stopping = False
        self._grown = asyncio.Event()
        self._thread = threading.Thread(target=self._write_until_stopped, name="ledger-writer")
        self.ended = asyncio.Event()
        """Set when nothing more can be written by this process."""
        self.on_writable: Callable[[bool], None] = lambda _: None
        """Told on the loop when writing begins to fail, and when it works again."""
        self._writable = guard.obstacle() is None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    async def stop(self) -> None:
        """Write what is queued, then end the writer."""
        with self._arrival:
            self._stopping = True
            self._arrival.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)

    @property
    def published(self) -> Published:
        """The newest tree that is durable and signed."""
        return self._published

    @property
    def writable(self) -> bool:
        """Whether the last attempt to write succeeded, or the first may."""
        return self._writable

    def refuse_to_sign(self, refusal: SigningRefused) -> None:
        """Sign nothing more: something was learnt that a person must look at. Called on the loop."""
        self._guard.refuse(refusal)
        self._tell(writable=False)

    def look_again(self) -> None:
        """Tell whether it may sign, after that may have changed. Called on the loop."""
        self._tell(writable=self._guard.obstacle() is None)

    async def grown(self, size: int) -> Published:
        """Wait until the tree is larger than `size`."""
        while True:
            event = self._grown
            if self._published.size > size:
                return self._published
            await event.wait()

    async def append(self, entries: Sequence[CompletedEntry]) -> list[Placed]:
        """Make entries durable together; returns once they are, in their order.

        A caller that is cancelled does not take its entries back: they are appended all the same.
        Raises Overloaded when nothing was taken, Unavailable when it was not written or nobody
        knows; appending again with the same idempotency keys is then right.
        """
        assert 1 <= len(entries) <= self._limits.batch_entries, (
            "the door bounds the number of entries"
        )
        size_bytes = sum(len(one.leaf) for one in entries)
        request = _Request(entries, size_bytes, self._loop.create_future())
        with self._arrival:
            if self._stopping or self.ended.is_set():
                raise _not_writing()
            if (
                self._queued_entries + len(entries) > self._limits.queue_entries
                or self._queued_bytes + size_bytes > self._limits.queue_bytes
            ):
                raise Overloaded(
                    "LEDGER_BUSY",
                    f"{self._queued_entries} entries wait to be written",
                    retry_after_s=1,
                )
            self._queue.append(request)
            self._queued_entries += len(entries)
            self._queued_bytes += size_bytes
            self._arrival.notify()
        return await request.done

    # What follows runs on the writer's thread.

    def _write_until_stopped(self) -> None:
        while requests := self._take():
            try:
                self._write(requests)
            except Exception:
                log.exception("a batch failed in a way that nobody foresaw")
                self._abandon(requests)

    def _take(self) -> list[_Request]:
        """Wait for requests and take what has gathered, up to the cap; none when told to stop."""
        with self._arrival:
            while not self._queue and not self._stopping:
                self._arrival.wait()
            taken: list[_Request] = []
            count = size_bytes = 0
            while (
                self._queue
                and count + len(self._queue[0].entries) <= self._limits.batch_entries
                and size_bytes < self._limits.batch_bytes
            ):
                request = self._queue.popleft()
                taken.append(request)
                count += len(request.entries)
                size_bytes += request.size_bytes
            self._queued_entries -= count
            self._queued_bytes -= size_bytes
            return taken

    def _write(self, requests: list[_Request]) -> None:
        started = time.perf_counter()
        try:
            batch, staged = self._stage(requests)
        except (StorageFailed, ServiceError, SigningRefused, KeyUnavailable) as error:
            # Nothing can have become durable, and what was signed is dropped unseen: only these fail.
            if not isinstance(error, StorageInDoubt) and self._rolled_back():
                self._refuse(requests, error)
            else:
                self._abandon(requests)
            return
        if staged is None:
            self._storage.roll_back()
        elif not self._commit(requests, staged):
            return
        else:
            _entries_appended.add(len(batch.fresh))
            _commit_duration.record(time.perf_counter() - started)
        self._answer(requests, batch, None if staged is None else staged.tree)

    def _stage(self, requests: list[_Request]) -> tuple[Batch, _Staged | None]:
        """Put a batch into the transaction, all but its head, and sign its tree."""
        start = self._published.size
        self._storage.begin()
        entries = [request.entries for request in requests]
        keys = [e.idempotency_key for some in entries for e in some if e.idempotency_key]
        batch = Batch.placed(entries, self._storage.indexes_of(keys), start)
        if not batch.fresh:
            return batch, None
        if self._guard.refused is not None:
            raise self._guard.refused
        self._storage.add_entries(start, batch.fresh)
        # Hashed here from what was given, and by the guard from what the database gives back: a bit
        # that flipped on the way in, or in either computation, must not be signed.
        edge, full = self._published.edge.extended(leaf_hash(one.leaf) for one in batch.fresh)
        stored = self._storage.read_back(start)
        if stored != [one.leaf for one in batch.fresh]:
            raise NotReady("LEDGER_READ_BACK", "entries were read back other than written")
        self._storage.add_tiles(full)
        for one in full:
            self._tiles.keep(one)
        return batch, self._sign(edge, stored)

    def _sign(self, edge: TreeEdge, stored: list[bytes]) -> _Staged:
        before = self._published
        tree = Published(edge, before.checkpoint, "").at(edge.size, self._tiles, self._reading)
        proof = tree.consistency_proof(before.size) if before.size else []
        signed = self._guard.examine(stored, Tree(edge.size, tree.root, proof))
        checkpoint = Checkpoint(self._keys.origin, edge.size, tree.root)
        return _Staged(Published(edge, checkpoint, self._keys.sign(checkpoint)), tree, signed)

    def _commit(self, requests: list[_Request], staged: _Staged) -> bool:
        """Commit, and remember what was signed, before anybody sees it.

        A crash before the commit leaves the old head, after it the new one; the record follows at the
        next start.
        """
        following = staged.following
        try:
            head = Head(following.size, following.checkpoint.root, following.note)
            self._storage.set_head(self._published.size, head)
            self._storage.commit()
        except StorageFailed as error:
            if not isinstance(error, StorageInDoubt) and self._rolled_back():
                # The signed note is dropped here unseen.
                self._refuse(requests, error)
            else:
                self._abandon(requests)
            return False
        try:
            self._guard.record(staged.signed)
        except (SigningRefused, OSError) as error:
            log.error("what was signed is not remembered", exc_info=error)
            self._abandon(requests)
            return False
        self._published = following
        return True

    def _answer(self, requests: list[_Request], batch: Batch, tree: TreeAtSize | None) -> None:
        receipts = Receipts(self._published, self._tiles, self._reading, tree)
        leaves = {}
        first = self._published.size - len(batch.fresh)
        for offset, entry in enumerate(batch.fresh):
            leaves[first + offset] = entry.leaf
        results: list[list[Placed] | ServiceError] = []
        for places in batch.places:
            try:
                results.append([_placed(one, leaves, receipts) for one in places])
            except ServiceError as error:
                results.append(error)
        self._on_loop(self._resolve, requests, results, self._guard.refused is None)

    def _refuse(self, requests: list[_Request], error: Exception) -> None:
        log.error(
            "batch refused", extra={"fields": {"error": type(error).__name__}}, exc_info=error
        )
        if isinstance(error, (SigningRefused, KeyUnavailable)):
            reason, what = "LEDGER_REFUSES_TO_SIGN", "the ledger refuses to sign"
        else:
            reason, what = "LEDGER_WRITE_FAILED", "the ledger cannot write"
        refusal = Unavailable(reason, f"{what}; nothing was recorded", retry_after_s=1)
        self._on_loop(self._resolve, requests, [refusal] * len(requests), False)

    def _abandon(self, requests: list[_Request]) -> None:
        """Stop for good: whether the last batch is on disk is found out by the next start."""
        log.error("in doubt whether a batch is durable; nothing more is written")
        with self._arrival:
            self._stopping = True
            waiting = [*requests, *self._queue]
            self._queue.clear()
        self._on_loop(self._resolve, waiting, [_not_writing()] * len(waiting), False)
        self._on_loop(self.ended.set)

    def _rolled_back(self) -> bool:
        try:
            self._storage.roll_back()
        except StorageFailed:
            return False
        return True

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)

    # Back on the loop.

    def _resolve(
        self,
        requests: list[_Request],
        results: list[list[Placed] | ServiceError],
        written: bool,
    ) -> None:
        for request, result in zip(requests, results, strict=True):
            if request.done.done():
                continue  # its caller has gone; the entries are on record
            if isinstance(result, ServiceError):
                request.done.set_exception(result)
            else:
                request.done.set_result(result)
        if written:
            grown, self._grown = self._grown, asyncio.Event()
            grown.set()
        self._tell(writable=written)

    def _tell(self, *, writable: bool) -> None:
        if writable != self._writable:
            self._writable = writable
            self.on_writable(writable)


def _placed(place: tuple[int, bool], leaves: dict[int, bytes], receipts: Receipts) -> Placed:
    index, existing = place
    leaf = leaves.get(index)
    if leaf is None:
        leaf, proof = receipts.leaf_and_proof(index)
        return Placed(index, leaf, proof, existing)
    return Placed(index, leaf, receipts.proof(index), existing)


def _not_writing() -> Unavailable:
    return Unavailable(
        "LEDGER_STOPPED",
        "the ledger has stopped writing; whether the entries are on record is known after its restart",
        retry_after_s=1,
    )
