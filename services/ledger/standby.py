"""A replica that does not write: it follows the one that does, and serves what it has verified.

Each tree that it shows was made by itself: the entries that it reads are hashed onto the tree that it had,
and must come to the root that the writer signed. So it cannot be led from one history to another.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.archive import Archive
from ledger.entry import CompletedEntry
from ledger.postgres_reading import PostgresReading
from ledger.reading import Reading, StorageFailed
from ledger.sequencer import Placed
from ledger.tile_files import TileReader
from ledger.tree import Published, Tiles, damaged, load_published
from shared.errors import NotReady, Unavailable
from tlog.cosignature import LogVerifier, open_by_any
from tlog.errors import TlogError
from tlog.merkle import leaf_hash

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.1
"""How far behind the writer a standby is, as a rule."""
LEAVES_MAX: Final = 4096
"""A tree that has grown by more is read anew: that costs one tile's width on each level."""


class Standby:
    """The newest tree that was verified; takes no entries."""

    def __init__(
        self, reading: PostgresReading, verifiers: Sequence[LogVerifier], tiles: Tiles
    ) -> None:
        self._reading = reading
        self._verifiers = verifiers
        self._tiles = tiles
        self._published = _loaded(reading, verifiers)
        self._grown = asyncio.Event()
        self._looking = asyncio.Lock()
        self.ended = asyncio.Event()
        """Set when what is stored is not what was signed."""
        self.reads = True
        """False while the store does not answer."""

    @property
    def published(self) -> Published:
        """The newest tree that was verified."""
        return self._published

    async def grown(self, size: int) -> Published:
        """Wait until the tree is larger than `size`."""
        while True:
            event = self._grown
            if self._published.size > size:
                return self._published
            await event.wait()

    async def append(self, entries: Sequence[CompletedEntry]) -> list[Placed]:
        """Refuse: the writer has to be asked."""
        raise not_writer("entries are the writer's to take")

    async def refresh(self) -> None:
        """Catch up with what is committed; raises Unavailable or NotReady."""
        async with self._looking:
            try:
                following = await asyncio.to_thread(self._look)
            except StorageFailed as error:
                raise Unavailable(
                    "LEDGER_READ_FAILED", "the ledger cannot read its store", retry_after_s=1
                ) from error
        if following is not None:
            self._published = following
            grown, self._grown = self._grown, asyncio.Event()
            grown.set()

    async def follow(self) -> None:
        """Follow until cancelled, or until the store shows another history."""
        while not self.ended.is_set():
            try:
                await self.refresh()
                self.reads = True
            except Unavailable as error:
                if self.reads:
                    log.warning("the store does not answer", exc_info=error)
                self.reads = False
            except NotReady as error:
                log.error(
                    "not followed any further",
                    extra={"fields": {"reason": error.reason, "why": error.message}},
                )
                self.ended.set()
            await asyncio.sleep(LOOK_EVERY_S)

    # On a thread.

    def _look(self) -> Published | None:
        before = self._published
        _, size = self._reading.epoch_and_size()
        if size == before.size:
            return None
        if size < before.size:
            raise damaged(f"it had {before.size} entries, and has {size} now")
        if size - before.size > LEAVES_MAX:
            following = _loaded(self._reading, self._verifiers)
            self._follows(before, following)
            return following
        head = self._reading.head()
        try:
            checkpoint, _ = open_by_any(head.checkpoint, self._verifiers)
        except TlogError as error:
            raise damaged(f"the checkpoint is not signed by this log's key: {error}") from error
        leaves = self._reading.leaves(before.size, checkpoint.size - before.size)
        edge, full = before.edge.extended(leaf_hash(leaf) for leaf in leaves)
        following = Published(edge, checkpoint, head.checkpoint)
        for one in full:
            self._tiles.keep(one)
        if edge.size != checkpoint.size or following.at(
            edge.size, self._tiles, self._reading
        ).root != (checkpoint.root):
            raise damaged("the entries do not come to the root that was signed")
        return following

    def _follows(self, before: Published, following: Published) -> None:
        """Raise NotReady unless the newer tree begins with the older one."""
        tree = following.at(before.size, Tiles(), self._reading)
        if tree.root != before.checkpoint.root:
            raise damaged("the newer tree does not begin with the one before it")


def not_writer(why: str) -> Unavailable:
    """The refusal of what only the writer does, with where to ask."""
    return Unavailable(
        "LEDGER_NOT_WRITER",
        f"this replica does not write, and {why}: ask the replica that writes, whose health check says "
        "SERVING for countersign.ledger.v1.LedgerDisclosureService",
        retry_after_s=1,
    )


def _loaded(reading: Reading, verifiers: Sequence[LogVerifier]) -> Published:
    with reading.one_state():
        return load_published(reading, verifiers)


@dataclass(frozen=True)
class StandbyLog:
    """A log as a standby has it."""

    sequencer: Standby
    archive: Archive
    tile_reader: Callable[[], TileReader]


class NotWitnessed:
    """A standby does not know what witnesses have cosigned: it shows no checkpoint as if it had."""

    cosigned: None = None
