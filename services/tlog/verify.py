"""Verifies what somebody hands over: a whole exported log, or a receipt of one entry.

An export is every entry, every tile, and the signatures over all of them, in files laid out as tlog-tiles
serves them (`checkpoint`, `tile/entries/...`, `tile/<level>/...`). They are read one at a time through a
callable, so memory does not grow with the log. Entries are hashed and never parsed: one of a kind that
did not exist when this was written verifies like any other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from tlog.checkpoint import Checkpoint
from tlog.cosignature import LogVerifier
from tlog.errors import FalseSignature, TlogError, UnknownSigner
from tlog.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, leaf_hash, verify_inclusion
from tlog.policy import Judged, Policy
from tlog.proof import TlogProof
from tlog.tiles import (
    CHECKPOINT_FILE,
    TILE_HEIGHT,
    TILE_WIDTH,
    TileName,
    decode_bundle,
    decode_tile,
)
from tlog.tree import GrowingTree

ReadFile: TypeAlias = Callable[[str], bytes | None]
"""Gives the content of a file of the export by its path, or None when there is none."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many entries of how many have been verified."""

SINCE: Final = "since"
RECEIPT: Final = "receipt"


class Failure(StrEnum):
    """What is wrong with an export or a receipt, for programs to tell apart."""

    FILE_MISSING = "FILE_MISSING"
    FILE_MALFORMED = "FILE_MALFORMED"
    SIGNATURE_UNKNOWN = "SIGNATURE_UNKNOWN"
    """No trusted log has signed the checkpoint."""
    SIGNATURE_FALSE = "SIGNATURE_FALSE"
    """A line of a key that is trusted is not by this key."""
    QUORUM_MISSING = "QUORUM_MISSING"
    ENTRY_CHANGED = "ENTRY_CHANGED"
    HASH_CHANGED = "HASH_CHANGED"
    TILE_CHANGED = "TILE_CHANGED"
    NOT_AS_SIGNED = "NOT_AS_SIGNED"
    """Entries and tiles agree with each other, and not with the root that was signed."""
    NOT_INCLUDED = "NOT_INCLUDED"
    """The receipt's proof does not lead from this entry to the root that was signed."""
    OTHER_LOG = "OTHER_LOG"
    HISTORY_SHRANK = "HISTORY_SHRANK"
    HISTORY_REWRITTEN = "HISTORY_REWRITTEN"


class NotVerified(TlogError):
    """The first thing that does not verify, and where it is."""

    def __init__(
        self,
        failure: Failure,
        file: str,
        what: str,
        *,
        entry: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(f"{file}: {what}")
        self.failure = failure
        self.file = file
        """Path within the export, or RECEIPT, or SINCE for the checkpoint that was kept."""
        self.what = what
        self.entry = entry
        """Index of the entry, where it is one."""
        self.key = key
        """Name and id of the key whose signature is false."""


@dataclass(frozen=True)
class VerifiedExport:
    """What has been shown: these are all entries of this log up to this size, unchanged."""

    judged: Judged
    files: int
    since: Checkpoint | None = None
    """The earlier checkpoint, when one was given: the export begins with its entries."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint over all of it."""
        return self.judged.checkpoint


def verify_export(
    read: ReadFile,
    trust: Policy | LogVerifier,
    progress: Progress | None = None,
    *,
    since: str | bytes | None = None,
) -> VerifiedExport:
    """Verify an export; raise NotVerified naming the first place that fails.

    1. The checkpoint is signed by a trusted log, under the log's name, and cosigned by the policy's
       quorum of witnesses. (One key alone stands for the policy that asks for no witness.)
    2. Every entry hashes to its place in the level-0 tiles.
    3. Every tile above holds the roots of the tiles below it.
    4. The root over all level-0 hashes is the one that was signed.
    5. With `since`, a signed checkpoint that was kept: the entries up to its size come to its root.
    """
    policy = trust if isinstance(trust, Policy) else Policy.of_logs([trust])
    note = read(CHECKPOINT_FILE)
    if note is None:
        raise NotVerified(Failure.FILE_MISSING, CHECKPOINT_FILE, "the file is missing")
    judged = _with_quorum(_judge(policy, note, CHECKPOINT_FILE), CHECKPOINT_FILE)
    kept = None if since is None else _kept(policy, since, judged.checkpoint)
    walk = _Walk(read, judged.checkpoint, kept)
    walk.bottom(progress)
    walk.judge()
    return VerifiedExport(judged, walk.files, kept)


def read_entries(read: ReadFile, checkpoint: Checkpoint) -> Iterator[bytes]:
    """Read the entries of an export that was verified; raise NotVerified where it has changed since.

    They are hashed again as they come, so that what is made of them is made of what was signed; whether
    they are, is known when the last has been given.
    """
    frontier = Frontier()
    for start in range(0, checkpoint.size, TILE_WIDTH):
        width = min(TILE_WIDTH, checkpoint.size - start)
        name = TileName(None, start // TILE_WIDTH, width)
        for entry in _read_parts(read, name, decode_bundle):
            frontier.append(leaf_hash(entry))
            yield entry
    if frontier.root() != checkpoint.root:
        what = "the entries are no longer those that were verified"
        raise NotVerified(Failure.NOT_AS_SIGNED, CHECKPOINT_FILE, what)


def verify_proof(
    leaf: bytes, proof: str | bytes, policy: Policy, origin: str | None = None
) -> tuple[int, Judged]:
    """Verify a receipt of an entry; give the entry's index, or raise NotVerified.

    With `origin`, only a receipt of that log will do, whatever other logs the policy names.

    1. The checkpoint in it is signed and cosigned as in step 1 of an export.
    2. The inclusion proof leads from the entry's hash to the checkpoint's root.
    """
    try:
        parsed = TlogProof.parse(proof)
    except TlogError as error:
        raise NotVerified(Failure.FILE_MALFORMED, RECEIPT, str(error)) from None
    judged = _judge(policy, parsed.checkpoint, RECEIPT, origin)
    checkpoint = judged.checkpoint
    try:
        verify_inclusion(
            leaf_hash(leaf), parsed.index, checkpoint.size, parsed.hashes, checkpoint.root
        )
    except TlogError as error:
        raise NotVerified(Failure.NOT_INCLUDED, RECEIPT, str(error), entry=parsed.index) from None
    return parsed.index, _with_quorum(judged, RECEIPT)


def _with_quorum(judged: Judged, file: str) -> Judged:
    if not judged.quorum:
        what = f"the quorum of witnesses is missing: {judged.shortfall}"
        raise NotVerified(Failure.QUORUM_MISSING, file, what)
    return judged


def _judge(policy: Policy, note: str | bytes, file: str, origin: str | None = None) -> Judged:
    try:
        return policy.judge(note, origin)
    except FalseSignature as error:
        raise NotVerified(Failure.SIGNATURE_FALSE, file, str(error), key=error.key) from None
    except UnknownSigner as error:
        raise NotVerified(Failure.SIGNATURE_UNKNOWN, file, str(error)) from None
    except TlogError as error:
        raise NotVerified(Failure.FILE_MALFORMED, file, str(error)) from None


def _kept(policy: Policy, since: str | bytes, newer: Checkpoint) -> Checkpoint:
    """Read the checkpoint that was kept. Whoever kept it needs no witness for having seen it."""
    kept = _judge(policy, since, SINCE).checkpoint
    if kept.origin != newer.origin:
        what = f"the checkpoint kept is of {kept.origin}, the export of {newer.origin}"
        raise NotVerified(Failure.OTHER_LOG, SINCE, what)
    if kept.size > newer.size:
        what = f"the export has {newer.size} entries; there were {kept.size} when this was signed"
        raise NotVerified(Failure.HISTORY_SHRANK, SINCE, what)
    return kept


class _Walk:
    """One pass over the export, growing a tree from the tiles and another from the entries."""

    def __init__(self, read: ReadFile, checkpoint: Checkpoint, kept: Checkpoint | None) -> None:
        self.files = 1
        self._read_file = read
        self._checkpoint = checkpoint
        self._kept = kept
        self._kept_root = EMPTY_ROOT
        self._by_tiles = GrowingTree()
        # The same tree, until an entry is found that is not what its tile says.
        self._by_entries = self._by_tiles
        self._first_difference: tuple[NotVerified, NotVerified] | None = None
        self._upper_difference: NotVerified | None = None

    def bottom(self, progress: Progress | None) -> None:
        """Steps 2 and 3, one bundle and its tile after the other."""
        size = self._checkpoint.size
        for number in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
            width = min(TILE_WIDTH, size - number * TILE_WIDTH)
            self._pair(number, width)
            if progress is not None:
                progress(number * TILE_WIDTH + width, size)
        for level, row in enumerate(self._by_tiles.rows):
            if level > 0 and row:
                self._upper(level, size >> TILE_HEIGHT * (level + 1), row)

    def _pair(self, number: int, width: int) -> None:
        """Verify one bundle against its tile, and add the tile to the tree."""
        bundle, tile = TileName(None, number, width), TileName(0, number, width)
        entries = self._read(bundle, decode_bundle)
        row = self._read_row(tile)
        found = b"".join([leaf_hash(entry) for entry in entries])
        if found != row and self._first_difference is None:
            at = _first_unlike(found, row)
            self._first_difference = _changed(bundle, tile, number * TILE_WIDTH + at)
            self._by_entries = self._by_tiles.copy()
        self._remember_kept(row)
        if self._first_difference is not None:
            self._by_entries.add_tile(found)
        for level, above, hashes in self._by_tiles.add_tile(row):
            self._upper(level, above, hashes)

    def _remember_kept(self, row: bytes) -> None:
        """Take the root at the size of the checkpoint that was kept, when the walk comes by."""
        kept, size = self._kept, self._by_tiles.size
        if kept is not None and size <= kept.size <= size + len(row) // HASH_BYTES:
            self._kept_root = self._by_tiles.root(row[: (kept.size - size) * HASH_BYTES])

    def _upper(self, level: int, number: int, wanted: bytes) -> None:
        """Compare a tile above level 0 with what the tiles below it come to."""
        name = TileName(level, number, len(wanted) // HASH_BYTES)
        stored = self._read_row(name)
        if stored != wanted and self._upper_difference is None:
            what = f"hash {_first_unlike(stored, wanted)} is not the root of the tile below it"
            self._upper_difference = NotVerified(Failure.TILE_CHANGED, name.path, what)

    def judge(self) -> None:
        """Steps 4 and 5; and where something differed, say which side is the signed one."""
        signed = self._checkpoint.root
        tiles_hold = self._by_tiles.root() == signed
        if self._first_difference is not None:
            entry_changed, hash_changed = self._first_difference
            if tiles_hold:
                raise entry_changed
            if self._by_entries.root() == signed:
                raise hash_changed
            what = f"{entry_changed.what}; the level-0 tiles do not lead to the root either"
            raise NotVerified(
                Failure.ENTRY_CHANGED, entry_changed.file, what, entry=entry_changed.entry
            )
        if not tiles_hold:
            what = (
                f"the {self._checkpoint.size} entries and their tiles agree with each other, but are "
                "not the ones whose root was signed"
            )
            raise NotVerified(Failure.NOT_AS_SIGNED, CHECKPOINT_FILE, what)
        if self._upper_difference is not None:
            raise self._upper_difference
        if self._kept is not None and self._kept_root != self._kept.root:
            what = (
                f"the first {self._kept.size} entries are not those of the checkpoint that was kept: the "
                "log shows another history than it signed then"
            )
            raise NotVerified(Failure.HISTORY_REWRITTEN, SINCE, what)

    def _read_row(self, name: TileName) -> bytes:
        return b"".join(self._read(name, decode_tile))

    def _read(self, name: TileName, decode: Callable[[bytes], list[bytes]]) -> list[bytes]:
        parts = _read_parts(self._read_file, name, decode)
        self.files += 1
        return parts


def _read_parts(
    read: ReadFile, name: TileName, decode: Callable[[bytes], list[bytes]]
) -> list[bytes]:
    """Read a tile or bundle; a partial one may have been replaced by the full one since."""
    content = read(name.path)
    path, expected = name.path, name.width
    if content is None and name.width < TILE_WIDTH:
        path, expected = TileName(name.level, name.number).path, TILE_WIDTH
        content = read(path)
    if content is None:
        raise NotVerified(Failure.FILE_MISSING, name.path, "the file is missing")
    try:
        parts = decode(content)
    except TlogError as error:
        raise NotVerified(Failure.FILE_MALFORMED, path, str(error)) from None
    if len(parts) != expected:
        what = f"holds {len(parts)} of {expected}"
        raise NotVerified(Failure.FILE_MALFORMED, path, what)
    return parts[: name.width]


def _first_unlike(one: bytes, other: bytes) -> int:
    """Say at which hash two rows of the same length differ first."""
    return next(at for at in range(len(one)) if one[at] != other[at]) // HASH_BYTES


def _changed(bundle: TileName, tile: TileName, index: int) -> tuple[NotVerified, NotVerified]:
    """Both things that may have happened where an entry is not what its tile says."""
    return (
        NotVerified(
            Failure.ENTRY_CHANGED,
            bundle.path,
            f"entry {index} was changed: the signed tree holds another hash for it",
            entry=index,
        ),
        NotVerified(
            Failure.HASH_CHANGED,
            tile.path,
            f"the hash of entry {index} was changed: the entry is what was signed",
            entry=index,
        ),
    )
