"""Reads the ledger's SQLite file."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from ledger.reading import StorageFailed
from ledger.schema import require_newest, sqlite_version
from ledger.sql_reading import SqlReading

BUSY_TIMEOUT_MS: Final = 5000
"""Only a backup can hold the file; it does so for moments."""


class SqliteFailures:
    """Around whatever speaks with SQLite: says in the ledger's own words that it failed."""

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StorageFailed(str(error)) from error


FAILURES: Final = SqliteFailures()


def named_by(key: str) -> str:
    """Give the SQL for what comes after the first slash of a key: by it the index of keys is sorted."""
    return f"substr({key}, instr({key}, '/') + 1)"


def bearing(key: str) -> str:
    """Give the condition on the entry that bears a key."""
    # Not "=": SQLite would put the value in the column's place everywhere, and search no index.
    return (
        f"{named_by('idempotency_key')} = {named_by(key)}"
        f" AND idempotency_key IS {key} AND idempotency_key IS NOT NULL"
    )


def of_search(search_id: str) -> str:
    """Give the question for the entries of a search: those whose key names it too, and the others."""
    named = named_by("idempotency_key")
    question = f"SELECT entry_index FROM entries WHERE search_id = {search_id} AND"  # noqa: S608
    return (
        f"{question} {named} = +{search_id} AND idempotency_key IS NOT NULL"
        f" UNION ALL {question} (idempotency_key IS NULL OR {named} <> search_id)"
    )


class SqliteReading(SqlReading):
    """Reads by one connection to the file."""

    OF_SEARCH: ClassVar = f"entry_index IN ({of_search(':search_id')})"
    BEARING: ClassVar = bearing(":idempotency_key")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> "SqliteReading":
        """Open a connection of its own, which sees what is committed; NotReady or StorageFailed."""
        with FAILURES:
            connection = connect(path, "ro")
            try:
                connection.execute("PRAGMA query_only = ON")
                stored = sqlite_version(connection)
                require_newest(stored, str(path), "start the ledger with it once")
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def one_state(self) -> Iterator[None]:
        """See one state of the file throughout."""
        with FAILURES:
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with FAILURES:
                self._connection.execute("ROLLBACK")

    def _rows(self, question: str, **values: object) -> Sequence[tuple[Any, ...]]:
        with FAILURES:
            return self._connection.execute(question, values).fetchall()

    def broken_structure(self) -> str | None:
        """Have SQLite compare its pages and indexes with the rows; give the first fault."""
        ((found,),) = self._rows("PRAGMA integrity_check(1)")
        return None if found == "ok" else str(found)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a connection; `mode` is ro, rw or rwc."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection
