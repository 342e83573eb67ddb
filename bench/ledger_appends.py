"""Ledger appends per second at 1, 64 and 256 in flight, beside bare group commits of the same engine.

Both write the same rows to the same tables with the same syncs, in batches of whatever has gathered
while the last commit was under way. The bare commits are given rows that are made already. The ledger makes
them, with commitments and sealed openings, reads them back, hashes them twice, and adds tiles, a signed
checkpoint and a receipt for each entry. Run: `python bench/ledger_appends.py [--seconds S] [--postgres]`;
the latter starts a PostgreSQL server of its own, with its ordinary settings for durability.
"""

import argparse
import asyncio
import atexit
import contextlib
import resource
import shutil
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED
from ledger.entry import CompletedEntry, Completer
from ledger.key_provider import FileKeyProvider
from ledger.key_store import SqliteKeyStore
from ledger.keyring import Keyring
from ledger.keys import FileKey
from ledger.log import begin_log, opened
from ledger.storage import Database, Head, Storage
from ledger.vault import KeyringSealer
from ledger_under_test import Engine
from shared.clock import SystemClock
from tlog.merkle import EMPTY_ROOT

IN_FLIGHT = (1, 64, 256)
ROUNDS = 3
"""The median of the rounds is shown: the machine is shared, and one round may meet a slow disk."""

ROWS_MADE = 4096
"""Rows that the bare commits are given again and again."""

SIGNER = FileKey.from_seed("ledger.example/bench", bytes(32))
FOLDER = Path(tempfile.mkdtemp(prefix="countersign-bench-keys-"))
atexit.register(shutil.rmtree, FOLDER)
KEYRING = Keyring(
    FileKeyProvider.create(FOLDER / "opening-keys"),
    SqliteKeyStore.open(FOLDER / "key-store", create=True),
)
COMPLETER = Completer(
    "spiffe://countersign.test/service/broker", SystemClock(), sealer=KeyringSealer(KEYRING)
)


@dataclass(frozen=True)
class Figures:
    """What one run came to."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def pending_entry(number: int) -> PendingEntry:
    """A decision as the broker sends it, about 600 bytes as an entry."""
    search_id = f"{number:08x}-0000-4000-8000-000000000000"
    pending = PendingEntry(idempotency_key=f"decided/{search_id}")
    pending.entry.search_id = search_id
    event = pending.entry.search_decided
    event.request_sha256 = bytes(32)
    event.summary.origin_agency = event.summary.beneficiary_agency = "CA0194200"
    event.summary.operator_agency = event.summary.gallery_owner = "CA0190000"
    event.summary.system, event.summary.gallery = "lacris", "lacris-booking"
    event.decision.outcome = DECISION_OUTCOME_PERMITTED
    event.decision.engine = "cedarpy 4.12.2"
    event.decision.policy_set_sha256 = bytes(32)
    for party in ("CA0194200", "CA0190000", "US-CA"):
        verdict = event.decision.verdicts.add(party=party)
        verdict.rules.add(id="LAPD-1", title="Searches for criminal investigation on LACRIS")
    for field in ("officer", "case_number", "narrative"):
        pending.sensitive.add(field=field, value="x" * 40)
    return pending


class BareGroupCommits:
    """The same rows with nothing around them: the floor that the engine and the disk set."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._size = 0
        self._queue: deque[tuple[CompletedEntry, asyncio.Future[None]]] = deque()
        self._arrival = threading.Condition()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def append(self, entry: CompletedEntry) -> None:
        """Insert one entry; returns when it is durable."""
        done = self._loop.create_future()
        with self._arrival:
            self._queue.append((entry, done))
            self._arrival.notify()
        await done

    def stop(self) -> None:
        """End the writer."""
        with self._arrival:
            self._stopping = True
            self._arrival.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._arrival:
                while not self._queue and not self._stopping:
                    self._arrival.wait()
                batch, self._queue = self._queue, deque()
            if not batch:
                return
            self._storage.begin()
            self._storage.add_entries(self._size, [entry for entry, _ in batch])
            after = self._size + len(batch)
            self._storage.set_head(self._size, Head(after, EMPTY_ROOT, "x" * 200))
            self._storage.commit()
            self._size = after
            self._loop.call_soon_threadsafe(self._resolve, batch)

    @staticmethod
    def _resolve(batch: deque[tuple[CompletedEntry, asyncio.Future[None]]]) -> None:
        for _, done in batch:
            done.set_result(None)


async def drive(
    append: Callable[[int], Awaitable[object]], in_flight: int, seconds: float
) -> Figures:
    """Keep a number of appends under way for a time."""
    waits: list[float] = []
    numbers = iter(range(100_000_000))
    end = time.perf_counter() + seconds
    cpu_before = resource.getrusage(resource.RUSAGE_SELF)

    async def one_after_the_other() -> None:
        while (started := time.perf_counter()) < end:
            await append(next(numbers))
            waits.append(time.perf_counter() - started)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    took = time.perf_counter() - began
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = cpu.ru_utime + cpu.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime
    return figures_of(waits, took, cpu_s)


def figures_of(waits: list[float], took_s: float, cpu_s: float) -> Figures:
    """What a run came to, from how long each entry waited."""
    waits = sorted(waits)
    return Figures(
        len(waits) / took_s,
        cpu_s / len(waits) * 1e6,
        waits[len(waits) // 2] * 1e3,
        waits[len(waits) * 99 // 100] * 1e3,
        waits[-1] * 1e3,
    )


async def run_ledger(database: Database, in_flight: int, seconds: float) -> Figures:
    """The ledger, from the broker's message to the receipt."""
    begin_log(database, SIGNER)
    async with opened(database.open_for_writing(), SIGNER) as log:

        async def append(number: int) -> object:
            return await log.sequencer.append([COMPLETER.complete(pending_entry(number), "entry")])

        return await drive(append, in_flight, seconds)


async def run_bare(database: Database, in_flight: int, seconds: float) -> Figures:
    """The engine alone: rows that were made before, each with a key and a search of its own."""
    begin_log(database, SIGNER)
    made = [COMPLETER.complete(pending_entry(number), "entry") for number in range(ROWS_MADE)]
    with contextlib.closing(database.open_for_writing()) as storage:
        bare = BareGroupCommits(storage)

        async def append(number: int) -> None:
            row = made[number % ROWS_MADE]
            search_id = str(uuid.uuid4())
            columns = row.columns._replace(search_id=search_id)
            await bare.append(row._replace(idempotency_key=f"decided/{search_id}", columns=columns))

        try:
            return await drive(append, in_flight, seconds)
        finally:
            bare.stop()


def median(runs: list[Figures]) -> Figures:
    """The run in the middle."""
    return sorted(runs, key=lambda one: one.per_second)[len(runs) // 2]


def measure(seconds: float, new: Callable[[], Database]) -> list[tuple[int, Figures, Figures]]:
    """Run both at each concurrency, by turns."""
    results = []
    for in_flight in IN_FLIGHT:
        ledger_runs, bare_runs = [], []
        for _ in range(ROUNDS):
            bare_runs.append(uvloop.run(run_bare(new(), in_flight, seconds / ROUNDS)))
            ledger_runs.append(uvloop.run(run_ledger(new(), in_flight, seconds / ROUNDS)))
        results.append((in_flight, median(bare_runs), median(ledger_runs)))
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Ledger appends beside bare group commits.")
    parser.add_argument("--seconds", type=float, default=3.0, help="per kind and concurrency")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of SQLite")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        engine = stack.enter_context(Engine.started(folder, postgres=arguments.postgres))
        results = measure(arguments.seconds, engine.database)
    show(engine.title, results)


def show(engine: str, results: list[tuple[int, Figures, Figures]]) -> None:
    """Print the table."""
    table = Table(title=f"Ledger appends ({engine})")
    for heading in (
        "in flight",
        "bare/s",
        "ledger/s",
        "ratio",
        "bare p50/p99 ms",
        "ledger p50/p99 ms",
        "bare CPU µs",
        "ledger CPU µs",
        "ratio",
    ):
        table.add_column(heading, justify="right")
    for in_flight, bare, ledger in results:
        table.add_row(
            str(in_flight),
            f"{bare.per_second:,.0f}",
            f"{ledger.per_second:,.0f}",
            f"{bare.per_second / ledger.per_second:.2f}",
            f"{bare.p50_ms:.1f} / {bare.p99_ms:.1f}",
            f"{ledger.p50_ms:.1f} / {ledger.p99_ms:.1f}",
            f"{bare.cpu_us:.0f}",
            f"{ledger.cpu_us:.0f}",
            f"{ledger.cpu_us / bare.cpu_us:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
