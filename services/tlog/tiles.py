"""C2SP tlog-tiles: the tree cut into tiles of 256 hashes, and entries into bundles of 256.

Invariants:
- tile (level, number) holds 256 hashes; hash i is the root of the 256**level entries from
  (number * 256 + i) * 256**level on;
- a full tile never changes; a partial tile is a prefix of the full one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlog.errors import TlogError
from tlog.merkle import HASH_BYTES, TREE_SIZE_MAX, node_hash

TILE_WIDTH = 256
TILE_HEIGHT = 8
TILE_BYTES = TILE_WIDTH * HASH_BYTES
# Eight tile levels hold 2**64 entries.
TILE_LEVELS_MAX = 8

CHECKPOINT_FILE = "checkpoint"
"""Path of the signed checkpoint, beside the tiles."""

# An entry's length is written in 16 bits.
ENTRY_BYTES_MAX = 65_535

_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True)
class TileName:
    """Which tile or bundle: `level` is None for a bundle of entries."""

    level: int | None
    number: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= 63:
            raise TlogError("a tile's level is 0 to 63")
        if not 0 <= self.number <= TREE_SIZE_MAX or not 1 <= self.width <= TILE_WIDTH:
            raise TlogError(f"a tile has a number and a width of 1 to {TILE_WIDTH}")

    @property
    def path(self) -> str:
        """Where the tile is served, below the log's prefix."""
        groups = []
        rest = self.number
        while True:
            rest, group = divmod(rest, 1000)
            groups.append(f"{group:03}")
            if not rest:
                break
        number = "/x".join(reversed(groups))
        if len(groups) > 1:
            number = f"x{number[: -len('/x000')]}/{groups[0]}"
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{number}{partial}"

    @classmethod
    def parse(cls, path: str) -> "TileName":
        """Read a path, refusing every spelling but the one that `path` gives."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise TlogError("not the path of a tile")
        level, groups, last, width = match.groups()
        digits = groups.replace("x", "").replace("/", "") + last
        if len(digits) > 21:
            raise TlogError("not the path of a tile")
        name = cls(
            None if level == "entries" else int(level),
            int(digits),
            TILE_WIDTH if width is None else int(width),
        )
        if name.path != path:
            raise TlogError("not the path of a tile")
        return name


def tiles_of(size: int) -> Iterable[TileName]:
    """Name every tile and bundle that a tree of this size consists of, bundles first."""
    for number, width in _widths(size):
        yield TileName(None, number, width)
    level = 0
    while hashes := size >> TILE_HEIGHT * level:
        for number, width in _widths(hashes):
            yield TileName(level, number, width)
        level += 1


def _widths(count: int) -> Iterable[tuple[int, int]]:
    full, rest = divmod(count, TILE_WIDTH)
    for number in range(full):
        yield number, TILE_WIDTH
    if rest:
        yield full, rest


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write entries one after the other, each after its length."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise TlogError(f"a bundle has 1 to {TILE_WIDTH} entries")
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise TlogError(f"an entry has at most {ENTRY_BYTES_MAX} bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def decode_bundle(bundle: bytes) -> list[bytes]:
    """Take a bundle apart."""
    entries: list[bytes] = []
    at = 0
    while at < len(bundle):
        start = at + 2
        at = start + int.from_bytes(bundle[at:start])
        if start > len(bundle) or at > len(bundle):
            raise TlogError(f"the bundle ends within entry {len(entries)}")
        entries.append(bundle[start:at])
        if len(entries) > TILE_WIDTH:
            raise TlogError(f"the bundle has more than {TILE_WIDTH} entries")
    if not entries:
        raise TlogError("the bundle is empty")
    return entries


def decode_tile(tile: bytes) -> list[bytes]:
    """Take a tile apart into its hashes."""
    if not tile or len(tile) % HASH_BYTES or len(tile) > TILE_BYTES:
        raise TlogError(f"a tile is 1 to {TILE_WIDTH} hashes of {HASH_BYTES} bytes")
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


class Tile:
    """The hashes of one tile with every complete node between them, so that proofs only look up."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[list[bytes]]) -> None:
        self.rows = rows

    @classmethod
    def of(cls, hashes: Iterable[bytes]) -> "Tile":
        """Build a tile from its bottom row."""
        tile = cls([[] for _ in range(TILE_HEIGHT + 1)])
        for one in hashes:
            tile.push(one)
        return tile

    @property
    def width(self) -> int:
        """How many hashes it has."""
        return len(self.rows[0])

    @property
    def root(self) -> bytes:
        """Hash of a full tile, which is a hash of the tile above."""
        return self.rows[TILE_HEIGHT][0]

    @property
    def encoded(self) -> bytes:
        """The hashes as they are served and stored."""
        return b"".join(self.rows[0])

    def push(self, one: bytes) -> None:
        """Add a hash at the right, and each node that it completes."""
        assert self.width < TILE_WIDTH, "a full tile does not grow"
        rows, height = self.rows, 0
        rows[0].append(one)
        while len(rows[height]) % 2 == 0:
            left, right = rows[height][-2:]
            height += 1
            rows[height].append(node_hash(left, right))
            if height == TILE_HEIGHT:
                return

    def copy(self) -> "Tile":
        """Give a tile that can grow without changing this one."""
        return Tile([row.copy() for row in self.rows])


@dataclass(frozen=True)
class FullTile:
    """A tile that has just become full."""

    level: int
    number: int
    tile: Tile


class TreeEdge:
    """The unfinished tile of each level: all that a growing tree must keep in memory.

    An edge never changes. Growing gives a new one, so that a reader who holds an edge, or a writer
    whose commit fails, still has a whole tree in hand.
    """

    __slots__ = ("_tiles", "size")

    def __init__(self, size: int, tiles: Sequence[Tile]) -> None:
        for level, tile in enumerate(tiles):
            if tile.width != (size >> TILE_HEIGHT * level) % TILE_WIDTH:
                raise TlogError(f"the last tile of level {level} does not belong to size {size}")
        self.size = size
        self._tiles = tuple(tiles)

    @property
    def partial_tiles(self) -> tuple[Tile, ...]:
        """The unfinished tile of each level, lowest first; one of width 0 stands for none."""
        return self._tiles

    @classmethod
    def empty(cls) -> "TreeEdge":
        """The edge of a tree without entries."""
        return cls(0, [])

    def extended(self, leaf_hashes: Iterable[bytes]) -> "tuple[TreeEdge, list[FullTile]]":
        """Give the edge with these leaves added, and the tiles that became full on the way."""
        tiles = [tile.copy() for tile in self._tiles]
        full: list[FullTile] = []
        size = self.size
        for leaf in leaf_hashes:
            level, one = 0, leaf
            while True:
                if level == len(tiles):
                    tiles.append(Tile.of([]))
                tiles[level].push(one)
                if tiles[level].width < TILE_WIDTH:
                    break
                number = size >> TILE_HEIGHT * (level + 1)
                full.append(FullTile(level, number, tiles[level]))
                one = tiles[level].root
                tiles[level] = Tile.of([])
                level += 1
            size += 1
        return TreeEdge(size, tiles), full

    def subtree(self, level: int, index: int) -> bytes | None:
        """Give the hash of a complete subtree, or None when it lies in a full tile."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        number = index >> TILE_HEIGHT - height
        if number != self.size >> TILE_HEIGHT * (tile_level + 1):
            return None
        return self._tiles[tile_level].rows[height][index & (1 << TILE_HEIGHT - height) - 1]


def subtree_in(tile: Tile, level: int, index: int) -> bytes:
    """Give the hash of a complete subtree from the full tile that holds it (see `holding`)."""
    height = level % TILE_HEIGHT
    return tile.rows[height][index & (1 << TILE_HEIGHT - height) - 1]


def holding(level: int, index: int) -> tuple[int, int]:
    """Say which tile (level and number) holds the hash of a subtree."""
    tile_level, height = divmod(level, TILE_HEIGHT)
    return tile_level, index >> TILE_HEIGHT - height
