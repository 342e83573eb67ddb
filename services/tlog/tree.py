"""A tree that grows by whole tiles: the quickest way to the root of a log that is read from start to end.

Every complete subtree of 256 hashes is hashed once, from bytes that lie side by side. `TreeEdge` does the
same for a log that grows entry by entry.
"""

from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT, HASH_BYTES, complete_root, node_hash
from tlog.tiles import TILE_BYTES, TILE_HEIGHT, TILE_WIDTH


class GrowingTree:
    """The unfinished row of hashes of each level, lowest first; `rows[0]` is the last tile added."""

    def __init__(self) -> None:
        self.size = 0
        self.rows: list[bytes] = [b""]

    def copy(self) -> "GrowingTree":
        """Give a tree that can grow without changing this one."""
        tree = GrowingTree()
        tree.size, tree.rows = self.size, self.rows.copy()
        return tree

    def add_tile(self, row: bytes) -> list[tuple[int, int, bytes]]:
        """Add the next level-0 tile; give the tiles above it that became full: level, number, hashes.

        A tile that is not full is the last one.
        """
        if self.size % TILE_WIDTH or len(row) % HASH_BYTES or not 0 < len(row) <= TILE_BYTES:
            raise TlogError("a tree grows by whole tiles, and ends with the first that is not full")
        self.size += len(row) // HASH_BYTES
        self.rows[0] = row
        full: list[tuple[int, int, bytes]] = []
        level = 0
        while len(self.rows[level]) == TILE_BYTES:
            row = self.rows[level]
            if level > 0:
                full.append((level, (self.size >> TILE_HEIGHT * (level + 1)) - 1, row))
            self.rows[level] = b""
            level += 1
            if level == len(self.rows):
                self.rows.append(b"")
            self.rows[level] += complete_root(row)
        return full

    def root(self, last: bytes | None = None) -> bytes:
        """Give the root; with `last`, as if this were the level-0 tile at the right."""
        node: bytes | None = None
        for row in [self.rows[0] if last is None else last, *self.rows[1:]]:
            for peak in reversed(_peaks(row)):
                node = peak if node is None else node_hash(peak, node)
        return EMPTY_ROOT if node is None else node


def _peaks(row: bytes) -> list[bytes]:
    """Give the roots of the complete subtrees that a row consists of, largest first."""
    peaks: list[bytes] = []
    at, count = 0, len(row) // HASH_BYTES
    for height in range(TILE_HEIGHT, -1, -1):
        if count >> height & 1:
            end = at + (HASH_BYTES << height)
            peaks.append(complete_root(row[at:end]))
            at = end
    return peaks
