"""Exports of the ledger as files, and their verification: the one place here that trusts no server.

An export is laid out as C2SP tlog-tiles serves a log: `checkpoint`, `tile/entries/...`, `tile/0/...`
and the levels above. Anyone's verifier reads it.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from countersign.client import VerificationError
from tlog import folder as folders
from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.merkle import Frontier, leaf_hash
from tlog.policy import Policy
from tlog.tiles import (
    CHECKPOINT_FILE,
    ENTRY_BYTES_MAX,
    TILE_HEIGHT,
    TILE_WIDTH,
    FullTile,
    TileName,
    TreeEdge,
    encode_bundle,
)
from tlog.verify import NotVerified, Progress, VerifiedExport

VKEY_BYTES_MAX: Final = 4096

Verified = TypeVar("Verified")


class Export:
    """Writes an export entry by entry; the checkpoint comes last, when everything agrees with it."""

    def __init__(
        self,
        folder: Path,
        note: str,
        verifiers: Sequence[LogVerifier],
        *,
        newest: Checkpoint | None = None,
        replace: bool = False,
    ) -> None:
        """`newest` is the ledger's, where `note` is an older one that witnesses have cosigned."""
        self.checkpoint = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        self._newest = newest or self.checkpoint
        self._folder = folder
        self._note = note
        self._replace = replace
        self._frontier = Frontier()
        self._edge = TreeEdge.empty()
        self._bundle: list[bytes] = []
        self._earlier = self._earlier_checkpoint(verifiers)

    def _earlier_checkpoint(self, verifiers: Sequence[LogVerifier]) -> Checkpoint | None:
        """The checkpoint of an export that lies here already: the new one must continue it."""
        path = self._folder / CHECKPOINT_FILE
        if not path.exists():
            return None
        note = path.read_bytes()
        try:
            earlier = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        except VerificationError:
            if self._replace:
                return None
            raise
        if earlier.size > self._newest.size:
            raise VerificationError(
                "HISTORY_SHRANK",
                f"the ledger has {self._newest.size} entries; the export here has {earlier.size}",
            )
        if earlier.size > self.checkpoint.size:
            raise VerificationError(
                "QUORUM_MISSING",
                f"witnesses have cosigned {self.checkpoint.size} of the ledger's {self._newest.size} "
                f"entries; the export here has {earlier.size}, and nothing in it was changed",
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
            if len(leaf) > ENTRY_BYTES_MAX:
                what = f"entry {self._frontier.size} has {len(leaf)} bytes, which no entry of a log has"
                raise VerificationError("NOT_AS_SIGNED", f"{what}; no checkpoint was written")
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
        (self._folder / CHECKPOINT_FILE).write_text(self._note, encoding="utf-8")
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
    folder: Path, verifiers: Sequence[LogVerifier], progress: Progress | None
) -> VerifiedExport:
    """Verifies an export with any of these keys; raises VerificationError naming what failed."""
    try:
        return folders.verify_folder(folder, Policy.of_logs(verifiers), progress)
    except NotVerified as error:
        raise VerificationError("NOT_VERIFIED", str(error)) from error


_FILE_FIRST: Final = re.compile(r"(?P<file>checkpoint|tile/[a-z0-9./]+): (?P<what>.+)", re.DOTALL)


def failure_text(failure: object, path: object = None) -> str:
    """What failed, and the file last: a person wants to know first what is wrong."""
    said = _FILE_FIRST.fullmatch(str(failure))
    what, file = (said["what"], said["file"]) if said else (str(failure), "")
    where = "/".join(str(part) for part in (path, file) if part)
    return f"{what} ({where})" if where else what


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


def with_any_key(
    verifiers: Sequence[LogVerifier], verify: Callable[[LogVerifier], Verified]
) -> Verified:
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
