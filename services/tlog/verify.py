"""Verifies a whole exported log: every entry, every tile, and the signature over all of them.

The files are laid out as tlog-tiles serves them (`checkpoint`, `tile/entries/...`, `tile/<level>/...`).
They are read one at a time through a callable, so memory does not grow with the log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.errors import TlogError
from tlog.merkle import HASH_BYTES, Frontier, leaf_hash
from tlog.note import Verifier
from tlog.tiles import TILE_WIDTH, FullTile, TileName, TreeEdge, decode_bundle, decode_tile

ReadFile: TypeAlias = Callable[[str], bytes | None]
"""Gives the content of a file of the export by its path, or None when there is none."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many entries of how many have been verified."""


@dataclass(frozen=True)
class VerifiedExport:
    """What has been shown: these are all entries of this log up to this size, unchanged."""

    checkpoint: Checkpoint
    files: int


def verify_export(
    read: ReadFile, verifier: Verifier, progress: Progress | None = None
) -> VerifiedExport:
    """Verify an export; raise TlogError naming the first place that fails.

    1. The checkpoint is signed by the log's key, under the log's name.
    2. Every entry hashes to its place in the level-0 tiles.
    3. Every tile above holds the roots of the tiles below it.
    4. The root over all level-0 hashes is the one that was signed.
    """
    note = read("checkpoint")
    if note is None:
        raise TlogError("checkpoint: the file is missing")
    try:
        checkpoint = open_checkpoint(note, verifier)
    except TlogError as error:
        raise TlogError(f"checkpoint: {error}") from None
    walk = _Walk(read, checkpoint)
    walk.bottom(progress)
    walk.judge()
    return VerifiedExport(checkpoint, walk.files)


class _Walk:
    """One pass over the export, growing a tree from the tiles and another from the entries."""

    def __init__(self, read: ReadFile, checkpoint: Checkpoint) -> None:
        self.files = 1
        self._read_file = read
        self._checkpoint = checkpoint
        self._by_tiles = Frontier()
        self._by_entries = Frontier()
        self._edge = TreeEdge.empty()
        self._first_difference: tuple[str, str] | None = None
        self._upper_difference: str | None = None

    def bottom(self, progress: Progress | None) -> None:
        """Steps 2 and 3, one bundle and its tile after the other."""
        size = self._checkpoint.size
        for number in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
            width = min(TILE_WIDTH, size - number * TILE_WIDTH)
            bundle, tile = TileName(None, number, width), TileName(0, number, width)
            entries = self._read(bundle, decode_bundle)
            hashes = self._read(tile, decode_tile)
            for position, (entry, expected) in enumerate(zip(entries, hashes, strict=True)):
                found = leaf_hash(entry)
                self._by_entries.append(found)
                self._by_tiles.append(expected)
                if found != expected and self._first_difference is None:
                    index = number * TILE_WIDTH + position
                    self._first_difference = (
                        _changed_entry(bundle, index),
                        _changed_hash(tile, index),
                    )
            self._edge, full = self._edge.extended(hashes)
            for one in full:
                self._upper(one)
            if progress is not None:
                progress(number * TILE_WIDTH + width, size)
        for level, partial in enumerate(self._edge.partial_tiles):
            if level > 0 and partial.width:
                number = self._checkpoint.size >> 8 * (level + 1)
                self._upper(FullTile(level, number, partial))

    def _upper(self, computed: FullTile) -> None:
        """Compare a tile above level 0 with what the tiles below it come to."""
        if computed.level == 0:
            return
        name = TileName(computed.level, computed.number, computed.tile.width)
        stored = b"".join(self._read(name, decode_tile))
        wanted = computed.tile.encoded
        if stored != wanted and self._upper_difference is None:
            at = next(i for i in range(len(wanted)) if stored[i] != wanted[i]) // HASH_BYTES
            self._upper_difference = f"{name.path}: hash {at} is not the root of the tile below it"

    def judge(self) -> None:
        """Step 4; and where something differed, say which side is the signed one."""
        signed = self._checkpoint.root
        tiles_hold = self._by_tiles.root() == signed
        entries_hold = self._by_entries.root() == signed
        if self._first_difference is not None:
            entry_changed, tile_changed = self._first_difference
            if tiles_hold:
                raise TlogError(entry_changed)
            if entries_hold:
                raise TlogError(tile_changed)
            raise TlogError(f"{entry_changed}; the level-0 tiles do not lead to the root either")
        if not tiles_hold:
            raise TlogError(
                f"checkpoint: the {self._checkpoint.size} entries and their tiles agree with each "
                f"other, but are not the ones whose root was signed"
            )
        if self._upper_difference is not None:
            raise TlogError(self._upper_difference)

    def _read(self, name: TileName, decode: Callable[[bytes], list[bytes]]) -> list[bytes]:
        """Read a tile or bundle; a partial one may have been replaced by the full one since."""
        content = self._read_file(name.path)
        path, expected = name.path, name.width
        if content is None and name.width < TILE_WIDTH:
            path, expected = TileName(name.level, name.number).path, TILE_WIDTH
            content = self._read_file(path)
        if content is None:
            raise TlogError(f"{name.path}: the file is missing")
        self.files += 1
        try:
            parts = decode(content)
        except TlogError as error:
            raise TlogError(f"{path}: {error}") from None
        if len(parts) != expected:
            raise TlogError(f"{path}: holds {len(parts)} of {expected}")
        return parts[: name.width]


def _changed_entry(bundle: TileName, index: int) -> str:
    return f"{bundle.path}: entry {index} was changed: the signed tree holds another hash for it"


def _changed_hash(tile: TileName, index: int) -> str:
    return f"{tile.path}: the hash of entry {index} was changed: the entry is what was signed"
