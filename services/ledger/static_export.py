"""The log as immutable files in a folder, for a static server or an object store: the bytes of tiles_http.

Invariants:
- a reader of the folder sees a whole log at any moment: each file appears under its name when it is
  complete, and the checkpoint after everything that it speaks for;
- the checkpoint is replaced only once all that it speaks for is on the disk, by one sync for all files of
  a pass: a sync for each is the slowest thing that a log can do;
- what is there already is not written again, so a pass costs what the log has grown, and one that was
  interrupted is taken up where it ended;
- a folder with another history is left as it is.
"""

import asyncio
import contextlib
import functools
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ledger.tile_files import TileFiles, TileReader
from shared import telemetry
from shared.errors import NotReady, ServiceError
from shared.whole_files import put, sync_all, unfinished_name
from tlog.checkpoint import Checkpoint
from tlog.cosignature import LogVerifier, open_by_any
from tlog.errors import TlogError
from tlog.note import NOTE_BYTES_MAX, UnverifiedNote
from tlog.tiles import CHECKPOINT_FILE, TILE_HEIGHT, TILE_WIDTH, TileName

log = logging.getLogger(__name__)


_exported_size = telemetry.meter.create_gauge(
    "countersign.ledger.export.size", unit="{entry}", description="Size of the exported log"
)


@dataclass(frozen=True)
class Exported:
    """What one pass came to."""

    checkpoint: Checkpoint
    written: int
    """Files that were not there, or not as they should be."""


@dataclass
class StaticExport:
    """Writes into one folder. Used by one thread at a time."""

    folder: Path
    verifiers: Sequence[LogVerifier]
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set from elsewhere to end a pass between two files."""

    def bring_up_to(self, note: str, files: TileFiles, *, recheck: bool = False) -> Exported | None:
        """Write what this checkpoint speaks for, and the checkpoint last; None when stopped half-way.

        With `recheck` every file is compared, and mended. Raises NotReady if another history lies there
        or the ledger is damaged, and OSError.
        """
        checkpoint = Checkpoint.parse(UnverifiedNote.parse(note).text)
        earlier = self._earlier(checkpoint, files)
        start = 0 if recheck else earlier
        written = 0
        for name in names_between(start, checkpoint.size):
            if self.stopped.is_set():
                return None
            written += self._write(name, files)
        self.folder.mkdir(parents=True, exist_ok=True)
        if written or earlier < checkpoint.size:
            # Also when nothing was written: a pass that was killed before this may have written it all.
            sync_all(self.folder)
        put(self.folder / CHECKPOINT_FILE, note.encode(), sync=True)
        self._drop_partials(start, checkpoint.size)
        _exported_size.set(checkpoint.size)
        return Exported(checkpoint, written)

    def _earlier(self, newer: Checkpoint, files: TileFiles) -> int:
        """Give the size of the export that lies there, 0 for none; raises NotReady for another history."""
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            found = {one.name for one in self.folder.iterdir()} if self.folder.exists() else set()
            if found - {"tile", unfinished_name(path).name}:
                raise _refused(f"{self.folder} holds something that is not an export")
            return 0
        try:
            earlier, _ = open_by_any(path.read_bytes()[: NOTE_BYTES_MAX + 1], self.verifiers)
        except TlogError as error:
            raise _refused(f"{path} is not a checkpoint of this log: {error}") from error
        if earlier.size > newer.size:
            raise _refused(
                f"the export in {self.folder} has {earlier.size} entries, and the ledger {newer.size}: "
                "it has lost some, or is an older copy"
            )
        if files.root_at(earlier.size) != earlier.root:
            raise _refused(
                f"the first {earlier.size} entries of the ledger are not those of the export in "
                f"{self.folder}: one of the two is another history"
            )
        return earlier.size

    def _write(self, name: TileName, files: TileFiles) -> bool:
        content = files.content(name)
        if content is None:
            raise _refused(f"the ledger does not have {name.path}, which the checkpoint speaks for")
        path = self.folder / name.path
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == len(content) and path.read_bytes() == content:
                return False
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, content)
        return True

    def _drop_partials(self, start: int, size: int) -> None:
        """A partial tile is kept until the full one is there, as tlog-tiles wants it."""
        for name in names_between(start, size):
            if name.width == TILE_WIDTH:
                full = self.folder / name.path
                shutil.rmtree(full.with_name(f"{full.name}.p"), ignore_errors=True)


def names_between(start: int, size: int) -> Iterator[TileName]:
    """Name the tiles and bundles of `size` that a tree of size `start` did not have, bundles first."""
    yield from _names(None, start, size)
    level = 0
    while size >> TILE_HEIGHT * level:
        yield from _names(level, start >> TILE_HEIGHT * level, size >> TILE_HEIGHT * level)
        level += 1


def _names(level: int | None, start: int, count: int) -> Iterator[TileName]:
    if start == count:
        return
    for number in range(start // TILE_WIDTH, count // TILE_WIDTH):
        yield TileName(level, number)
    if count % TILE_WIDTH:
        yield TileName(level, count // TILE_WIDTH, count % TILE_WIDTH)


def _refused(why: str) -> NotReady:
    return NotReady("EXPORT_REFUSED", f"{why}; nothing was changed")


@contextlib.asynccontextmanager
async def exporting(
    export: StaticExport, reader: TileReader, note: Callable[[], str | None], every_s: float
) -> AsyncIterator[None]:
    """Keep a folder a little behind the log, whatever goes wrong: the log itself never waits for it."""
    task = asyncio.create_task(_keep_up(export, reader, note, every_s))
    try:
        yield
    finally:
        export.stopped.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_up(
    export: StaticExport, reader: TileReader, note: Callable[[], str | None], every_s: float
) -> None:
    last: str | None = None
    failing = ""
    while True:
        newest = note()
        if newest is not None and newest != last:
            try:
                await reader.ask(functools.partial(export.bring_up_to, newest))
                last, failing = newest, ""
            except (ServiceError, TlogError, OSError) as error:
                why = error.message if isinstance(error, ServiceError) else str(error)
                # Once for each fault: it is tried again at every turn.
                if why != failing:
                    log.error("not exported", extra={"fields": {"why": why}})
                failing = why
        await asyncio.sleep(every_s)
