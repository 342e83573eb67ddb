"""A full copy of a log in a folder, laid out as tlog-tiles serves it.

Invariants:
- the checkpoint in the folder is the newest whose every entry was verified, and all that it speaks for is
  on the disk: a kill or a power cut at any moment leaves the copy as it was before or after;
- no file that the checkpoint speaks for is ever written over, but by `mend`, which was asked to;
- one process at a time writes.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from countersign.mirror.sources import (
    CannotFollow,
    FolderSource,
    Source,
    get_entries,
    get_hashes,
)
from countersign.mirror.tree import VerifiedTree
from shared.whole_files import put, sync_all
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.merkle import TreeAtSize, leaf_hash
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import Policy
from tlog.tiles import (
    CHECKPOINT_FILE,
    TILE_HEIGHT,
    TILE_WIDTH,
    FullTile,
    Tile,
    TileName,
    TreeEdge,
    encode_bundle,
    tiles_of,
)

EVIDENCE_FOLDER: Final = "evidence"
LOCK_FILE: Final = ".lock"

Progress: TypeAlias = Callable[[int, int], None]


class Copy:
    """The folder and what it holds. Open it with `opened`."""

    def __init__(self, folder: Path, note: str | None, checkpoint: Checkpoint | None) -> None:
        self.folder = folder
        self.note = note
        self.checkpoint = checkpoint
        self.source = FolderSource(folder)
        self._edge: TreeEdge | None = None

    @property
    def size(self) -> int:
        """How many entries it has."""
        return 0 if self.checkpoint is None else self.checkpoint.size

    @property
    def evidence(self) -> Path:
        """Where contradictions are kept."""
        return self.folder / EVIDENCE_FOLDER

    async def edge(self) -> TreeEdge:
        """The right edge, from the files; raises CannotFollow if it does not come to the signed root."""
        if self._edge is None:
            tiles = await self._edge_tiles()
            self._edge = TreeEdge(self.size, tiles)
        return self._edge

    async def _edge_tiles(self) -> list[Tile]:
        if self.checkpoint is None:
            return []
        tree = await self.tree()
        tiles: list[Tile] = []
        level = 0
        while hashes := self.size >> TILE_HEIGHT * level:
            there = hashes % TILE_WIDTH != 0
            tiles.append(await tree.tile(level, hashes // TILE_WIDTH) if there else Tile.of([]))
            level += 1
        return tiles

    async def tree(self) -> VerifiedTree:
        """The copy's own tree; raises CannotFollow when its last tiles are damaged."""
        assert self.checkpoint is not None, "an empty copy has no tree"
        return await VerifiedTree.open(self.source, self.checkpoint)

    async def held(self, name: TileName) -> list[bytes] | None:
        """Entries that an interrupted pass left here past the checkpoint; not verified."""
        with contextlib.suppress(CannotFollow):
            if (self.folder / name.path).exists():
                return await get_entries(self.source, name)
        return None

    def put_bundle(self, number: int, entries: Sequence[bytes]) -> None:
        """Write a bundle that the next checkpoint will speak for."""
        self._put(TileName(None, number, len(entries)), encode_bundle(entries))

    def put_tiles(self, full: Sequence[FullTile]) -> None:
        """Write tiles that have become full."""
        for one in full:
            self._put(TileName(one.level, one.number), one.tile.encoded)

    def _put(self, name: TileName, content: bytes) -> None:
        path = self.folder / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, content)

    async def commit(self, note: str, checkpoint: Checkpoint, edge: TreeEdge) -> None:
        """Take a newer checkpoint, all of whose entries were verified and written."""
        if checkpoint != self.checkpoint:
            for level, tile in enumerate(edge.partial_tiles):
                if tile.width:
                    number = checkpoint.size >> TILE_HEIGHT * (level + 1)
                    self._put(TileName(level, number, tile.width), tile.encoded)
            await asyncio.to_thread(sync_all, self.folder)
        await asyncio.to_thread(put, self.folder / CHECKPOINT_FILE, note.encode(), sync=True)
        before, self.note, self.checkpoint, self._edge = self.size, note, checkpoint, edge
        self._drop_partials(before)

    def _drop_partials(self, before: int) -> None:
        """The full tile stands in for them from now on."""
        for level in (None, *range(TILE_HEIGHT)):
            shift = TILE_HEIGHT * (level or 0)
            for number in range(before >> shift + TILE_HEIGHT, self.size >> shift + TILE_HEIGHT):
                full = self.folder / TileName(level, number).path
                shutil.rmtree(full.with_name(f"{full.name}.p"), ignore_errors=True)

    async def damaged(self, progress: Progress | None = None) -> list[str]:
        """Read every file that the checkpoint speaks for; give what is wrong, file by file."""
        if self.checkpoint is None:
            return []
        found: dict[str, None] = {}
        try:
            tree = await self.tree()
        except CannotFollow as error:
            edge = await self._edge_from_below()
            if root_of(edge) != self.checkpoint.root:
                return [str(error)]
            # What lies below them is whole: then it is these that are not.
            tiles = dict(enumerate(edge.partial_tiles))
            tree = VerifiedTree(self.source, self.checkpoint, tiles)
            found.update(dict.fromkeys(self._unlike(tiles)))
        for name in tiles_of(self.size):
            try:
                if name.level is None:
                    await tree.entries(name.number)
                    if progress is not None:
                        progress(name.number * TILE_WIDTH + name.width, self.size)
                else:
                    await tree.tile(name.level, name.number)
            except CannotFollow as error:
                found[str(error)] = None
        return list(found)

    async def _edge_from_below(self) -> TreeEdge:
        """The right edge from entries and full tiles, without looking at its own files."""
        tiles: list[Tile] = []
        level = 0
        with contextlib.suppress(CannotFollow):
            while count := self.size >> TILE_HEIGHT * level:
                first, width = count - count % TILE_WIDTH, count % TILE_WIDTH
                if level == 0:
                    name = TileName(None, first // TILE_WIDTH, width or TILE_WIDTH)
                    entries = await get_entries(self.source, name) if width else []
                    tiles.append(Tile.of(leaf_hash(entry) for entry in entries))
                else:
                    names = [TileName(level - 1, number) for number in range(first, count)]
                    below = [Tile.of(await get_hashes(self.source, name)) for name in names]
                    tiles.append(Tile.of(one.root for one in below))
                level += 1
            return TreeEdge(self.size, tiles)
        return TreeEdge.empty()

    def _unlike(self, tiles: dict[int, Tile]) -> Iterator[str]:
        """The files of the right edge that do not hold these tiles."""
        for level, tile in tiles.items():
            if tile.width:
                name = TileName(level, self.size >> TILE_HEIGHT * (level + 1), tile.width)
                file = self.folder / name.path
                if not file.is_file() or file.read_bytes() != tile.encoded:
                    yield f"{file}: not the tile that was signed"

    async def mend(self, log: Source, progress: Progress | None = None) -> int:
        """Write anew what is damaged, from the log, verified by the copy's own checkpoint; count it.

        Raises CannotFollow when the log does not have what it signed, or Unavailable.
        """
        if self.checkpoint is None:
            return 0
        tree, written = await VerifiedTree.open(log, self.checkpoint), 0
        for name in tiles_of(self.size):
            hashes = (await tree.tile(name.level or 0, name.number)).rows[0]
            if name.level is not None:
                written += self._mend(name, b"".join(hashes))
                continue
            held = await self.held(name)
            if held is None or [leaf_hash(entry) for entry in held] != hashes:
                written += self._mend(name, encode_bundle(await tree.entries(name.number)))
            if progress is not None:
                progress(name.number * TILE_WIDTH + name.width, self.size)
        await asyncio.to_thread(sync_all, self.folder)
        return written

    def _mend(self, name: TileName, content: bytes) -> bool:
        path = self.folder / name.path
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return False
        self._put(name, content)
        return True


@contextlib.contextmanager
def opened(folder: Path, policy: Policy) -> Iterator[Copy]:
    """Open a copy for writing, or begin one. Raises CannotFollow, and OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotFollow("COPY_LOCKED", f"another mirror writes to {folder}") from error
        yield _read(folder, policy)
    finally:
        os.close(descriptor)


def _read(folder: Path, policy: Policy) -> Copy:
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        strangers = {one.name for one in folder.iterdir() if not one.name.startswith(".")}
        if strangers - {"tile", EVIDENCE_FOLDER}:
            raise CannotFollow(
                "COPY_DAMAGED", f"{folder} holds something that is not a copy of a log"
            )
        return Copy(folder, None, None)
    with path.open("rb") as file:
        note = file.read(NOTE_BYTES_MAX + 1)
    try:
        checkpoint = policy.judge(note).checkpoint
    except TlogError as error:
        raise CannotFollow("COPY_DAMAGED", f"{path}: {error}") from error
    return Copy(folder, note.decode(), checkpoint)


def root_of(edge: TreeEdge) -> bytes:
    """The root that an edge comes to."""

    def subtree(level: int, index: int) -> bytes:
        found = edge.subtree(level, index)
        assert found is not None, "the root is made of what is at the edge"
        return found

    return TreeAtSize(edge.size, subtree).root
