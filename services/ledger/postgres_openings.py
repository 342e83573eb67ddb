"""The openings in PostgreSQL: their rows in the log's database, their wrapped keys in another."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from ledger.entry import SealedOpening
from ledger.key_store import SqlKeyStore
from ledger.opening_rows import OpeningRows, Token
from ledger.postgres_connection import FAILURES, PostgresSettings, connect, parameters_from
from ledger.postgres_reading import PostgresReading
from ledger.postgres_storage import PostgresDatabase
from shared.errors import NotReady
from shared.settings import SettingsError

_TABLES = (
    """CREATE TABLE IF NOT EXISTS holder_keys (
    holder text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    version integer NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (holder, generation)
)""",
    """CREATE TABLE IF NOT EXISTS key_blocks (
    block bigint PRIMARY KEY,
    holder text COLLATE "C" NOT NULL,
    holder_generation bigint NOT NULL,
    generation bigint NOT NULL,
    sealed bytea NOT NULL
)""",
    "CREATE INDEX IF NOT EXISTS key_blocks_by_holder ON key_blocks (holder, block, generation)",
)


class PostgresOpeningRows(PostgresReading, OpeningRows):
    """The rows, on a session of their own that may change them."""

    @classmethod
    def of(cls, database: PostgresDatabase) -> "PostgresOpeningRows":
        """Open a session of its own; raises NotReady or StorageFailed."""
        return cls(database.parameters, connect(database.parameters, writes=True))

    def _again_if_lost(self) -> None:
        if self._connection.closed:
            self._connection = connect(self._parameters, writes=True)

    @contextlib.contextmanager
    def _change(self) -> Iterator[psycopg.Cursor[tuple[object, ...]]]:
        self._rows(
            "SELECT 1"
        )  # a question finds out whether the session was lost; a change is not asked twice
        with FAILURES, self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def remove(self, entries: Sequence[int], tokens: Sequence[Token]) -> None:
        """Remove and set."""
        with self._change() as cursor:
            cursor.executemany(
                "DELETE FROM openings WHERE entry_index = %s", [(index,) for index in entries]
            )
            cursor.executemany(
                "UPDATE openings SET lookup_token = %s WHERE entry_index = %s AND field = %s",
                [(token, index, field) for index, field, token in tokens],
            )

    def replace_clear(self, sealed: Sequence[tuple[int, SealedOpening]]) -> None:
        """Insert and delete."""
        with self._change() as cursor:
            cursor.executemany(
                "INSERT INTO openings"
                " (entry_index, field, holder, block, slot, sealed, lookup_token)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (i, one.field, one.holder, one.block, one.slot, one.sealed, one.lookup_token)
                    for i, one in sealed
                ],
            )
            cursor.executemany(
                "DELETE FROM clear_openings WHERE entry_index = %s AND field = %s",
                [(index, one.field) for index, one in sealed],
            )

    def forget(self) -> None:
        """Leave it to the server: what was removed is unreadable, because its key is destroyed."""

    def rewrite_is_due(self) -> bool:
        """Never: no release kept clear openings in PostgreSQL."""
        return False

    def rewrite(self) -> None:
        """Leave it to the owner of the tables."""


class PostgresKeyStore(SqlKeyStore):
    """The wrapped keys, in a database that every replica reaches and that belongs to the service's role."""

    mark = "%s"

    def __init__(
        self, parameters: Mapping[str, Any], connection: "psycopg.Connection[tuple[Any, ...]]"
    ) -> None:
        super().__init__(connection)
        self._parameters = parameters

    @classmethod
    def open(cls, settings: PostgresSettings, *, create: bool) -> "PostgresKeyStore":
        """Connect; raises NotReady when the tables are not there and may not be made."""
        if settings.key_store_dsn_file is None:
            raise SettingsError("database.postgres.key_store_dsn_file: it is not set")
        parameters = parameters_from(
            settings.key_store_dsn_file,
            settings.authority,
            trust_any=settings.dangerously_trust_any_server,
        )
        try:
            connection = psycopg.connect(**parameters, autocommit=True)
            if create:
                for statement in _TABLES:
                    connection.execute(statement)
            row = connection.execute("SELECT to_regclass('key_blocks') IS NOT NULL").fetchone()
        except psycopg.Error as error:
            raise NotReady("OPENING_KEYS_UNREADABLE", f"the key store: {error}") from error
        if row is None or not row[0]:
            connection.close()
            raise NotReady(
                "OPENING_KEYS_MISSING",
                f"the database of {settings.key_store_dsn_file} has no keys, and without them the "
                "openings cannot be read: restore it",
            )
        return cls(parameters, connection)

    def _failures(self) -> type[Exception]:
        return psycopg.Error

    def _run(self, statement: str, values: Sequence[object]) -> Any:
        try:
            return self._connection.execute(statement, values)
        except psycopg.OperationalError:
            if not self._connection.closed or not statement.startswith("SELECT"):
                raise
        # The server was started anew since the last question, which is asked once more.
        self._connection = psycopg.connect(**self._parameters, autocommit=True)
        return self._connection.execute(statement, values)

    def _before_change(self) -> None:
        self._run("SELECT 1", ())

    def forget(self) -> None:
        """Write the tables anew, so that their files have nothing of what was replaced."""
        self._change("VACUUM FULL key_blocks")
        self._change("VACUUM FULL holder_keys")

    def close(self) -> None:
        """Close the connection, whether or not it still stands."""
        with contextlib.suppress(psycopg.Error):
            super().close()
