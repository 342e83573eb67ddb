"""The store on one machine: a SQLite file that one process writes.

The invariants are those of `ledger.storage`. That one process writes is kept by a file lock, held for
as long as the file is open for writing.
"""

import fcntl
import functools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ledger.entry import CompletedEntry
from ledger.last_signed import FileLastSigned, beside
from ledger.reading import Reading
from ledger.schema import migrate_sqlite
from ledger.sqlite_reading import FAILURES, SqliteReading, bearing, connect, of_search
from ledger.storage import Database, Head, Storage, StorageFailed, StorageInDoubt
from shared import whole_files
from shared.entry_facts import ENDS
from shared.errors import NotReady
from tlog.tiles import FullTile

WAL_PAGES_MAX: Final = 4000
"""16 MB of log between copies into the database: fewer syncs, and still replayed in a moment.

Only the writer copies, though its commit waits for it: a second connection that copied beside it could leave
the database damaged by SQLite's WAL-reset bug (sqlite.org/wal.html#walresetbug), mended in 3.51.3."""

ROWS_PER_STATEMENT: Final = (768, 384, 256, 192, 128, 96, 64, 32, 16, 8, 4, 2, 1)
"""Few shapes of statement, so that each is compiled once, and those of 64 entries with three openings each
among them; 768 rows of 7 values are far below the limit."""

_INDEXES_OF: Final = (
    "SELECT idempotency_key, entry_index FROM json_each(?) AS wanted"  # noqa: S608
    f" JOIN entries ON {bearing('wanted.value')}"
)
_OPEN: Final = (
    "INSERT INTO open_searches (decided_index, search_id)"  # noqa: S608
    " SELECT entry_index, search_id FROM json_each(?) AS opened"
    " JOIN entries AS decided ON entry_index = opened.value"
    " WHERE NOT EXISTS (SELECT 1 FROM open_searches"
    f" WHERE decided_index IN ({of_search('decided.search_id')}))"
)
_CLOSE: Final = (
    "DELETE FROM open_searches WHERE decided_index IN (SELECT entry_index FROM json_each(?) AS ended"  # noqa: S608
    f" JOIN entries ON entry_index IN ({of_search('ended.value')}))"
)


class SqliteDatabase(Database):
    """A log in a file. Beside it lie its write-ahead log and the lock file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def has_log(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def begin(self, head: Head) -> None:
        """Begin a new log with this head; raises NotReady when there is one already."""
        SqliteStorage.create(self.path, head)

    def open_last_signed(self) -> FileLastSigned:
        """Open the file beside this one that remembers what was signed last."""
        return FileLastSigned.open(beside(self.path))

    def open_for_writing(self) -> "SqliteStorage":
        """Open the file for writing, and bring its schema to the newest; raises NotReady."""
        return SqliteStorage.open(self.path)

    def open_for_reading(self) -> SqliteReading:
        """Open the file for reading; raises NotReady or StorageFailed."""
        return SqliteReading.open(self.path)


class SqliteStorage(Storage):
    """The writer's hand on the file. Used by one thread at a time."""

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> "SqliteStorage":
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
            whole_files.sync_folder(path.parent)
        finally:
            os.close(lock)

    def close(self) -> None:
        """Close the file and give up the lock."""
        self.connection.close()
        os.close(self._lock)

    def head(self) -> Head:
        """Read the head."""
        return self.reading().head()

    def reading(self) -> SqliteReading:
        """Give a reader on the writer's own connection."""
        return SqliteReading(self.connection)

    def open_reading(self) -> SqliteReading:
        """Open a reader of its own."""
        return SqliteReading.open(self.path)

    def open_last_signed(self) -> FileLastSigned:
        """Open the file beside this one that remembers what was signed last."""
        return FileLastSigned.open(beside(self.path))

    def confirm(self, reading: Reading) -> None:
        """Nothing to ask: whoever has the lock is the writer."""

    def when_lost(self, told: Callable[[], object]) -> None:
        """Nothing to say: the kernel keeps the lock for as long as this process lives."""

    # One batch: begin, then what follows in this order, then commit or roll back.

    def begin(self) -> None:
        """Begin a batch."""
        self._execute("BEGIN IMMEDIATE")

    def indexes_of(self, keys: Sequence[str]) -> dict[str, int]:
        """Find the entries that bear these idempotency keys."""
        if not keys:
            return {}
        return dict(self._execute(_INDEXES_OF, (json.dumps(keys),)))

    def _execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with FAILURES:
            return self.connection.execute(statement, values).fetchall()

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
            (i, has.field, has.holder, has.block, has.slot, has.sealed, has.lookup_token)
            for i, one, _ in numbered
            for has in one.openings
        ]
        self._insert(
            "INSERT INTO openings"
            " (entry_index, field, holder, block, slot, sealed, lookup_token) VALUES",
            openings,
        )
        opened: dict[str, int] = {}
        for i, _, has in numbered:
            if has.permitted and has.search_id:
                opened.setdefault(has.search_id, i)
        if opened:
            self._execute(_OPEN, (json.dumps(list(opened.values())),))
        ended = [has.search_id for _, _, has in numbered if has.kind in ENDS]
        if ended:
            self._execute(_CLOSE, (json.dumps(ended),))

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert many rows by few statements.

        Each statement gives up the interpreter's lock and waits to have it back, which under load
        takes longer than the insert.
        """
        at = 0
        for count in ROWS_PER_STATEMENT:
            while len(rows) - at >= count:
                part = rows[at : at + count]
                self._execute(
                    _of_rows(statement, len(part[0]), count), [v for row in part for v in row]
                )
                at += count

    def read_back(self, start: int) -> list[bytes]:
        """Read the leaves from an index on, as the database has them; in one step, see `_insert`."""
        ((leaves, lengths),) = self._execute(
            "SELECT CAST(group_concat(leaf, '') AS BLOB), group_concat(length(leaf)) FROM"
            " (SELECT leaf FROM entries WHERE entry_index >= ? ORDER BY entry_index)",
            (start,),
        )
        found, at = [], 0
        for length in map(int, lengths.split(",") if lengths else ()):
            found.append(leaves[at : at + length])
            at += length
        return found

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        """Insert tiles that have become full."""
        rows = [(one.level, one.number, one.tile.encoded) for one in tiles]
        self._insert("INSERT INTO tiles (level, number, hashes) VALUES", rows)

    def set_head(self, old_size: int, head: Head) -> None:
        """Replace the head of this size."""
        changed = self._execute(
            "UPDATE head SET size = ?, root = ?, checkpoint = ? WHERE size = ? RETURNING 1",
            (head.size, head.root, head.checkpoint, old_size),
        )
        if len(changed) != 1:
            raise StorageInDoubt(f"the head is no longer of size {old_size}")

    def commit(self) -> None:
        """Make the batch durable. After StorageInDoubt, it may be on disk nevertheless.

        With a full disk or a read-only file it is certain that it is not: the commit record, which is
        written last, was not written.
        """
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise StorageFailed(str(error)) from error
            raise StorageInDoubt(str(error)) from error

    def roll_back(self) -> None:
        """Forget the batch."""
        if self.connection.in_transaction:
            self._execute("ROLLBACK")


@functools.cache
def _of_rows(statement: str, columns: int, count: int) -> str:
    """Give a statement of so many rows: the same text each time, under which it is found compiled."""
    row = f"({', '.join('?' * columns)})"
    return f"{statement} {', '.join([row] * count)}"


def _open_for_writing(path: Path) -> sqlite3.Connection:
    connection = connect(path, "rw")
    try:
        migrate_sqlite(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        # How pages were before a statement of many rows, in case it fails in the middle: some megabytes of
        # the largest batch. Else each batch has a file made for them in a folder of everybody's, and what
        # is written of openings there, no expungement overwrites. Not for a migration, which may sort all.
        connection.execute("PRAGMA temp_store = MEMORY")
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
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotReady("LEDGER_UNREADABLE", f"{path} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise NotReady(
            "LEDGER_LOCKED", f"another process has the ledger open ({path} is locked)"
        ) from error
    return descriptor
