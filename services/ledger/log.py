"""Opens a ledger: its file, its tree checked against the signed checkpoint, its writer and reader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.archive import Archive
from ledger.guard import Guard
from ledger.keys import LogKey, LogKeys
from ledger.last_signed import LastSigned, SigningRefused
from ledger.reading import Reading
from ledger.sequencer import Limits, Sequencer
from ledger.storage import Database, Head, Storage
from ledger.tile_files import TileReader
from ledger.tree import Published, Tiles, load_published
from shared.clock import Clock, SystemClock
from shared.errors import NotReady
from tlog.checkpoint import Checkpoint
from tlog.merkle import EMPTY_ROOT

LIMITS: Final = Limits()

NOT_EVEN_READ: Final = ("LEDGER_FORKED", "LAST_SIGNED_OF_ANOTHER", "LAST_SIGNED_LOCKED")
"""Refusals after which not even what is stored may be shown: it is another history, or another's."""

WitnessSizes = Callable[[], Awaitable[Mapping[str, int]]]
"""Asks the witnesses for the size of this log that each has cosigned; those that do not answer are absent."""


@dataclass(frozen=True)
class Safeguards:
    """What is asked before anything is signed."""

    open_last_signed: Callable[[], LastSigned]
    clock: Clock = field(default_factory=SystemClock)
    witness_sizes: WitnessSizes | None = None


@dataclass(frozen=True)
class OpenLog:
    """A log that takes entries and answers questions."""

    sequencer: Sequencer
    archive: Archive
    tile_reader: Callable[[], TileReader]
    """Opens a reader of tiles, to be closed by whoever asked for it."""
    guard: Guard
    still_writes: Callable[[], Awaitable[None]]
    """Raises Unavailable when another replica writes by now."""


def begin_log(
    database: Database,
    keys: LogKeys | LogKey,
    open_last_signed: Callable[[], LastSigned] | None = None,
) -> None:
    """Begin a log without entries; raises NotReady when there is one already, or was one."""
    keys = _log_keys(keys)
    try:
        store = (open_last_signed or database.open_last_signed)()
        with contextlib.closing(store):
            last = store.read()
    except SigningRefused as refusal:
        raise _not_ready(refusal) from refusal
    if last is not None and last.size > 0:
        raise NotReady(
            "LEDGER_MISSING",
            f"there is no log in {database}, and {last.size} entries were signed for: an empty "
            "log under the same key would be a second history. Put the newest database in "
            "place, or restore a backup",
        )
    empty = Checkpoint(keys.origin, 0, EMPTY_ROOT)
    database.begin(Head(0, EMPTY_ROOT, keys.sign(empty)))


@contextlib.asynccontextmanager
async def opened(
    storage: Storage,
    keys: LogKeys | LogKey,
    limits: Limits = LIMITS,
    safeguards: Safeguards | None = None,
) -> AsyncIterator[OpenLog]:
    """Open the log that is stored; closes the storage at the end. Raises NotReady if it is damaged.

    A log that a guard does not let sign is opened all the same, to be read; see `Guard.refused`.
    """
    keys = _log_keys(keys)
    guards = safeguards or Safeguards(storage.open_last_signed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(storage))
        reading = storage.reading()
        published = await asyncio.to_thread(load_published, reading, keys.verifiers)
        try:
            guard = Guard(keys.origin, keys.vkeys, guards.open_last_signed(), guards.clock)
        except SigningRefused as refusal:
            raise _not_ready(refusal) from refusal
        stack.callback(guard.close)
        await _take_up(guard, published, reading, guards.witness_sizes)
        tiles = Tiles()
        sequencer = Sequencer(storage, keys, guard, published, tiles, limits)
        archive = Archive(storage.open_reading(), tiles, lambda: sequencer.published)
        loop = asyncio.get_running_loop()
        storage.when_lost(lambda: loop.call_soon_threadsafe(sequencer.ended.set))
        sequencer.start()

        def tile_reader() -> TileReader:
            return TileReader(storage.open_reading(), lambda: sequencer.published)

        async def still_writes() -> None:
            await archive.first(storage.confirm)

        try:
            yield OpenLog(sequencer, archive, tile_reader, guard, still_writes)
        finally:
            await sequencer.stop()
            archive.close()


async def _take_up(
    guard: Guard, published: Published, reading: Reading, witness_sizes: WitnessSizes | None
) -> None:
    root = published.checkpoint.root
    try:
        await asyncio.to_thread(guard.take_up, published.size, root, reading.leaves)
        if witness_sizes is not None:
            guard.heed_witnesses(await witness_sizes())
    except SigningRefused as refusal:
        if refusal.reason in NOT_EVEN_READ:
            raise _not_ready(refusal) from refusal
        guard.refuse(refusal)


def _log_keys(keys: LogKeys | LogKey) -> LogKeys:
    return keys if isinstance(keys, LogKeys) else LogKeys(keys)


def _not_ready(refusal: SigningRefused) -> NotReady:
    return NotReady(refusal.reason, refusal.message)
