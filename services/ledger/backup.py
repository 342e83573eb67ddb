"""Copies of a ledger, made while it runs, verified, and never put back in place of a newer one.

Invariants:
- a folder that bears its name is a whole backup: it is made under another name and renamed at the end;
- nothing is called a backup before everything in it has been read again and verified;
- the record of the last signature is in no backup: restored with the database, it would vouch for it.

A backup is a SQLite file, whichever engine keeps the log.
Openings are in it as the database has them. The keys that open them are kept and backed up apart.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ledger.check import Checked, check
from ledger.postgres_copy import copy_in, copy_out
from ledger.postgres_storage import PostgresDatabase
from ledger.schema import migrate_sqlite, newest, sqlite_version
from ledger.sqlite_reading import FAILURES, SqliteReading, connect
from ledger.sqlite_storage import SqliteDatabase
from shared import whole_files
from shared.clock import Clock
from tlog.cosignature import LogVerifier

FORMAT: Final = "countersign-ledger-backup/1"
DATABASE: Final = "ledger.sqlite"
MANIFEST: Final = "manifest.json"


class BackupFailed(Exception):
    """The backup cannot be made, or is not what its manifest says; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds."""

    format: str
    origin: str
    size: int
    root: str
    """In hex."""
    checkpoint: str
    """The signed note of that size and root."""
    made_at: str
    """RFC 3339, UTC."""
    files: dict[str, str]
    """SHA-256 of each file, in hex."""

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a backup's manifest and compare its files with it; raises BackupFailed."""
        path = folder / MANIFEST
        try:
            manifest = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BackupFailed(f"{path} is not the manifest of a backup: {error}") from error
        if manifest.format != FORMAT:
            raise BackupFailed(f"{path} is of format {manifest.format}, not {FORMAT}")
        for name, digest in manifest.files.items():
            if name != Path(name).name or _sha256(folder / name) != digest:
                raise BackupFailed(f"{folder / name} is not the file that the manifest tells of")
        if DATABASE not in manifest.files:
            raise BackupFailed(f"{path} tells of no {DATABASE}")
        return manifest


def back_up(
    database: SqliteDatabase | PostgresDatabase,
    verifiers: Sequence[LogVerifier],
    folder: Path,
    clock: Clock,
) -> tuple[Manifest, Checked]:
    """Copy a ledger, beside the running service, as it is at one moment.

    Raises BackupFailed, CheckFailed, StorageFailed or OSError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupFailed(f"{folder} is there already, and is not an empty folder")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    copy = unfinished / DATABASE
    copy.touch(0o600)
    if isinstance(database, SqliteDatabase):
        _copy(database.path, copy)
    else:
        with contextlib.closing(database.open_for_reading()) as source:
            copy_out(source, copy)
    checked = verified(copy, verifiers)
    with contextlib.closing(SqliteReading.open(copy)) as reading:
        note = reading.head().checkpoint
    manifest = Manifest(
        format=FORMAT,
        origin=checked.checkpoint.origin,
        size=checked.checkpoint.size,
        root=checked.checkpoint.root.hex(),
        checkpoint=note,
        made_at=clock.now().isoformat(),
        files={DATABASE: _sha256(copy)},
    )
    (unfinished / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    for one in (copy, unfinished / MANIFEST, unfinished):
        _sync(one)
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)
    whole_files.sync_folder(folder.parent)
    return manifest, checked


@dataclass(frozen=True)
class Unpacked:
    """A backup's file to be verified, and what puts it into its place."""

    copy: Path
    put_in_place: Callable[[], object]


@contextlib.contextmanager
def unpacked(
    folder: Path,
    manifest: Manifest,
    database: SqliteDatabase | PostgresDatabase,
    verifiers: Sequence[LogVerifier],
) -> Iterator[Unpacked]:
    """Have a backup ready to be put into a place that is empty.

    One that an earlier release made is brought to the newest schema: in the copy, never in the backup.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(database, SqliteDatabase):
            beside = database.path.with_name(f"{database.path.name}.restoring")
            copy = stack.enter_context(_copied(folder, manifest, beside))
            yield Unpacked(copy, lambda: _put_in_place(copy, database.path))
            return
        taken = folder / DATABASE
        if not _is_newest(taken):
            apart = stack.enter_context(tempfile.TemporaryDirectory(prefix="countersign-restore-"))
            taken = stack.enter_context(_copied(folder, manifest, Path(apart) / DATABASE))
        yield Unpacked(taken, lambda: copy_in(taken, database, verifiers))


def _is_newest(database: Path) -> bool:
    with FAILURES, contextlib.closing(connect(database, "ro")) as connection:
        return sqlite_version(connection) == newest()


@contextlib.contextmanager
def _copied(folder: Path, manifest: Manifest, copy: Path) -> Iterator[Path]:
    """Copy a backup's file, durably, with the newest schema; it is gone at the end unless it was renamed."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    # What a migration was killed in the middle of would be rolled back into the new copy.
    _remove_journals(copy)
    copy.unlink(missing_ok=True)
    copy.touch(0o600)
    try:
        shutil.copyfile(folder / DATABASE, copy)
        _sync(copy)
        if _sha256(copy) != manifest.files[DATABASE]:
            raise BackupFailed(f"{copy} is not what was copied: the disk cannot be trusted")
        with FAILURES, contextlib.closing(connect(copy, "rw")) as connection:
            migrate_sqlite(connection)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _remove_journals(database: Path) -> None:
    for suffix in ("-journal", "-wal", "-shm"):
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)


def _put_in_place(copy: Path, database: Path) -> None:
    """Give a restored file its name, durably."""
    # A write-ahead log of another database under the same name would be replayed into this one.
    _remove_journals(database)
    copy.rename(database)
    whole_files.sync_folder(database.parent)


def verified(database: Path, verifiers: Sequence[LogVerifier]) -> Checked:
    """Re-read and verify everything; raises CheckFailed or StorageFailed."""
    with contextlib.closing(SqliteReading.open(database)) as reading:
        return check(reading, verifiers)


def _copy(database: Path, copy: Path) -> None:
    with (
        FAILURES,
        contextlib.closing(connect(database, "ro")) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        # All in one step, which sees one state and does not hinder the writer; in several steps, each
        # commit in between would begin the copy anew.
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackupFailed(f"{path} cannot be read: {error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
