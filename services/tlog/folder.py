"""Exports and receipts as files: the one place in this package that reads any.

What is found is told in two forms, for people and for programs. Nothing is written and no one is asked.
"""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import POLICY_BYTES_MAX, Judged, Policy, shown
from tlog.tiles import ENTRY_BYTES_MAX, TILE_WIDTH
from tlog.verify import (
    RECEIPT,
    SINCE,
    Failure,
    NotVerified,
    Progress,
    ReadFile,
    VerifiedExport,
    read_entries,
    verify_export,
    verify_proof,
)

FILE_BYTES_MAX: Final = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
"""The largest bundle; a larger file is not part of an export."""

PROOF_SUFFIX: Final = ".tlog-proof"
LEAF_SUFFIX: Final = ".leaf"


def load_policy(path: Path) -> Policy:
    """Read a policy file; raise TlogError with the file and the line."""
    content = _bounded(path, POLICY_BYTES_MAX)
    if content is None:
        raise TlogError(f"{path}: the file is missing")
    try:
        return Policy.parse(content)
    except TlogError as error:
        raise TlogError(f"{path}: {error}") from None


def verify_folder(
    folder: Path, policy: Policy, progress: Progress | None = None, since: Path | None = None
) -> VerifiedExport:
    """Verify an export in a folder; raise NotVerified naming what failed.

    `since` is a checkpoint that was kept: the export must begin with the entries it was signed over.
    """
    kept = None if since is None else _required(since, SINCE, NOTE_BYTES_MAX)
    return verify_export(_reader(folder), policy, progress, since=kept)


def entries_in_folder(folder: Path, found: VerifiedExport) -> Iterator[bytes]:
    """Read the entries of an export that was verified; raise NotVerified where it has changed since."""
    return read_entries(_reader(folder), found.checkpoint)


def _reader(folder: Path) -> ReadFile:
    def read(path: str) -> bytes | None:
        file = folder / path
        try:
            if file.exists() and not file.is_file():
                # Whoever handed the folder over may have put a pipe there, to be waited for without end.
                raise TlogError("it is no file")
            return _bounded(file, FILE_BYTES_MAX)
        except (TlogError, OSError) as error:
            raise NotVerified(Failure.FILE_MALFORMED, path, str(error)) from None

    return read


def verify_receipt_file(
    proof: Path, leaf: Path, policy: Policy, origin: str | None = None
) -> tuple[int, Judged]:
    """Verify a receipt of the entry whose bytes are in `leaf`; give its index, or raise NotVerified."""
    text = _required(proof, RECEIPT, NOTE_BYTES_MAX)
    entry = _required(leaf, str(leaf), ENTRY_BYTES_MAX)
    return verify_proof(entry, text, policy, origin)


def _required(path: Path, file: str, bytes_max: int) -> bytes:
    try:
        content = _bounded(path, bytes_max)
    except TlogError as error:
        raise NotVerified(Failure.FILE_MALFORMED, file, str(error)) from None
    if content is None:
        raise NotVerified(Failure.FILE_MISSING, file, "the file is missing")
    return content


def _bounded(path: Path, bytes_max: int) -> bytes | None:
    """Read a file of at most this size; give None when there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TlogError(f"the file cannot be read: {error.strerror}") from None
    if len(content) > bytes_max:
        raise TlogError(f"the file is larger than {bytes_max} bytes")
    return content


def checkpoint_document(checkpoint: Checkpoint) -> dict[str, Any]:
    """Tell of a checkpoint to programs."""
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode(),
    }


def judged_document(judged: Judged) -> dict[str, Any]:
    """Tell of a checkpoint to programs, with who signed it and when."""
    return checkpoint_document(judged.checkpoint) | {
        "log_key": f"{judged.log.name}+{judged.log.key_id.hex()}",
        "cosigned": {shown(name): utc(time_s) for name, time_s in judged.cosigned.items()},
    }


def failure_document(error: NotVerified) -> dict[str, Any]:
    """Tell what failed to programs: which file, entry and key, where it is one."""
    document: dict[str, Any] = {"failure": str(error.failure), "file": error.file}
    if error.entry is not None:
        document["entry"] = error.entry
    if error.key is not None:
        document["key"] = error.key
    return document


def export_text(found: VerifiedExport) -> str:
    """Tell of a verified export to people."""
    checkpoint = found.checkpoint
    return (
        f"all {checkpoint.size} entries of {checkpoint.origin}, in {found.files} files, are what was signed"
        f"{cosigned_text(found.judged)}"
    )


def receipt_text(index: int, judged: Judged) -> str:
    """Tell of a verified receipt to people."""
    checkpoint = judged.checkpoint
    return (
        f"the entry is number {index} (from 0 on) of the {checkpoint.size} of {checkpoint.origin} "
        f"that were signed{cosigned_text(judged)}"
    )


def cosigned_text(judged: Judged) -> str:
    """Tell who cosigned a checkpoint; nothing when nobody did."""
    if not judged.cosigned:
        return ""
    names = ", ".join(map(shown, sorted(judged.cosigned)))
    return f", cosigned by {names}, last at {utc(max(judged.cosigned.values()))}"


def utc(time_s: int) -> str:
    """Write a time that was signed; one beyond the calendar stays the number that it is."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(time_s)
