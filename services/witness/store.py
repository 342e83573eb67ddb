"""What the witness must not forget: the largest tree of each log that it has cosigned.

One SQLite file. Every change is a transaction that takes the write lock before it reads, so that
checking and storing are one step, also for a second process on the same file; and it is on disk
before the caller goes on (write-ahead log, synchronous FULL).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared import whole_files
from shared.errors import NotReady

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_MS: Final = 5_000
"""A second process holds the lock for one commit only."""
EVIDENCE_MAX: Final = 1_000
"""Refused checkpoints kept of each log and kind: at most 512 kB each, so half a gigabyte."""

_SCHEMA: Final = """
CREATE TABLE cosigned (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    time_s INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;
CREATE TABLE evidence (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    conclusive INTEGER NOT NULL,
    time_s INTEGER NOT NULL,
    note TEXT NOT NULL,
    held TEXT NOT NULL,
    UNIQUE (origin, size, root, conclusive)
) STRICT;
"""


@dataclass(frozen=True)
class Cosigned:
    """The largest tree of a log that this witness has cosigned."""

    size: int
    root: bytes
    time_s: int
    """When it was cosigned last, in POSIX seconds."""
    note: str
    """The checkpoint with the log's and our own signature lines."""


@dataclass(frozen=True)
class Evidence:
    """A checkpoint that the log signed and that this witness refused."""

    origin: str
    size: int
    root: bytes
    conclusive: bool
    """True when it has the size of the held checkpoint and another root: the log has signed two
    histories, and both signatures are here. Otherwise whoever brought it may just have brought a
    wrong proof."""
    time_s: int
    note: str
    held: str
    """The checkpoint that this witness had cosigned then."""


class Store:
    """The file. Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, create: bool) -> "Store":
        """Open the file, or make it if that is allowed; raises NotReady."""
        if not path.is_file():
            if not create:
                raise NotReady(
                    "WITNESS_STATE_MISSING",
                    f"{path} is not there; for the first start of a new key, set create_if_missing = true",
                )
            _create(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (fault,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.Error as error:
            raise NotReady("WITNESS_STATE_UNREADABLE", f"{path}: {error}") from error
        if version != SCHEMA_VERSION or fault != "ok":
            connection.close()
            raise NotReady(
                "WITNESS_STATE_UNREADABLE",
                f"{path} is damaged, or not of schema {SCHEMA_VERSION}: {version}, {fault}",
            )
        return cls(connection)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One step that nobody else can come between, durable at its end. Raises sqlite3.Error."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.commit()
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def commit(self) -> None:
        """Make the transaction durable. When it raises, it may be on disk nevertheless."""
        self._connection.execute("COMMIT")

    def cosigned(self, origin: str) -> Cosigned | None:
        """Read what was cosigned last of a log."""
        row = self._connection.execute(
            "SELECT size, root, time_s, note FROM cosigned WHERE origin = ?", (origin,)
        ).fetchone()
        return None if row is None else Cosigned(*row)

    def set_cosigned(self, origin: str, cosigned: Cosigned) -> None:
        """Replace what was cosigned last of a log. Within a transaction."""
        self._connection.execute(
            "INSERT INTO cosigned VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET"
            " size = excluded.size, root = excluded.root, time_s = excluded.time_s,"
            " note = excluded.note",
            (origin, cosigned.size, cosigned.root, cosigned.time_s, cosigned.note),
        )

    def add_evidence(self, found: Evidence) -> bool:
        """Keep a refused checkpoint; False when it is kept already or there is no room.

        Within a transaction. Of conclusive ones the first are kept, of others the last.
        """
        kind = (found.origin, found.conclusive)
        (kept,) = self._connection.execute(
            "SELECT count(*) FROM evidence WHERE origin = ? AND conclusive = ?", kind
        ).fetchone()
        if kept >= EVIDENCE_MAX and found.conclusive:
            return False
        added = self._connection.execute(
            "INSERT OR IGNORE INTO evidence (origin, size, root, conclusive, time_s, note, held)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                found.origin,
                found.size,
                found.root,
                found.conclusive,
                found.time_s,
                found.note,
                found.held,
            ),
        )
        if added.rowcount == 1 and kept >= EVIDENCE_MAX:
            self._connection.execute(
                "DELETE FROM evidence WHERE id ="
                " (SELECT min(id) FROM evidence WHERE origin = ? AND conclusive = ?)",
                kind,
            )
        return added.rowcount == 1

    def evidence(self) -> Iterator[Evidence]:
        """Read every refused checkpoint that is kept, oldest first."""
        for origin, size, root, conclusive, time_s, note, held in self._connection.execute(
            "SELECT origin, size, root, conclusive, time_s, note, held FROM evidence ORDER BY id"
        ):
            yield Evidence(origin, size, root, bool(conclusive), time_s, note, held)


def _create(path: Path) -> None:
    # Made apart and renamed when whole: a crash before the rename leaves no half-made file.
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    try:
        unfinished.touch(0o600)
        with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.executescript(
                f"PRAGMA synchronous = FULL; BEGIN; {_SCHEMA}"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        unfinished.rename(path)
        whole_files.sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise NotReady("WITNESS_STATE_UNWRITABLE", f"cannot make {path}: {error}") from error
