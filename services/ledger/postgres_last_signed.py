"""What the log signed last, in a PostgreSQL database: for a log whose writer may be any of several machines.

It belongs on another server than the log's own database, or at least in no backup of it: a server that is
restored with both would vouch for yesterday's log. Where there are witnesses, they notice.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import psycopg

from ledger.last_signed import RecordDamaged, Signed, changed_elsewhere, unusable

CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_MS: Final = 2000
"""A swap takes a few milliseconds; one that waits for another's would replace what that one wrote."""

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS countersign_last_signed"
    " (only_row integer PRIMARY KEY CHECK (only_row = 1), record bytea NOT NULL)"
)


class PostgresLastSigned:
    """The record in one row. One database for each log. Used by one thread at a time."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = dict(parameters)
        self._connection: psycopg.Connection[tuple[bytes]] | None = None

    @classmethod
    def open(cls, parameters: Mapping[str, Any]) -> "PostgresLastSigned":
        """Connect with libpq's parameters, and make the table if it is not there; raises SigningRefused."""
        store = cls(parameters)
        try:
            store._connected().execute(_TABLE)
        except psycopg.Error as error:
            store.close()
            raise unusable(store.where, error) from error
        return store

    @property
    def where(self) -> str:
        """Names the table, without the password."""
        database, host = (self._parameters.get(one, "(default)") for one in ("dbname", "host"))
        return f"table countersign_last_signed of database {database} on host {host}"

    def read(self) -> Signed | None:
        """Give the record; None when none was ever written. Raises SigningRefused or OSError."""
        try:
            try:
                return self._read()
            except psycopg.OperationalError:  # the connection was cut while nobody used it
                self.close()
                return self._read()
        except psycopg.Error as error:
            raise OSError(f"{self.where}: {error}") from error

    def swap(self, old: Signed | None, new: Signed) -> None:
        """Replace `old` by `new` in one statement; raises SigningRefused or OSError."""
        try:
            connection = self._connected()
            if old is None:
                changed = connection.execute(
                    "INSERT INTO countersign_last_signed VALUES (1, %s) ON CONFLICT DO NOTHING",
                    (new.encoded,),
                )
            else:
                changed = connection.execute(
                    "UPDATE countersign_last_signed SET record = %s WHERE record = %s",
                    (new.encoded, old.encoded),
                )
            if changed.rowcount != 1:
                raise changed_elsewhere(self.where, old, self._read())
        except psycopg.Error as error:
            self.close()
            raise OSError(f"{self.where}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _read(self) -> Signed | None:
        row = self._connected().execute("SELECT record FROM countersign_last_signed").fetchone()
        try:
            return None if row is None else Signed.decode(bytes(row[0]))
        except ValueError as error:
            raise RecordDamaged(self.where, str(error), None) from error

    def _connected(self) -> "psycopg.Connection[tuple[bytes]]":
        if self._connection is None:
            self._connection = psycopg.connect(
                **{"connect_timeout": CONNECT_TIMEOUT_S, **self._parameters}, autocommit=True
            )
            self._connection.execute("SET synchronous_commit = on")
            self._connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        return self._connection
