"""The tiles and bundles of the published tree as files, each cut from what is stored when it is asked for.

Invariants:
- nothing leaves that does not hash to the root that was signed: a flipped bit on disk is an error here,
  never an answer;
- what is given for a name never changes: a partial tile is a prefix of the full one, so any width of any
  size that was ever published can be cut at any later time, and nothing has to be kept for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ledger.reading import Reading, StorageFailed
from ledger.tree import Published, damaged, unreadable
from tlog.errors import TlogError
from tlog.merkle import HASH_BYTES, TreeAtSize, leaf_hash
from tlog.tiles import (
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TileName,
    decode_tile,
    encode_bundle,
    holding,
    subtree_in,
)

VERIFIED_MAX: Final = 512
"""8 kB each, 4 MB: the tiles above those that a reader walks along, which would be verified each time."""

PATH_CHARACTERS_MAX: Final = len(f"tile/entries/{'x000/' * 6}000.p/255")
"""The longest path of a tile: numbers up to 2**63 have seven groups of digits."""

Answer = TypeVar("Answer")


def is_within(name: TileName, size: int) -> bool:
    """Say whether a tree of this size, or one that it grew from, has this tile at this width."""
    end = name.number * TILE_WIDTH + name.width
    return end << TILE_HEIGHT * (name.level or 0) <= size


class TileFiles:
    """Reads tiles and bundles. Used by one thread at a time; `published` gives the newest tree."""

    def __init__(self, reading: Reading, published: Callable[[], Published]) -> None:
        self._reading = reading
        self._published = published
        self._verified: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def content(self, name: TileName) -> bytes | None:
        """Give the file's bytes, or None when no published tree has it; raises NotReady if damaged."""
        published = self._published()
        if not is_within(name, published.size):
            return None
        if name.level is None:
            return self._bundle(name, published)
        hashes = self._hashes(name.level, name.number, published)
        return hashes[: name.width * HASH_BYTES]

    def root_at(self, size: int) -> bytes:
        """Give the root of the tree at a size up to the published one."""
        published = self._published()

        def subtree(level: int, index: int) -> bytes:
            in_edge = published.edge.subtree(level, index)
            if in_edge is not None:
                return in_edge
            full = self._full(*holding(level, index), published)
            return subtree_in(Tile.of(decode_tile(full)), level, index)

        return TreeAtSize(size, subtree).root

    def _bundle(self, name: TileName, published: Published) -> bytes:
        start = name.number * TILE_WIDTH
        leaves = self._reading.leaves(start, name.width)
        if len(leaves) != name.width:
            raise damaged(f"entry {start + len(leaves)} is missing")
        hashes = self._hashes(0, name.number, published)
        for position, leaf in enumerate(leaves):
            at = position * HASH_BYTES
            if leaf_hash(leaf) != hashes[at : at + HASH_BYTES]:
                raise damaged(f"entry {start + position} is not what was appended")
        return encode_bundle(leaves)

    def _hashes(self, level: int, number: int, published: Published) -> bytes:
        """Give all hashes that a tile has so far: from memory at the right edge, else as stored."""
        edge = published.edge
        if number == edge.size >> TILE_HEIGHT * (level + 1):
            return edge.partial_tiles[level].encoded
        return self._full(level, number, published)

    def _full(self, level: int, number: int, published: Published) -> bytes:
        if (known := self._verified.get((level, number))) is not None:
            self._verified.move_to_end((level, number))
            return known
        stored = self._reading.tile(level, number)
        if stored is None or len(stored) != TILE_BYTES:
            raise damaged(f"tile {level}/{number} is not whole")
        # The tile above holds its root; upward, that ends at the right edge, which came to the signed
        # root when it was read.
        at = number % TILE_WIDTH * HASH_BYTES
        above = self._hashes(level + 1, number // TILE_WIDTH, published)
        if Tile.of(decode_tile(stored)).root != above[at : at + HASH_BYTES]:
            raise damaged(f"tile {level}/{number} does not hold what was signed")
        self._verified[level, number] = stored
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)
        return stored


class TileReader:
    """Reads tiles on a thread and a connection of its own, so that no other reader or writer waits."""

    def __init__(self, reading: Reading, published: Callable[[], Published]) -> None:
        self._reading = reading
        self._files = TileFiles(reading, published)
        self._thread = ThreadPoolExecutor(1, "ledger-tiles")

    async def ask(self, question: Callable[[TileFiles], Answer]) -> Answer:
        """Put a question to the files on the thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, question, self._files)
        except StorageFailed as error:
            raise unreadable() from error

    def close(self) -> None:
        """Finish what is being read and close."""
        self._thread.shutdown(cancel_futures=True)
        self._reading.close()


def parse_path(path: str) -> TileName | None:
    """Read a tile's path; None for everything that is not exactly one."""
    # The pattern's digits would be looked through in vain.
    if len(path) > PATH_CHARACTERS_MAX:
        return None
    try:
        return TileName.parse(path)
    except TlogError:
        return None
