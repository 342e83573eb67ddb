"""The one durable thing: a SQLite file that one process writes.

Invariants:
- one transaction holds a batch's entries, openings, index rows, full tiles and the new head, so that
  a crash leaves all of it or none of it;
- a file lock is held for as long as the file is open for writing: two writers would be two histories;
- entries and tiles are only ever inserted.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.entry import TERMINAL, CompletedEntry
from ledger.schema import migrate_sqlite
from shared.errors import NotReady
from tlog.tiles import FullTile

WAL_PAGES_MAX: Final = 4000
"""16 MB of log between copies into the database: fewer syncs, and still replayed in a moment."""
BUSY_TIMEOUT_MS: Final = 5000
"""Only a backup can hold the file; it does so for moments."""

ROWS_PER_STATEMENT: Final = (128, 16, 4, 1)
"""Few shapes of statement, so that each is compiled once; 128 rows of 6 values is far below the limit."""


@dataclass(frozen=True)
class Head:
    """What the log has come to: the tree's size and root, and the signed checkpoint of both."""

    size: int
    root: bytes
    checkpoint: str


class Storage:
    """The writer's hand on the file. Used by one thread at a time."""

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> "Storage":
        """Open an existing file for writing; raises NotReady."""
        if not path.is_file():
            raise NotReady(
                "LEDGER_MISSING",
                f"{path} is not there; to begin a new log, set create_if_missing = true once",
            )
        lock = _lock(path)
        try:
            return cls(path, lock, _open_for_writing(path))
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def create(cls, path: Path, head: Head) -> None:
        """Begin a new log with this head; raises NotReady when there is one already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            if path.exists():
                raise NotReady("LEDGER_EXISTS", f"{path} is there already")
            # Made apart and renamed when whole: a crash before the rename leaves no half-made log.
            unfinished = path.with_name(f"{path.name}.new")
            unfinished.unlink(missing_ok=True)
            # Openings are in it: nobody but this user reads it. SQLite gives its log the same mode.
            unfinished.touch(0o600)
            connection = connect(unfinished, "rw")
            migrate_sqlite(connection, begin=True)
            connection.execute(
                "INSERT INTO head (only_row, size, root, checkpoint) VALUES (1, ?, ?, ?)",
                (head.size, head.root, head.checkpoint),
            )
            connection.close()
            unfinished.rename(path)
            _sync_folder(path.parent)
        finally:
            os.close(lock)

    def close(self) -> None:
        """Close the file and give up the lock."""
        self.connection.close()
        os.close(self._lock)

    def head(self) -> Head:
        """Read the head."""
        row = self.connection.execute("SELECT size, root, checkpoint FROM head").fetchone()
        return Head(*row)

    # One batch: begin, then what follows in this order, then commit or roll back.

    def begin(self) -> None:
        """Begin a batch."""
        self.connection.execute("BEGIN IMMEDIATE")

    def indexes_of(self, keys: Sequence[str]) -> dict[str, int]:
        """Find the entries that bear these idempotency keys."""
        if not keys:
            return {}
        rows = self.connection.execute(
            "SELECT idempotency_key, entry_index FROM json_each(?) AS wanted"
            " JOIN entries ON idempotency_key = wanted.value",
            (json.dumps(keys),),
        )
        return dict(rows)

    def add_entries(self, start: int, entries: Sequence[CompletedEntry]) -> None:
        """Insert entries from an index on, with their openings, and what they open and close."""
        numbered = [(i, one, one.columns) for i, one in enumerate(entries, start)]
        self._insert(
            "INSERT INTO entries"
            " (entry_index, leaf, kind, search_id, origin_agency, idempotency_key) VALUES",
            [
                (i, one.leaf, has.kind, has.search_id, has.origin_agency, one.idempotency_key)
                for i, one, has in numbered
            ],
        )
        openings = [
            (i, opening.field, opening.salt, opening.value)
            for i, one, _ in numbered
            for opening in one.openings
        ]
        self._insert("INSERT INTO openings (entry_index, field, salt, value) VALUES", openings)
        opened = [(i, has.search_id) for i, _, has in numbered if has.permitted and has.search_id]
        self._insert(
            "INSERT OR IGNORE INTO open_searches (decided_index, search_id) VALUES", opened
        )
        ended = [has.search_id for _, _, has in numbered if has.kind in TERMINAL]
        if ended:
            self.connection.execute(
                "DELETE FROM open_searches WHERE search_id IN (SELECT value FROM json_each(?))",
                (json.dumps(ended),),
            )

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert many rows by few statements.

        Each statement gives up the interpreter's lock and waits to have it back, which under load
        takes longer than the insert.
        """
        at = 0
        for count in ROWS_PER_STATEMENT:
            while len(rows) - at >= count:
                part = rows[at : at + count]
                places = ", ".join([f"({', '.join('?' * len(part[0]))})"] * count)
                self.connection.execute(f"{statement} {places}", [v for row in part for v in row])
                at += count

    def read_back(self, start: int) -> list[bytes]:
        """Read the leaves from an index on, as the database has them; in one step, see `_insert`."""
        (hexes,) = self.connection.execute(
            "SELECT group_concat(hex(leaf)) FROM"
            " (SELECT leaf FROM entries WHERE entry_index >= ? ORDER BY entry_index)",
            (start,),
        ).fetchone()
        return [bytes.fromhex(one) for one in (hexes or "").split(",")]

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        """Insert tiles that have become full."""
        rows = [(one.level, one.number, one.tile.encoded) for one in tiles]
        self._insert("INSERT INTO tiles (level, number, hashes) VALUES", rows)

    def set_head(self, old_size: int, head: Head) -> None:
        """Replace the head of this size."""
        changed = self.connection.execute(
            "UPDATE head SET size = ?, root = ?, checkpoint = ? WHERE size = ?",
            (head.size, head.root, head.checkpoint, old_size),
        )
        if changed.rowcount != 1:
            raise sqlite3.IntegrityError(f"the head is no longer of size {old_size}")

    def commit(self) -> None:
        """Make the batch durable. When it raises, the batch may be on disk nevertheless."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Forget the batch."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a connection; `mode` is ro, rw or rwc."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _open_for_writing(path: Path) -> sqlite3.Connection:
    connection = connect(path, "rw")
    try:
        migrate_sqlite(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    except sqlite3.Error as error:
        connection.close()
        raise NotReady("LEDGER_UNREADABLE", f"{path} cannot be opened: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _lock(database: Path) -> int:
    """Take the writer's lock, which the kernel gives back when the process ends, however it ends."""
    path = database.with_name(f"{database.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise NotReady(
            "LEDGER_LOCKED", f"another process has the ledger open ({path} is locked)"
        ) from error
    return descriptor


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
