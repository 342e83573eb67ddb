"""Copies a log from PostgreSQL into a backup's SQLite file, and from such a file into an empty database.

So there is one form of backup, whichever engine keeps the log, and one way to verify it; and a log can be
moved from one engine to the other.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ledger.check import Checked, check
from ledger.postgres_connection import (
    FAILURES,
    LOCK_SPACE,
    WRITER_LOCK,
    Connection,
    connect,
)
from ledger.postgres_reading import WritersReading
from ledger.postgres_storage import PostgresDatabase
from ledger.reading import Reading, StorageFailed
from ledger.schema import migrate_sqlite
from ledger.sqlite_reading import FAILURES as SQLITE_FAILURES
from ledger.sqlite_reading import SqliteReading
from shared.errors import NotReady
from tlog.cosignature import LogVerifier

ROWS_AT_ONCE: Final = 256
"""Entries of 64 kB come to 16 MB."""

_HEAD: Final = "head", ("only_row", "size", "root", "checkpoint")
_TABLES: Final = {
    "entries": ("entry_index", "leaf", "kind", "search_id", "origin_agency", "idempotency_key"),
    "openings": ("entry_index", "field", "holder", "block", "slot", "sealed", "lookup_token"),
    "open_searches": ("decided_index", "search_id"),
    "tiles": ("level", "number", "hashes"),
}
_TYPES: Final = {
    "entries": ("int8", "bytea", "int4", "text", "text", "text"),
    "openings": ("int8", "text", "text", "int8", "int4", "bytea", "bytea"),
    "open_searches": ("int8", "text"),
    "tiles": ("int4", "int8", "bytea"),
}

Rows = Iterable[Sequence[Any]]


def copy_out(reading: Reading, path: Path) -> None:
    """Write a log, as it is at one moment, into a SQLite file that is there and empty.

    The caller verifies it and makes it durable. Raises StorageFailed.
    """
    with (
        SQLITE_FAILURES,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as target,
        reading.one_state(),
    ):
        migrate_sqlite(target, begin=True)
        if reading.clear_openings(1):
            raise StorageFailed("some openings are in the clear; start the ledger once")
        target.execute("PRAGMA synchronous = OFF")
        target.execute("BEGIN")
        head = reading.head()
        _insert(target, *_HEAD, [(1, head.size, head.root, head.checkpoint)])
        for table, rows in _stored(reading).items():
            _insert(target, table, _TABLES[table], rows)
        target.execute("COMMIT")


def copy_in(path: Path, database: PostgresDatabase, verifiers: Sequence[LogVerifier]) -> Checked:
    """Put a backup's file into a database that has the tables and no log, and verify all of it there.

    One transaction holds it: a crash leaves the whole log or none. Raises NotReady when there is a log,
    CheckFailed, StorageFailed.
    """
    if database.has_log():
        raise NotReady("LEDGER_EXISTS", f"{database} has a log already")
    with (
        contextlib.closing(SqliteReading.open(path)) as reading,
        contextlib.closing(connect(database.parameters, writes=True)) as connection,
        FAILURES,
        connection.transaction(),
        reading.one_state(),
    ):
        _begin(connection, database, reading)
        for table, rows in _stored(reading).items():
            _copy(connection, table, rows)
        connection.execute("ANALYZE")
        return check(WritersReading(connection), verifiers)


def _begin(connection: Connection, database: PostgresDatabase, reading: Reading) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, WRITER_LOCK))
    head = reading.head()
    begun = connection.execute(
        "INSERT INTO head (only_row, size, root, checkpoint, epoch)"
        " SELECT 1, %s, %s, %s, 0 WHERE NOT EXISTS (SELECT FROM entries)"
        " ON CONFLICT DO NOTHING RETURNING 1",
        (head.size, head.root, head.checkpoint),
    ).fetchone()
    if begun is None:
        raise NotReady("LEDGER_EXISTS", f"{database} has a log already")


def _stored(reading: Reading) -> dict[str, Rows]:
    """Everything but the head, by table, in the order of the columns."""
    openings = (
        (index, one.field, one.holder, one.block, one.slot, one.sealed, one.lookup_token)
        for index, one in reading.every_opening()
    )
    return {
        "entries": reading.every_row(),
        "openings": openings,
        "open_searches": reading.every_open_search(),
        "tiles": reading.every_tile(),
    }


def _insert(target: sqlite3.Connection, table: str, columns: Sequence[str], rows: Rows) -> None:
    statement = (
        f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608
        f" VALUES ({', '.join('?' * len(columns))})"
    )
    for part in _parts(rows):
        target.executemany(statement, part)


def _copy(connection: Connection, table: str, rows: Rows) -> None:
    statement = f"COPY {table} ({', '.join(_TABLES[table])}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(_TYPES[table])
        for row in rows:
            copy.write_row(row)


def _parts(rows: Rows) -> Iterator[list[Sequence[Any]]]:
    remaining = iter(rows)
    while part := list(islice(remaining, ROWS_AT_ONCE)):
        yield part
