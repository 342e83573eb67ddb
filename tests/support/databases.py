"""Where the tests keep their logs: every engine that the ledger knows, each with a way to tamper."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Protocol

import pytest

from ledger.history import Peaks
from ledger.last_signed import Signed
from ledger.log import begin_log
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database
from support.ledgers import ORIGIN, SIGNER
from support.postgres import PostgresUnderTest


class DatabaseUnderTest(Database, Protocol):
    """A database that a test can look into and change behind the ledger's back."""

    def change(self, statement: str, *values: object) -> None:
        """Does something that the ledger itself never does. Values stand as `?`."""

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Looks into the tables."""


class SqliteUnderTest(SqliteDatabase, DatabaseUnderTest):
    """A SQLite file."""

    def change(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(statement, values)
        connection.close()

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as connection:
            found = connection.execute(question).fetchall()
        connection.close()
        return found


@pytest.fixture(name="engine", params=["sqlite", "postgres"])
def _engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn. A test of one of them says `parametrize("engine", ["sqlite"])`."""
    return str(request.param)


@pytest.fixture(name="no_log")
def _no_log(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseUnderTest:
    """A database in which no log was begun."""
    if engine == "postgres":
        found: PostgresUnderTest = request.getfixturevalue("postgres_database")
        return found
    return SqliteUnderTest(tmp_path / "ledger.sqlite")


@pytest.fixture(name="database")
def _database(no_log: DatabaseUnderTest) -> DatabaseUnderTest:
    """A log without entries, in each engine."""
    begin_log(no_log, SIGNER)
    return no_log


def vouch_for(database: Database) -> None:
    """Writes the record of the last signature, as its operator does for a log that is older than it."""
    with (
        contextlib.closing(database.open_for_reading()) as reading,
        contextlib.closing(database.open_last_signed()) as store,
    ):
        head = reading.head()
        peaks = Peaks().grown(reading.leaves(0, head.size))
        assert peaks.root == head.root
        store.swap(None, Signed(ORIGIN, head.size, head.root, peaks=peaks.hashes))
