"""The tree of one checkpoint, read from tiles of a source, each verified before it is used.

The last tile of each level is verified together with the others, by the root; a full tile by its hash in
the tile above it. So every hash that leaves here is under the signed root.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from countersign.mirror.sources import CannotFollow, Source, get_entries, get_hashes
from tlog.checkpoint import Checkpoint
from tlog.merkle import HASH_BYTES, TreeAtSize, leaf_hash
from tlog.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, TileName, holding, subtree_in

TILES_MAX: Final = 128
"""About 37 kB each: 5 MB, and whoever walks along the entries reads each tile once."""


class VerifiedTree:
    """Gives hashes, entries and consistency proofs that are under one checkpoint's root."""

    def __init__(self, source: Source, checkpoint: Checkpoint, edge: dict[int, Tile]) -> None:
        self.checkpoint = checkpoint
        self._source = source
        self._edge = edge
        self._full: OrderedDict[tuple[int, int], Tile] = OrderedDict()

    @classmethod
    async def open(cls, source: Source, checkpoint: Checkpoint) -> "VerifiedTree":
        """Read the right edge; raises CannotFollow unless it comes to the checkpoint's root."""
        edge: dict[int, Tile] = {}
        level, size = 0, checkpoint.size
        while hashes := size >> TILE_HEIGHT * level:
            width = hashes % TILE_WIDTH
            if width:
                name = TileName(level, hashes // TILE_WIDTH, width)
                edge[level] = Tile.of(await get_hashes(source, name))
            level += 1
        tree = cls(source, checkpoint, edge)
        if TreeAtSize(size, tree._in_edge).root != checkpoint.root:
            raise CannotFollow(
                "NOT_AS_SIGNED",
                f"{source.name}: the last tiles of each level do not come to the root that was signed "
                f"for {size} entries",
            )
        return tree

    def _in_edge(self, level: int, index: int) -> bytes:
        return subtree_in(self._edge[level // TILE_HEIGHT], level, index)

    async def tile(self, level: int, number: int) -> Tile:
        """A tile, as wide as the tree has it; raises CannotFollow or Unavailable."""
        if number == self.checkpoint.size >> TILE_HEIGHT * (level + 1):
            return self._edge[level]
        if (known := self._full.get((level, number))) is not None:
            self._full.move_to_end((level, number))
            return known
        name = TileName(level, number)
        tile = Tile.of(await get_hashes(self._source, name))
        above = await self.tile(level + 1, number // TILE_WIDTH)
        if tile.root != above.rows[0][number % TILE_WIDTH]:
            raise CannotFollow(
                "NOT_AS_SIGNED", f"{self._source.name}/{name.path}: not the tile that was signed"
            )
        self._full[level, number] = tile
        if len(self._full) > TILES_MAX:
            self._full.popitem(last=False)
        return tile

    async def entries(self, number: int) -> list[bytes]:
        """The entries of a bundle, as many as the tree has; raises CannotFollow or Unavailable."""
        hashes = (await self.tile(0, number)).rows[0]
        name = TileName(None, number, len(hashes))
        entries = await get_entries(self._source, name)
        for position, (entry, expected) in enumerate(zip(entries, hashes, strict=True)):
            if leaf_hash(entry) != expected:
                index = number * TILE_WIDTH + position
                raise CannotFollow(
                    "NOT_AS_SIGNED",
                    f"{self._source.name}/{name.path}: entry {index} is not the one that was signed",
                )
        return entries

    async def consistency(self, first: int) -> tuple[bytes, list[bytes]]:
        """The root that this tree had at a size of 1 or more, and the proof that it grew from it."""
        # The tree takes its hashes one after the other; asked once for which, they are read before.
        wanted: set[tuple[int, int]] = set()

        def note(level: int, index: int) -> bytes:
            wanted.add((level, index))
            return bytes(HASH_BYTES)

        self._prove(first, note)
        known = {(level, at): await self._hash(level, at) for level, at in sorted(wanted)}
        return self._prove(first, lambda level, index: known[level, index])

    def _prove(self, first: int, subtree: Callable[[int, int], bytes]) -> tuple[bytes, list[bytes]]:
        proof = TreeAtSize(self.checkpoint.size, subtree).consistency_proof(first)
        return TreeAtSize(first, subtree).root, proof

    async def _hash(self, level: int, index: int) -> bytes:
        return subtree_in(await self.tile(*holding(level, index)), level, index)
