"""Exports of the ledger as files, and their verification: the one place here that trusts no server.

An export is laid out as C2SP tlog-tiles serves a log: `checkpoint`, `tile/entries/...`, `tile/0/...`
and the levels above. Anyone's verifier reads it.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from countersign.client import VerificationError
from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.errors import TlogError
from tlog.merkle import Frontier, leaf_hash
from tlog.note import NOTE_BYTES_MAX, Verifier
from tlog.proof import verify_receipt
from tlog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    FullTile,
    TileName,
    TreeEdge,
    decode_tile,
    encode_bundle,
)
from tlog.verify import Progress, VerifiedExport, verify_export

CHECKPOINT: Final = "checkpoint"
VKEY_BYTES_MAX: Final = 4096
FILE_BYTES_MAX: Final = TILE_WIDTH * (2 + 65_535)
"""The largest bundle; a larger file is not part of an export."""

Verified = TypeVar("Verified")


class Export:
    """Writes an export entry by entry; the checkpoint comes last, when everything agrees with it."""

    def __init__(
        self, folder: Path, note: str, verifiers: Sequence[Verifier], *, replace: bool = False
    ) -> None:
        self.checkpoint = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        self._folder = folder
        self._note = note
        self._replace = replace
        self._frontier = Frontier()
        self._edge = TreeEdge.empty()
        self._bundle: list[bytes] = []
        self._earlier = self._earlier_checkpoint(verifiers)

    def _earlier_checkpoint(self, verifiers: Sequence[Verifier]) -> Checkpoint | None:
        """The checkpoint of an export that lies here already: the new one must continue it."""
        path = self._folder / CHECKPOINT
        if not path.exists():
            return None
        note = path.read_bytes()
        try:
            earlier = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        except VerificationError:
            if self._replace:
                return None
            raise
        if earlier.size > self.checkpoint.size:
            raise VerificationError(
                "HISTORY_SHRANK",
                f"the ledger has {self.checkpoint.size} entries; the export here has {earlier.size}",
            )
        self._compare_with_earlier(earlier)
        return earlier

    def _compare_with_earlier(self, earlier: Checkpoint | None) -> None:
        if (
            earlier is not None
            and earlier.size == self._frontier.size
            and earlier.root != self._frontier.root()
        ):
            raise _rewritten(earlier)

    async def write(self, leaves: AsyncIterator[bytes], progress: Progress) -> int:
        """Writes all files; gives their number. Raises VerificationError if the log is not as signed."""
        files = 0
        async for leaf in leaves:
            if self._frontier.size == self.checkpoint.size:
                break  # the ledger has grown since
            self._bundle.append(leaf)
            self._frontier.append(leaf_hash(leaf))
            self._compare_with_earlier(self._earlier)
            if len(self._bundle) == TILE_WIDTH or self._frontier.size == self.checkpoint.size:
                files += self._write_bundle()
                progress(self._frontier.size, self.checkpoint.size)
        if (self._frontier.size, self._frontier.root()) != (
            self.checkpoint.size,
            self.checkpoint.root,
        ):
            raise VerificationError(
                "NOT_AS_SIGNED",
                f"the {self._frontier.size} entries received are not those of the checkpoint of size "
                f"{self.checkpoint.size}; no checkpoint was written",
            )
        for level, tile in enumerate(self._edge.partial_tiles):
            if tile.width:
                number = self.checkpoint.size >> TILE_HEIGHT * (level + 1)
                files += self._write(TileName(level, number, tile.width), tile.encoded)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / CHECKPOINT).write_text(self._note, encoding="utf-8")
        return files + 1

    def _write_bundle(self) -> int:
        number = (self._frontier.size - 1) // TILE_WIDTH
        files = self._write(TileName(None, number, len(self._bundle)), encode_bundle(self._bundle))
        self._edge, full = self._edge.extended(leaf_hash(leaf) for leaf in self._bundle)
        self._bundle = []
        return files + sum(self._write_full(one) for one in full)

    def _write_full(self, one: FullTile) -> int:
        return self._write(TileName(one.level, one.number), one.tile.encoded)

    def _write(self, name: TileName, content: bytes) -> int:
        path = self._folder / name.path
        earlier = self._earlier
        if earlier is not None and self._is_evidence(path, earlier):
            if path.read_bytes() != content:
                raise _rewritten(earlier)
            return 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return 1

    def _is_evidence(self, path: Path, earlier: Checkpoint) -> bool:
        """True for a file that the earlier export stands on: it is compared and never overwritten."""
        return not self._replace and self._frontier.size <= earlier.size and path.exists()


def _rewritten(earlier: Checkpoint) -> VerificationError:
    return VerificationError(
        "HISTORY_REWRITTEN",
        f"the first {earlier.size} entries are not those of the export that lies here: the ledger shows "
        "another history than before; nothing here was changed",
    )


def verify_folder(
    folder: Path, verifiers: Sequence[Verifier], progress: Progress | None
) -> VerifiedExport:
    """Verifies an export; raises VerificationError naming what failed."""

    def read(path: str) -> bytes | None:
        return _read_file(folder, path)

    return with_any_key(verifiers, lambda key: verify_export(read, key, progress))


def _read_file(folder: Path, path: str) -> bytes | None:
    file = folder / path
    if not file.is_file():
        return None
    if file.stat().st_size > FILE_BYTES_MAX:
        raise TlogError(f"{path}: the file is larger than any of an export")
    return file.read_bytes()


def verify_extends(
    folder: Path, newer: Checkpoint, older: Path, verifiers: Sequence[Verifier]
) -> Checkpoint:
    """Checks that a verified export begins with the tree of an older checkpoint, and gives that.

    The root at the older size is computed from the export. Raises VerificationError.
    """
    note = read_bounded(older, NOTE_BYTES_MAX)
    try:
        kept = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
    except VerificationError as error:
        raise VerificationError(error.reason, f"{older}: {error}") from error
    if kept.origin != newer.origin:
        raise VerificationError(
            "OTHER_LOG", f"{older} is of {kept.origin}, and the export of {newer.origin}"
        )
    if kept.size > newer.size:
        raise VerificationError(
            "HISTORY_SHRANK",
            f"the export has {newer.size} entries; there were {kept.size} when {older} was signed",
        )
    try:
        root = _root_at(folder, kept.size, newer.size)
    except TlogError as error:
        raise VerificationError("NOT_VERIFIED", str(error)) from error
    if root != kept.root:
        raise VerificationError(
            "HISTORY_REWRITTEN",
            f"the first {kept.size} entries are not those of {older}: the ledger shows another history "
            "than it signed then",
        )
    return kept


def _root_at(folder: Path, size: int, full_size: int) -> bytes:
    """The root at a size, from the level-0 tiles of an export that verified."""
    frontier = Frontier()
    for start in range(0, size, TILE_WIDTH):
        number, width = start // TILE_WIDTH, min(TILE_WIDTH, full_size - start)
        # A full tile may stand in for the partial one, as it does when the export is verified.
        names = [TileName(0, number, width), TileName(0, number)]
        content = next(filter(None, (_read_file(folder, name.path) for name in names)), None)
        if content is None:
            raise TlogError(f"{names[0].path}: the file is missing")
        for one in decode_tile(content)[: size - start]:
            frontier.append(one)
    return frontier.root()


_FILE_FIRST: Final = re.compile(r"(?P<file>checkpoint|tile/[a-z0-9./]+): (?P<what>.+)", re.DOTALL)


def failure_text(failure: object, path: object = None) -> str:
    """What failed, and the file last: a person wants to know first what is wrong."""
    said = _FILE_FIRST.fullmatch(str(failure))
    what, file = (said["what"], said["file"]) if said else (str(failure), "")
    where = "/".join(str(part) for part in (path, file) if part)
    return f"{what} ({where})" if where else what


def verify_receipt_file(
    proof: Path, leaf: Path, verifiers: Sequence[Verifier]
) -> tuple[int, Checkpoint]:
    """Verifies a receipt; gives index and checkpoint. Raises VerificationError naming what failed."""
    text = read_bounded(proof, NOTE_BYTES_MAX)
    entry = read_bounded(leaf, FILE_BYTES_MAX)
    return with_any_key(verifiers, lambda key: verify_receipt(entry, text, key))


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Reads a file of at most this size; raises VerificationError otherwise."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise VerificationError("UNREADABLE", f"{path}: {error.strerror}") from error
    if len(content) > bytes_max:
        raise VerificationError("UNREADABLE", f"{path}: larger than {bytes_max} bytes")
    return content


def with_any_key(verifiers: Sequence[Verifier], verify: Callable[[Verifier], Verified]) -> Verified:
    """What verifies with one of the keys; raises VerificationError with what came closest."""
    failures: list[str] = []
    for verifier in verifiers:
        try:
            return verify(verifier)
        except TlogError as error:
            failures.append(str(error))
    # A key that did not sign says nothing of the content; another's failure says what is wrong.
    failures.sort(key=lambda failure: "no known key" in failure)
    raise VerificationError("NOT_VERIFIED", failures[0])
