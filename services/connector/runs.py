"""What the connector has answered: search id to signed answer, in one small SQLite file.

Invariants:
- An answer is durable here before it is published. A crash in between leaves an answer that is
  published when the order is delivered again; a crash before leaves nothing, and the order runs again
  with nobody having seen the first run's candidates.
- A search has at most one answer, ever: the first that was kept.
- Answers are kept longer than any order can be valid, so that an order whose answer was forgotten
  is refused as expired.
- What is to be told of an answer to the ledger (`report_store`) is durable with it, or neither is.

What is kept is sealed to the requester; the connector itself cannot read it back.
"""

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from connector import report_store
from connector.proof import CLOCK_SKEW_MAX, VALIDITY_MAX
from connector.report_store import Ran
from connector.thread import WorkThread

RETENTION_MIN = VALIDITY_MAX + CLOCK_SKEW_MAX + timedelta(days=1)
"""Shortest retention: the longest that an order can be valid, and a day."""

BUSY_S_MAX = 5.0
"""How long to wait for a lock that only a second connector on the same file could hold."""

TOGETHER_MAX = 32
"""How many answers one statement writes: each number is a statement of its own."""

Returned = TypeVar("Returned")

# With row numbers, so that answers are written one after the other and a look-up reads names alone: half
# the work of answers in the order of their ids. Files of the other kind are read and written as well.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    search_id TEXT PRIMARY KEY,
    request_sha256 BLOB NOT NULL,
    signed_answer BLOB NOT NULL,
    answered_at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (answered_at);
CREATE TABLE IF NOT EXISTS begun_again (
    search_id TEXT PRIMARY KEY,
    times INTEGER NOT NULL,
    last_at REAL NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Run:
    """One search that was answered."""

    search_id: str
    request_sha256: bytes
    signed_answer: bytes
    """A serialised SignedAnswer."""
    answered_at: datetime
    ran: Ran | None = field(default=None, compare=False)
    """What the ledger is told of it; not read back."""
    answer_sha256: bytes = field(default=b"", compare=False)
    """Of the answer that is signed; not read back."""


class RunStore:
    """The file, written by one thread: answers that arrive together are committed together."""

    def __init__(
        self, path: Path, finish: Callable[[Sequence[Run]], Sequence[Run]] = lambda runs: runs
    ) -> None:
        """`finish` is given what is about to be committed together, and gives each as it is to be kept."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened here so that a file that cannot be used stops the start.
        self._database = sqlite3.connect(
            path, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        self._database.executescript(report_store.SCHEMA)
        self._reader = sqlite3.connect(path, timeout=BUSY_S_MAX, isolation_level=None)
        self._reader.execute("PRAGMA query_only = ON")
        self._writer = WorkThread("runs")
        self._finish = finish
        self._waiting: list[tuple[Run, asyncio.Future[Run]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def find(self, search_id: str) -> Run | None:
        """The answer that was kept for a search. Waits for no writer, so it needs no thread."""
        return _find(self._reader, search_id)

    async def keep(self, run: Run) -> Run:
        """Return what is durable for the search: this answer, or one that was kept earlier."""
        kept: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._waiting.append((run, kept))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await kept

    async def begin_again(self, search_id: str, now: datetime) -> int:
        """Count, durably, that an order without an answer is begun once more; return how often."""
        return await self._writer.do(lambda: self._begin_again(search_id, now))

    async def forget(self, before: datetime) -> int:
        """Delete answers from before a time; return how many."""
        return await self._writer.do(lambda: self._forget(before))

    async def write(self, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
        """Have something else written, or read, in one transaction, after all that was kept before."""
        return await self._writer.do(lambda: self._in_transaction(work))

    async def close(self) -> None:
        """Finish what is being written and close the file."""
        if self._flushing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._flushing
        self._reader.close()
        await self._writer.do(self._database.close)
        self._writer.close()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                runs = self._finish([run for run, _ in batch])
                durable = await self._writer.do(functools.partial(self._insert, runs))
            except Exception as error:  # noqa: BLE001  # whoever waits gets it, and waits no more
                for _, kept in batch:
                    if not kept.done():
                        kept.set_exception(error)
            else:
                for (_, kept), run in zip(batch, durable, strict=True):
                    if not kept.done():
                        kept.set_result(run)

    def _in_transaction(self, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            done = work(self._database)
            # A crash before this line leaves nothing of it, after it all.
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        return done

    def _insert(self, runs: Sequence[Run]) -> Sequence[Run]:
        with contextlib.suppress(_KeptBefore):
            return self._in_transaction(lambda _: self._insert_together(runs))
        return self._in_transaction(lambda _: [self._insert_one(run) for run in runs])

    def _insert_together(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Raises _KeptBefore.

        In few statements: each has this thread and that of the event loop wait for one another several times.
        """
        for start in range(0, len(runs), TOGETHER_MAX):
            some = runs[start : start + TOGETHER_MAX]
            values = [value for run in some for value in _values(run)]
            if self._database.execute(_inserting(len(some)), values).rowcount != len(some):
                raise _KeptBefore
            told = [(one.search_id, one.ran, one.answered_at) for one in some if one.ran]
            report_store.add(self._database, told)
        return runs

    def _insert_one(self, run: Run) -> Run:
        inserted = self._database.execute(_inserting(1), _values(run))
        if inserted.rowcount and run.ran is not None:
            report_store.add(self._database, [(run.search_id, run.ran, run.answered_at)])
        earlier = None if inserted.rowcount else _find(self._database, run.search_id)
        return earlier or run

    def _begin_again(self, search_id: str, now: datetime) -> int:
        # Durable before it returns: else what ends the process in the next moment is never counted.
        ((times,),) = self._database.execute(
            "INSERT INTO begun_again VALUES (?, 1, ?) ON CONFLICT (search_id)"
            " DO UPDATE SET times = times + 1, last_at = excluded.last_at RETURNING times",
            (search_id, now.timestamp()),
        ).fetchall()
        return int(times)

    def _forget(self, before: datetime) -> int:
        report_store.forget(self._database, before)
        self._database.execute("DELETE FROM begun_again WHERE last_at < ?", (before.timestamp(),))
        return self._database.execute(
            "DELETE FROM runs WHERE answered_at < ?", (before.timestamp(),)
        ).rowcount


class _KeptBefore(Exception):
    """An answer was kept earlier, so that which ones are new must be asked one by one."""


@functools.cache  # as many as there are numbers up to TOGETHER_MAX
def _inserting(count: int) -> str:
    rows = ", ".join(["(?, ?, ?, ?)"] * count)
    return f"INSERT INTO runs VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608  # no value is in it


def _values(run: Run) -> tuple[str, bytes, bytes, float]:
    return run.search_id, run.request_sha256, run.signed_answer, run.answered_at.timestamp()


def _find(database: sqlite3.Connection, search_id: str) -> Run | None:
    row = database.execute(
        "SELECT request_sha256, signed_answer, answered_at FROM runs WHERE search_id = ?",
        (search_id,),
    ).fetchone()
    if row is None:
        return None
    request_sha256, signed_answer, answered_at = row
    return Run(search_id, request_sha256, signed_answer, datetime.fromtimestamp(answered_at, UTC))
