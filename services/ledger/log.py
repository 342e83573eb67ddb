"""Opens a ledger: its file, its tree checked against the signed checkpoint, its writer and reader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from ledger.archive import Archive
from ledger.guard import Guard
from ledger.heard import ASK_AGAIN_S, Heard, WitnessesAtStart
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


@dataclass(frozen=True)
class Safeguards:
    """What is asked before anything is signed."""

    open_last_signed: Callable[[], LastSigned]
    clock: Clock = field(default_factory=SystemClock)
    witnesses: WitnessesAtStart | None = None


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
        may_sign = await _taken_up(guard, published, reading)
        tiles = Tiles()
        sequencer = Sequencer(storage, keys, guard, published, tiles, limits)
        archive = Archive(storage.open_reading(), tiles, lambda: sequencer.published)
        start = _Start(guard, sequencer, archive, guards.witnesses, limits.batch_entries)
        hearing = None
        if may_sign and not await start.decided():
            hearing = asyncio.create_task(start.decided_at_last())
        sequencer.look_again()
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
            if hearing is not None:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
            await sequencer.stop()
            archive.close()


async def _taken_up(guard: Guard, published: Published, reading: Reading) -> bool:
    """Compare with the record of the last signature; say whether that lets it sign. Raises NotReady."""
    root = published.checkpoint.root
    try:
        await asyncio.to_thread(guard.take_up, published.size, root, reading.leaves)
    except SigningRefused as refusal:
        if refusal.reason in NOT_EVEN_READ:
            raise _not_ready(refusal) from refusal
        guard.refuse(refusal)
        return False
    return True


@dataclass(frozen=True)
class _Start:
    """Finds out from the witnesses whether a log that was just opened may sign."""

    guard: Guard
    sequencer: Sequencer
    archive: Archive
    witnesses: WitnessesAtStart | None
    batch_max: int

    async def decided(self) -> bool:
        """Ask once; False when too few answered for the doubt that there is.

        Decision 0011: the record vouches for the database, witnesses only contradict it; where the record
        leaves a doubt, enough of them have to answer.
        """
        try:
            doubt = self.guard.doubt(self.batch_max)
            if self.witnesses is not None:
                published = self.sequencer.published
                heard = await self.witnesses.ask(published, self.archive)
                heard.require_one_history(published.size)
                if doubt is None and self.witnesses.always:
                    doubt = "heard_at_start is always"
                if doubt is not None and not heard.enough:
                    self.guard.wait(_waiting(heard, doubt))
                    return False
            await asyncio.to_thread(self.guard.settle)
        except SigningRefused as refusal:
            self.guard.refuse(refusal)
        return True

    async def decided_at_last(self) -> None:
        """Ask until enough have answered, or one contradicts."""
        while not self.sequencer.ended.is_set():
            await asyncio.sleep(ASK_AGAIN_S)
            if await self.decided():
                self.sequencer.look_again()
                return


def _waiting(heard: Heard, doubt: str) -> SigningRefused:
    return SigningRefused(
        "WITNESSES_SILENT",
        f"{doubt}, and too few witnesses say what they have cosigned ({heard.said}). Nothing is signed until "
        "they do; they are asked again. See the ledger's runbook, 'Witnesses that have to be heard'",
    )


def _log_keys(keys: LogKeys | LogKey) -> LogKeys:
    return keys if isinstance(keys, LogKeys) else LogKeys(keys)


def _not_ready(refusal: SigningRefused) -> NotReady:
    return NotReady(refusal.reason, refusal.message)
