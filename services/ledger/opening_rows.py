"""Changes the rows of the openings: what expungement removes, and what release 0.1 left in the clear.

The writer only ever adds rows. What is here is rare and short, and has a connection of its own.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from ledger.entry import SealedOpening
from ledger.reading import Reading
from ledger.sqlite_reading import FAILURES, SqliteReading, connect

REWRITE_IS_DUE: Final = 1
"""The `application_id` of a file some of whose pages may hold remnants of clear openings; 0 otherwise."""

Token = tuple[int, str, bytes]
"""A new look-up token: index of the entry, field and token."""


class OpeningRows(Reading, Protocol):
    """Reads like any reader, and changes openings besides. Raises StorageFailed."""

    def remove(self, entries: Sequence[int], tokens: Sequence[Token]) -> None:
        """Remove the openings of entries and set new look-up tokens for others, in one transaction."""

    def replace_clear(self, sealed: Sequence[tuple[int, SealedOpening]]) -> None:
        """Put sealed openings in the place of clear ones, in one transaction."""

    def forget(self) -> None:
        """Leave nothing of what was removed in the engine's own files."""

    def rewrite_is_due(self) -> bool:
        """Whether clear openings were removed since the store was last written anew."""

    def rewrite(self) -> None:
        """Write the whole store anew, so that no page has a remnant of anything."""


class SqliteOpeningRows(SqliteReading, OpeningRows):
    """In a SQLite file."""

    @classmethod
    def open(cls, path: Path) -> "SqliteOpeningRows":
        """Open a connection of its own."""
        with FAILURES:
            connection = connect(path, "rw")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA synchronous = FULL")
            # It copies the write-ahead log only where it locks the writer out (see `WAL_PAGES_MAX`).
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        return cls(connection)

    def remove(self, entries: Sequence[int], tokens: Sequence[Token]) -> None:
        """Remove and set."""
        with FAILURES, _transaction(self._connection):
            self._connection.executemany(
                "DELETE FROM openings WHERE entry_index = ?", [(index,) for index in entries]
            )
            self._connection.executemany(
                "UPDATE openings SET lookup_token = ? WHERE entry_index = ? AND field = ?",
                [(token, index, field) for index, field, token in tokens],
            )

    def replace_clear(self, sealed: Sequence[tuple[int, SealedOpening]]) -> None:
        """Insert and delete."""
        with FAILURES, _transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO openings"
                " (entry_index, field, holder, block, slot, sealed, lookup_token)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(i, *one) for i, one in sealed],
            )
            self._connection.executemany(
                "DELETE FROM clear_openings WHERE entry_index = ? AND field = ?",
                [(index, one.field) for index, one in sealed],
            )
            # With what removes them: whatever ends the process before `rewrite` is done, it stays due.
            self._connection.execute(f"PRAGMA application_id = {REWRITE_IS_DUE}")

    def rewrite_is_due(self) -> bool:
        """Read it from the file's header."""
        with FAILURES:
            ((found,),) = self._connection.execute("PRAGMA application_id").fetchall()
        return bool(found == REWRITE_IS_DUE)

    def forget(self) -> None:
        """Empty the write-ahead log into the file; removed rows were overwritten with zeros."""
        with FAILURES:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def rewrite(self) -> None:
        """Write the whole file anew, so that no page has a remnant of anything."""
        with FAILURES:
            self._connection.execute("VACUUM")
        self.forget()
        with FAILURES:
            self._connection.execute("PRAGMA application_id = 0")


class _transaction:  # noqa: N801  # reads as what it is where it is used
    """A transaction that is undone when what is within it fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
