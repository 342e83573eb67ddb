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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.entry import DECIDED, TERMINAL, CompletedEntry
from shared.errors import NotReady
from tlog.tiles import FullTile

SCHEMA_VERSION: Final = 1

WAL_PAGES_MAX: Final = 4000
"""16 MB of log between copies into the database: fewer syncs, and still replayed in a moment."""
BUSY_TIMEOUT_MS: Final = 5000
"""Only a backup can hold the file; it does so for moments."""

_SCHEMA: Final = """
CREATE TABLE head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    checkpoint TEXT NOT NULL
) STRICT;
CREATE TABLE entries (
    entry_index INTEGER PRIMARY KEY,
    leaf BLOB NOT NULL,
    kind INTEGER NOT NULL,
    search_id TEXT,
    origin_agency TEXT,
    idempotency_key TEXT
) STRICT;
CREATE UNIQUE INDEX entries_by_key ON entries (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX entries_by_search ON entries (search_id) WHERE search_id IS NOT NULL;
CREATE INDEX entries_by_agency ON entries (origin_agency, entry_index, kind)
    WHERE origin_agency IS NOT NULL;
CREATE INDEX entries_by_kind ON entries (kind);
CREATE TABLE openings (
    entry_index INTEGER NOT NULL,
    field TEXT NOT NULL,
    salt BLOB NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (entry_index, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE open_searches (
    decided_index INTEGER PRIMARY KEY,
    search_id TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE tiles (
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT;
"""


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
        return cls._open(path)

    @classmethod
    def create(cls, path: Path, head: Head) -> "Storage":
        """Begin a new log with this head; raises NotReady when there is one already."""
        if path.exists():
            raise NotReady("LEDGER_EXISTS", f"{path} is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made apart and renamed when whole: a crash before the rename leaves no half-made log.
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.unlink(missing_ok=True)
        with _connect(unfinished, "rwc") as connection:
            connection.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {SCHEMA_VERSION};")
            connection.execute(
                "INSERT INTO head VALUES (1, ?, ?, ?)", (head.size, head.root, head.checkpoint)
            )
            connection.execute("COMMIT")
        connection.close()
        unfinished.rename(path)
        _sync_folder(path.parent)
        return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> "Storage":
        lock = _lock(path.with_name(f"{path.name}.lock"))
        try:
            connection = _connect(path, "rw")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            os.close(lock)
            raise NotReady("LEDGER_UNREADABLE", f"{path} cannot be opened: {error}") from error
        if version != SCHEMA_VERSION:
            connection.close()
            os.close(lock)
            raise NotReady(
                "LEDGER_SCHEMA", f"{path} has schema {version}; this program knows {SCHEMA_VERSION}"
            )
        return cls(path, lock, connection)

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
        numbered = list(enumerate(entries, start))
        self.connection.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            [
                (i, one.leaf, one.kind, one.search_id, one.origin_agency, one.idempotency_key)
                for i, one in numbered
            ],
        )
        openings = [
            (i, opening.field, opening.salt, opening.value)
            for i, one in numbered
            for opening in one.openings
        ]
        if openings:
            self.connection.executemany("INSERT INTO openings VALUES (?, ?, ?, ?)", openings)
        opened = [(i, one.search_id) for i, one in numbered if one.permitted and one.search_id]
        if opened:
            self.connection.executemany("INSERT OR IGNORE INTO open_searches VALUES (?, ?)", opened)
        ended = [(one.search_id,) for one in entries if one.kind in TERMINAL]
        if ended:
            self.connection.executemany("DELETE FROM open_searches WHERE search_id = ?", ended)

    def read_back(self, start: int) -> list[bytes]:
        """Read the leaves from an index on, as the database has them."""
        rows = self.connection.execute(
            "SELECT leaf FROM entries WHERE entry_index >= ? ORDER BY entry_index", (start,)
        )
        return [leaf for (leaf,) in rows]

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        """Insert tiles that have become full."""
        self.connection.executemany(
            "INSERT INTO tiles VALUES (?, ?, ?)",
            [(one.level, one.number, one.tile.encoded) for one in tiles],
        )

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


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; None for no bound."""

    start_index: int = 0
    search_id: str | None = None
    kind: int | None = None
    origin_agency: str | None = None


class Reading:
    """A hand on the file that only reads. Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, path: Path) -> "Reading":
        """Open a connection of its own, which sees what is committed."""
        connection = _connect(path, "ro")
        connection.execute("PRAGMA query_only = ON")
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def head(self) -> Head:
        """Read the head."""
        row = self.connection.execute("SELECT size, root, checkpoint FROM head").fetchone()
        return Head(*row)

    def leaf(self, index: int) -> bytes | None:
        """Read one entry's bytes."""
        row = self.connection.execute(
            "SELECT leaf FROM entries WHERE entry_index = ?", (index,)
        ).fetchone()
        return None if row is None else row[0]

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Read the bytes of entries in order; stops at a gap."""
        rows = self.connection.execute(
            "SELECT entry_index, leaf FROM entries WHERE entry_index >= ? AND entry_index < ?"
            " ORDER BY entry_index",
            (start, start + count),
        )
        leaves: list[bytes] = []
        for index, leaf in rows:
            if index != start + len(leaves):
                break
            leaves.append(leaf)
        return leaves

    def tile(self, level: int, number: int) -> bytes | None:
        """Read a full tile."""
        row = self.connection.execute(
            "SELECT hashes FROM tiles WHERE level = ? AND number = ?", (level, number)
        ).fetchone()
        return None if row is None else row[0]

    def find(self, wanted: Filter, size: int, count: int) -> list[tuple[int, bytes]]:
        """Find entries below `size`, by index, at most `count`."""
        conditions = ["entry_index >= :start", "entry_index < :size"]
        values: Mapping[str, object] = {
            "start": wanted.start_index,
            "size": size,
            "count": count,
            "search_id": wanted.search_id,
            "kind": wanted.kind,
            "origin_agency": wanted.origin_agency,
        }
        conditions += [
            f"{column} = :{column}"
            for column in ("search_id", "kind", "origin_agency")
            if values[column] is not None
        ]
        rows = self.connection.execute(
            f"SELECT entry_index, leaf FROM entries WHERE {' AND '.join(conditions)}"  # noqa: S608
            " ORDER BY entry_index LIMIT :count",
            values,
        )
        return rows.fetchall()

    def of_search(self, search_id: str, size: int) -> tuple[int | None, int | None]:
        """Find the indexes of a search's decision and of its end."""
        decided = ended = None
        rows = self.connection.execute(
            "SELECT entry_index, kind FROM entries WHERE search_id = ? AND entry_index < ?"
            " ORDER BY entry_index",
            (search_id, size),
        )
        for index, kind in rows:
            if kind == DECIDED and decided is None:
                decided = index
            elif kind in TERMINAL and ended is None:
                ended = index
        return decided, ended

    def open_searches(self, start: int, size: int, count: int) -> list[int]:
        """List the decisions of permitted searches without an end, by index."""
        rows = self.connection.execute(
            "SELECT decided_index FROM open_searches WHERE decided_index >= ?"
            " AND decided_index < ? ORDER BY decided_index LIMIT ?",
            (start, size, count),
        )
        return [index for (index,) in rows]

    def decisions_of(self, origin_agency: str, before: int, count: int) -> list[tuple[int, str]]:
        """List an agency's decisions with their search ids, newest first."""
        rows = self.connection.execute(
            "SELECT entry_index, search_id FROM entries WHERE origin_agency = ?"
            " AND kind = ? AND entry_index < ? AND search_id IS NOT NULL"
            " ORDER BY entry_index DESC LIMIT ?",
            (origin_agency, DECIDED, before, count),
        )
        return rows.fetchall()

    def every_row(self) -> Iterator[tuple[int, bytes, int, str | None, str | None, str | None]]:
        """Read every entry with its index columns, by index."""
        yield from self.connection.execute(
            "SELECT entry_index, leaf, kind, search_id, origin_agency, idempotency_key"
            " FROM entries ORDER BY entry_index"
        )

    def every_opening(self) -> Iterator[tuple[int, str, bytes, str]]:
        """Read every opening, by index."""
        yield from self.connection.execute(
            "SELECT entry_index, field, salt, value FROM openings ORDER BY entry_index, field"
        )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _lock(path: Path) -> int:
    """Take the writer's lock, which the kernel gives back when the process ends, however it ends."""
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
