"""The tree over the stored entries: its right edge in memory, its full tiles read when asked for.

A `Published` tree never changes. The writer makes the next one and puts it in place of the last
after the commit, so readers need no lock and never see what is not durable.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.reading import Reading
from shared.errors import NotReady, Unavailable
from tlog.checkpoint import Checkpoint
from tlog.cosignature import LogVerifier, open_by_any
from tlog.errors import TlogError
from tlog.merkle import TreeAtSize, leaf_hash
from tlog.proof import ProofWriter
from tlog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    FullTile,
    Tile,
    TreeEdge,
    decode_tile,
    holding,
    subtree_in,
)

TILES_CACHED_MAX: Final = 256
"""About 37 kB each with the nodes between: 10 MB, and proofs of 65,536 recent entries at hand."""


class Tiles:
    """Full tiles with the nodes between, the most recently used ones in memory."""

    def __init__(self) -> None:
        self._cached: OrderedDict[tuple[int, int], Tile] = OrderedDict()
        self._guard = threading.Lock()

    def keep(self, full: FullTile) -> None:
        """Keep a tile in memory."""
        with self._guard:
            self._cached[full.level, full.number] = full.tile
            if len(self._cached) > TILES_CACHED_MAX:
                self._cached.popitem(last=False)

    def cached(self, level: int, number: int) -> Tile | None:
        """Give a tile that is in memory: one that was made here, or compared with the signed root."""
        with self._guard:
            if (found := self._cached.get((level, number))) is not None:
                self._cached.move_to_end((level, number))
            return found


def read_tile(level: int, number: int, reading: Reading) -> Tile:
    """Read a full tile, which may hold anything; raises NotReady when it has not the right length."""
    stored = reading.tile(level, number)
    if stored is None or len(stored) != TILE_WIDTH * 32:
        raise damaged(f"tile {level}/{number} is not whole")
    return Tile.of(decode_tile(stored))


@dataclass(frozen=True)
class Published:
    """The tree at a size whose checkpoint is signed and durable."""

    edge: TreeEdge
    checkpoint: Checkpoint
    note: str

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.checkpoint.size

    def at(self, size: int, tiles: Tiles, reading: Reading) -> TreeAtSize:
        """Give the tree as it was at a size up to this one."""

        in_edge = self.edge.subtree

        def subtree(level: int, index: int) -> bytes:
            # Asked several times for each receipt, and nearly always of the edge.
            found = in_edge(level, index)
            return found if found is not None else self._subtree(level, index, tiles, reading)

        return TreeAtSize(size, subtree)

    def tile(self, level: int, number: int, tiles: Tiles, reading: Reading) -> Tile:
        """Give a full tile; raises NotReady when what is stored is not what the signed root stands for.

        A tile that is read is compared with its hash in the tile above, and that one likewise, up to the
        edge, which was compared with the signed root at the start: damage is never served.
        """
        if (found := tiles.cached(level, number)) is not None:
            return found
        tile = read_tile(level, number, reading)
        if tile.root != self._subtree((level + 1) * TILE_HEIGHT, number, tiles, reading):
            raise damaged(f"tile {level}/{number} is not what was signed")
        tiles.keep(FullTile(level, number, tile))
        return tile

    def _subtree(self, level: int, index: int, tiles: Tiles, reading: Reading) -> bytes:
        in_edge = self.edge.subtree(level, index)
        if in_edge is not None:
            return in_edge
        return subtree_in(self.tile(*holding(level, index), tiles, reading), level, index)


class Receipts:
    """Writes receipts of entries against one published tree."""

    def __init__(
        self,
        published: Published,
        tiles: Tiles,
        reading: Reading,
        tree: TreeAtSize | None = None,
    ) -> None:
        """`tree` is that of `published`, where it is at hand."""
        self._reading = reading
        self._tree = tree or published.at(published.size, tiles, reading)
        self._writer = ProofWriter(self._tree, published.note)

    def proof(self, index: int) -> str:
        """Give the tlog-proof of an entry of this tree."""
        return self._writer.write(index)

    def leaf_and_proof(self, index: int) -> tuple[bytes, str]:
        """Read an entry and give its proof; raises NotReady if it is not what was hashed."""
        leaf = self._reading.leaf(index)
        if leaf is None or leaf_hash(leaf) != self._tree.leaf(index):
            raise damaged(f"entry {index} is not what was appended")
        return leaf, self.proof(index)


def damaged(what: str) -> NotReady:
    """Say that the file does not hold what was signed."""
    return NotReady(
        "LEDGER_DAMAGED", f"the ledger's file is damaged: {what}; run the ledger's check on it"
    )


def unreadable() -> Unavailable:
    """Say that the store did not answer."""
    return Unavailable(
        "LEDGER_READ_FAILED", "the ledger cannot read its store at present", retry_after_s=1
    )


def load_published(reading: Reading, verifiers: Sequence[LogVerifier]) -> Published:
    """Re-read and re-hash the right edge of the stored tree; raises NotReady if it is not the signed one.

    1. The stored checkpoint is signed by one of this log's keys and is of the stored size and root.
    2. The unfinished tiles are built again: level 0 from the entries' bytes, each level above from
       the full tiles below it.
    3. They come to the signed root.
    """
    head = reading.head()
    try:
        checkpoint, _ = open_by_any(head.checkpoint, verifiers)
    except TlogError as error:
        raise NotReady(
            "LEDGER_KEY_OR_CHECKPOINT",
            f"the stored checkpoint is not one that a key of this log signed: {error}. While keys "
            "are rotated, the old and the new one both stand in signing_keys",
        ) from error
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        raise damaged("the head is not what its checkpoint says")
    if reading.last_index() != head.size - 1:
        raise damaged(f"there is another number of entries than the {head.size} signed for")
    try:
        edge = TreeEdge(head.size, _edge_tiles(reading, head.size))
    except TlogError as error:
        raise damaged(str(error)) from error
    published = Published(edge, checkpoint, head.checkpoint)
    if published.at(head.size, Tiles(), reading).root != checkpoint.root:
        raise damaged("the stored entries do not come to the root that was signed")
    return published


def _edge_tiles(reading: Reading, size: int) -> list[Tile]:
    start = size - size % TILE_WIDTH
    leaves = reading.leaves(start, TILE_WIDTH)
    tiles = [Tile.of(leaf_hash(leaf) for leaf in leaves)]
    level = 1
    while size >> TILE_HEIGHT * level:
        count = size >> TILE_HEIGHT * level
        tiles.append(
            Tile.of(
                read_tile(level - 1, number, reading).root
                for number in range(count - count % TILE_WIDTH, count)
            )
        )
        level += 1
    return tiles
