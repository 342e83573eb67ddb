"""Opens a ledger: its file, its tree checked against the signed checkpoint, its writer and reader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from ledger.archive import Archive
from ledger.sequencer import Limits, Sequencer
from ledger.storage import Database, Head, Storage
from ledger.tile_files import TileReader
from ledger.tree import Tiles, load_published
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import EMPTY_ROOT
from tlog.note import Signer

LIMITS: Final = Limits()


@dataclass(frozen=True)
class OpenLog:
    """A log that takes entries and answers questions."""

    sequencer: Sequencer
    archive: Archive
    tile_reader: Callable[[], TileReader]
    """Opens a reader of tiles, to be closed by whoever asked for it."""


def begin_log(database: Database, signer: Signer) -> None:
    """Begin a log without entries; raises NotReady when there is one already."""
    empty = Checkpoint(signer.verifier.name, 0, EMPTY_ROOT)
    database.begin(Head(0, EMPTY_ROOT, sign_checkpoint(empty, signer)))


@contextlib.asynccontextmanager
async def opened(
    storage: Storage, signer: Signer, limits: Limits = LIMITS
) -> AsyncIterator[OpenLog]:
    """Open the log that is stored; closes the storage at the end. Raises NotReady if it is damaged."""
    with contextlib.closing(storage):
        published = await asyncio.to_thread(load_published, storage.reading(), signer.verifier)
        tiles = Tiles()
        sequencer = Sequencer(storage, signer, published, tiles, limits)
        archive = Archive(storage.open_reading(), tiles, lambda: sequencer.published)
        sequencer.start()

        def tile_reader() -> TileReader:
            return TileReader(storage.open_reading(), lambda: sequencer.published)

        try:
            yield OpenLog(sequencer, archive, tile_reader)
        finally:
            await sequencer.stop()
            archive.close()
