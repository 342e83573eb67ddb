"""Reads the ledger's PostgreSQL database, on a connection of its own that comes back when it was lost."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from ledger.postgres_connection import FAILURES, Connection, connect, in_postgres_words
from ledger.reading import StorageFailed
from ledger.sql_reading import SqlReading

# Each question is asked by way of the table and by way of one index, which must agree.
_BY_INDEX = {
    "entries_pkey": "entry_index >= 0",
    "entries_by_kind": "kind >= 0",
    "entries_by_key": "idempotency_key IS NOT NULL",
    "entries_by_search": "search_id IS NOT NULL",
    "entries_by_agency": "origin_agency IS NOT NULL",
}


class PostgresReading(SqlReading):
    """Reads by one session at a time."""

    def __init__(self, parameters: Mapping[str, Any], connection: Connection) -> None:
        self._parameters = parameters
        self._connection = connection
        self._in_one_state = False

    @classmethod
    def open(cls, parameters: Mapping[str, Any]) -> "PostgresReading":
        """Open a session of its own, which sees what is committed; raises StorageFailed."""
        return cls(parameters, connect(parameters, writes=False))

    def close(self) -> None:
        """Close the session."""
        self._connection.close()

    @contextlib.contextmanager
    def one_state(self) -> Iterator[None]:
        """See one state of the database throughout."""
        self._again_if_lost()
        with FAILURES:
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._in_one_state = True
        try:
            yield
        finally:
            self._in_one_state = False
            with contextlib.suppress(psycopg.Error):  # what ended it has been said
                self._connection.execute("ROLLBACK")

    def _again_if_lost(self) -> None:
        if self._connection.closed:
            self._connection = connect(self._parameters, writes=False)

    def _rows(self, question: str, **values: object) -> Sequence[Any]:
        if not self._in_one_state:
            self._again_if_lost()
        try:
            with FAILURES:
                return self._ask(question, values)
        except StorageFailed:
            if self._in_one_state or not self._connection.closed:
                raise
        # Lost since the last question, as when the server was started anew; asked once more.
        self._again_if_lost()
        with FAILURES:
            return self._ask(question, values)

    def _ask(self, question: str, values: Mapping[str, object]) -> Sequence[Any]:
        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(in_postgres_words(question), values or None).fetchall()

    def epoch_and_size(self) -> tuple[int, int]:
        """Give whose turn it is to write, and how large the tree is."""
        ((epoch, size),) = self._rows("SELECT epoch, size FROM head")
        return epoch, size

    def broken_structure(self) -> str | None:
        """Compare what each index finds with what the table holds; give the first fault."""
        for index, condition in _BY_INDEX.items():
            question = (
                "SELECT count(*), coalesce(sum(entry_index), 0)::text FROM entries"  # noqa: S608
                f" WHERE {condition}"
            )
            found = []
            for way in ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"):
                self._rows(f"SELECT set_config('{way}', 'off', true)")
            found.append(self._rows(question))
            self._rows("SELECT set_config('enable_seqscan', 'off', true)")
            self._rows("SELECT set_config('enable_indexscan', 'on', true)")
            self._rows("SELECT set_config('enable_indexonlyscan', 'on', true)")
            found.append(self._rows(question))
            self._rows("SELECT set_config('enable_seqscan', 'on', true)")
            if found[0] != found[1]:
                return f"{index} finds other entries than the table holds"
        return None


class WritersReading(PostgresReading):
    """Reads on the writer's session, within the batch under way. It never comes back."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({}, connection)

    def close(self) -> None:
        """Leave the session to the writer."""

    @contextlib.contextmanager
    def one_state(self) -> Iterator[None]:
        """See the batch under way, which is one state already."""
        yield

    def _again_if_lost(self) -> None: ...
