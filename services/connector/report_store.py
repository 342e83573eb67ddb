"""What the connector has still to tell the ledger of what it ran: tables in the file of its answers.

Each function works within a transaction of `RunStore.write`.

Invariants:
- A run is told in one report, and is not forgotten before that report is receipted.
- A report that was made is kept, to the byte, until the ledger has receipted all of it: what is sent again is
  the same, and the ledger takes it once.
"""

import functools
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

DAYS_BACK_MAX: Final = 60
"""Days without a run that lie further back are not reported any more, after a long absence."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ran (
    search_id TEXT PRIMARY KEY,
    day TEXT NOT NULL,
    record BLOB NOT NULL,
    answered_at REAL NOT NULL,
    in_report INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS ran_untold ON ran (day) WHERE in_report = 0;
CREATE TABLE IF NOT EXISTS report_pages (
    page INTEGER PRIMARY KEY,
    day TEXT NOT NULL,
    signed BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reporting (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    first_day TEXT NOT NULL,
    last_reported TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Ran:
    """What is told of an order that was answered."""

    day: str
    """UTC day of its decision, as the ledger recorded it."""
    record: bytes
    """A serialised Run."""


@dataclass(frozen=True)
class WaitingReport:
    """A report that is not receipted yet."""

    day: str
    pages: Sequence[bytes]
    """Serialised SignedRunsReports, in order."""


def begin(database: sqlite3.Connection, today: date) -> None:
    """Say from which day on this file knows all that was run: at the first start of all, today.

    A file that an earlier release wrote does not know of its runs what is to be told: tomorrow.
    """
    (before,) = database.execute(
        "SELECT EXISTS (SELECT 1 FROM runs) AND NOT EXISTS (SELECT 1 FROM ran)"
    ).fetchone()
    first = today + timedelta(days=1) if before else today
    database.execute(
        "INSERT INTO reporting VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
        (first.isoformat(), (first - timedelta(days=1)).isoformat()),
    )


def add(database: sqlite3.Connection, told: Sequence[tuple[str, Ran, datetime]]) -> None:
    """Remember runs that are to be told, each with its search and when it was answered."""
    if not told:
        return
    values = [
        value
        for search_id, ran, answered_at in told
        for value in (search_id, ran.day, ran.record, answered_at.timestamp())
    ]
    database.execute(_adding(len(told)), values)


@functools.cache  # as many as are written together
def _adding(count: int) -> str:
    rows = ", ".join(["(?, ?, ?, ?, 0)"] * count)
    return f"INSERT INTO ran VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608  # no value is in it


def next_day(
    database: sqlite3.Connection, today: date, refused: Collection[str] = ()
) -> str | None:
    """Give the first day before today that a report is due of, and that is not refused; None when none is.

    Each day has a report, also one without runs; then each that has runs which are in none. Those that were
    answered today wait for tomorrow: a day has one further report for each later day, however slowly a
    backlog of it is run.
    """
    first_day, last_reported = database.execute(
        "SELECT first_day, last_reported FROM reporting"
    ).fetchone()
    following = max(
        date.fromisoformat(last_reported) + timedelta(days=1), today - timedelta(DAYS_BACK_MAX)
    )
    while following < today:
        if following.isoformat() not in refused:
            return following.isoformat()
        following += timedelta(days=1)
    midnight = datetime.combine(today, time(), UTC)
    untold = database.execute(
        "SELECT DISTINCT day FROM ran"
        " WHERE in_report = 0 AND day >= ? AND day < ? AND answered_at < ? ORDER BY day",
        (first_day, today.isoformat(), midnight.timestamp()),
    )
    return next((day for (day,) in untold if day not in refused), None)


def prepare(
    database: sqlite3.Connection, day: str, make: Callable[[Sequence[bytes]], Sequence[bytes]]
) -> WaitingReport:
    """Make the report of a day's runs that are in none yet, by search id."""
    records = [
        row[0]
        for row in database.execute(
            "SELECT record FROM ran WHERE in_report = 0 AND day = ? ORDER BY search_id", (day,)
        )
    ]
    pages = make(records)
    database.executemany(
        "INSERT INTO report_pages VALUES (?, ?, ?)",
        [(number, day, page) for number, page in enumerate(pages, 1)],
    )
    database.execute("UPDATE ran SET in_report = 1 WHERE in_report = 0 AND day = ?", (day,))
    return WaitingReport(day, pages)


def waiting(database: sqlite3.Connection) -> WaitingReport | None:
    """Give the report that is not receipted yet, if there is one."""
    rows = database.execute("SELECT day, signed FROM report_pages ORDER BY page").fetchall()
    return WaitingReport(rows[0][0], [signed for _, signed in rows]) if rows else None


def receipted(database: sqlite3.Connection, report: WaitingReport) -> None:
    """The ledger has all of the report."""
    _no_longer_wait(database, report)
    database.execute("UPDATE reporting SET last_reported = max(last_reported, ?)", (report.day,))


def drop(database: sqlite3.Connection, report: WaitingReport, search_ids: Sequence[str]) -> None:
    """The report is not taken: its runs go into another."""
    if _no_longer_wait(database, report):
        database.executemany(
            "UPDATE ran SET in_report = 0 WHERE search_id = ?", [(one,) for one in search_ids]
        )


def _no_longer_wait(database: sqlite3.Connection, report: WaitingReport) -> bool:
    # Of this report alone: a second connector on the same file may have made another since.
    deleted = database.executemany(
        "DELETE FROM report_pages WHERE signed = ?", [(page,) for page in report.pages]
    )
    return deleted.rowcount > 0


def forget(database: sqlite3.Connection, before: datetime) -> None:
    """Delete runs from before a time that are in a receipted report, or of no day that is reported."""
    database.execute(
        "DELETE FROM ran WHERE answered_at < ? AND (day < (SELECT first_day FROM reporting)"
        " OR (in_report = 1 AND NOT EXISTS (SELECT 1 FROM report_pages)))",
        (before.timestamp(),),
    )
