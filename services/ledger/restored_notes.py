"""Where `restore` and `adopt` leave word for the writer: where whichever replica writes next finds it.

That is a file beside the log, or beside the record of the last signature where that is a file; and where the
record is in a database, that database. A pod that restores has no disk that outlives it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from shared.errors import Unavailable
from shared.whole_files import put, sync_folder

CONNECT_TIMEOUT_S: Final = 3

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS countersign_restored"
    " (only_row integer PRIMARY KEY CHECK (only_row = 1), note bytea NOT NULL)"
)
_PUT: Final = (
    "INSERT INTO countersign_restored VALUES (1, %s)"
    " ON CONFLICT (only_row) DO UPDATE SET note = excluded.note"
)


class Notes(Protocol):
    """A place for one note. Each method raises OSError or Unavailable when the place cannot be reached."""

    @property
    def where(self) -> str:
        """Names the place in messages."""

    def read(self) -> bytes | None:
        """Give the note; None when there is none."""

    def put(self, note: bytes) -> None:
        """Leave a note, durably, in place of an earlier one."""

    def remove(self) -> None:
        """Take the note away, durably."""


class FileNotes(Notes):
    """A file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """Names the file."""
        return str(self._path)

    def read(self) -> bytes | None:
        """Give what is in the file; None when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.read_bytes()
        return None

    def put(self, note: bytes) -> None:
        """Put a file in place, whole and on the disk."""
        put(self._path, note, sync=True)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink()
        sync_folder(self._path.parent)


class PostgresNotes(Notes):
    """One row, beside the record of the last signature."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """`parameters` are libpq's."""
        self._parameters = dict(parameters)

    @property
    def where(self) -> str:
        """Names the table, without the password."""
        database, host = (self._parameters.get(one, "(default)") for one in ("dbname", "host"))
        return f"table countersign_restored of database {database} on host {host}"

    def read(self) -> bytes | None:
        """Give what is in the row; None when there is none."""
        with self._connected() as connection:
            row = connection.execute("SELECT note FROM countersign_restored").fetchone()
        return None if row is None else bytes(row[0])

    def put(self, note: bytes) -> None:
        """Write the row."""
        with self._connected() as connection:
            connection.execute(_PUT, (note,))

    def remove(self) -> None:
        """Delete the row."""
        with self._connected() as connection:
            connection.execute("DELETE FROM countersign_restored")

    @contextlib.contextmanager
    def _connected(self) -> Iterator["psycopg.Connection[tuple[bytes]]"]:
        try:
            with psycopg.connect(
                **{"connect_timeout": CONNECT_TIMEOUT_S, **self._parameters}, autocommit=True
            ) as connection:
                connection.execute("SET synchronous_commit = on")
                connection.execute(_TABLE)
                yield connection
        except psycopg.Error as error:
            raise Unavailable("RESTORED_NOTE_UNREACHABLE", f"{self.where}: {error}") from error
