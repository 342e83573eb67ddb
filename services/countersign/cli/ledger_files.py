"""Exports of the ledger as files, and their verification: the one place here that trusts no server.

An export is laid out as C2SP tlog-tiles serves a log: `checkpoint`, `tile/entries/...`, `tile/0/...`
and the levels above. Anyone's verifier reads it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from countersign.client import VerificationError
from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.errors import TlogError
from tlog.merkle import Frontier, leaf_hash
from tlog.note import NOTE_BYTES_MAX, Verifier
from tlog.proof import verify_receipt
from tlog.tiles import TILE_HEIGHT, TILE_WIDTH, FullTile, TileName, TreeEdge, encode_bundle
from tlog.verify import Progress, VerifiedExport, verify_export

CHECKPOINT: Final = "checkpoint"
VKEY_BYTES_MAX: Final = 4096
FILE_BYTES_MAX: Final = TILE_WIDTH * (2 + 65_535)
"""The largest bundle; a larger file is not part of an export."""

Verified = TypeVar("Verified")


class Export:
    """Writes an export entry by entry; the checkpoint comes last, when everything agrees with it."""

    def __init__(self, folder: Path, note: str, verifiers: Sequence[Verifier]) -> None:
        self.checkpoint = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        self._folder = folder
        self._note = note
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
        earlier = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
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
            raise VerificationError(
                "HISTORY_REWRITTEN",
                f"the first {earlier.size} entries are not those of the export that lies here: the "
                "ledger shows another history than before",
            )

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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return 1


def verify_folder(
    folder: Path, verifiers: Sequence[Verifier], progress: Progress | None
) -> VerifiedExport:
    """Verifies an export; raises VerificationError naming what failed."""

    def read(path: str) -> bytes | None:
        file = folder / path
        if not file.is_file():
            return None
        if file.stat().st_size > FILE_BYTES_MAX:
            raise TlogError(f"{path}: the file is larger than any of an export")
        return file.read_bytes()

    return with_any_key(verifiers, lambda key: verify_export(read, key, progress))


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
