"""How the ledger fares as it grows: appends, proofs, queries, checks, memory and disk, in one table.

One log grows through all sizes, in large requests of synthetic entries (those of `ledger_queries.py`).
The last entries before each size come as a busy broker sends them, and are what "appends" measures. Then:
proofs of entries drawn at random, the query index brought up to date by its own process, pages and
grouped counts, and the whole file re-read and verified by the ledger's own check.
Run: `python bench/ledger_growth.py [--sizes 1e4,1e5,1e6,1e7] [--keep FOLDER]`. 10,000,000 takes about an
hour and 10 GB; with `--keep`, a run that was stopped goes on where it was. Bounded by the sizes; ends only
what it started.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import math
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.archive import Archive
from ledger.check import check
from ledger.entry import CompletedEntry, Completer, index_columns
from ledger.index_process import IndexProcess
from ledger.log import OpenLog, begin_log, opened
from ledger.query_service import LedgerQueryServicer
from ledger.sequencer import Limits, Sequencer
from ledger.sqlite_storage import SqliteDatabase
from ledger.standing import NoOpenings
from ledger.storage import Database
from ledger_queries import COUNTS, QUERIES, SIGNER, START_S, ledger_with_index, synthetic
from shared import logs
from shared.clock import SystemClock

SIZES: Final = (10_000, 100_000, 1_000_000)
BULK_ENTRIES: Final = 8_192
LIMITS: Final = Limits(
    batch_entries=BULK_ENTRIES, batch_bytes=64 << 20, queue_entries=65_536, queue_bytes=1 << 30
)
MEASURED_ENTRIES: Final = 8_000
"""Before each size, in requests as the broker makes them."""
REQUEST_ENTRIES: Final = 64
REQUESTS_IN_FLIGHT: Final = 8
TEMPLATES: Final = 3_000
SECONDS_BETWEEN: Final = 3
PROOFS: Final = 2_000
ROUNDS: Final = 5
INDEX_WAIT_S: Final = 7_200.0
SEED: Final = 1

console = Console(width=140)


@dataclass(frozen=True)
class Row:
    """What was found at one size."""

    size: int
    appends_per_second: float
    append_p99_ms: float
    proof_p50_ms: float
    proof_p99_ms: float
    memory_mb: float
    page_ms: float
    count_ms: float
    index_memory_mb: float
    checked_per_second: float
    ledger_mb: float
    index_mb: float


def made_entries(start: int) -> Iterator[CompletedEntry]:
    """Entries from an index on: a few thousand different ones, each time with other ids and times."""
    templates = [Entry.FromString(leaf) for leaf in synthetic(TEMPLATES)]
    for one in templates:
        del one.commitments[:]  # what was committed to would have to be stored too
    columns = [index_columns(one) for one in templates]
    for index in itertools.count(start):
        entry, column = templates[index % TEMPLATES], columns[index % TEMPLATES]
        assert column is not None
        ends = entry.WhichOneof("event") == "search_answered"
        decided = index - 2 if ends else index
        entry.search_id = str(uuid.UUID(int=decided))
        entry.recorded_at.seconds = START_S + index * SECONDS_BETWEEN
        if ends:
            entry.search_answered.decided_index = decided
        leaf = entry.SerializeToString(deterministic=True)
        yield CompletedEntry(leaf, None, column._replace(search_id=entry.search_id), ())


async def grow(
    sequencer: Sequencer,
    entries: Iterator[CompletedEntry],
    size: int,
    told: Callable[[int], None],
) -> tuple[float, float]:
    """Append until the log has this size; gives entries a second and the p99 of a request in ms.

    Both are NaN for a log that has this size already, because an earlier run was stopped there.
    """
    while (left := size - MEASURED_ENTRIES - sequencer.published.size) > 0:
        await sequencer.append(list(itertools.islice(entries, min(BULK_ENTRIES, left))))
        told(sequencer.published.size)
    start = sequencer.published.size
    requests = [
        list(itertools.islice(entries, min(REQUEST_ENTRIES, size - number)))
        for number in range(start, size, REQUEST_ENTRIES)
    ]
    if not requests:
        return math.nan, math.nan
    waiting = iter(requests)
    waits: list[float] = []

    async def appender() -> None:
        for request in waiting:
            began = time.perf_counter()
            await sequencer.append(request)
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(appender() for _ in range(REQUESTS_IN_FLIGHT)))
    took = time.perf_counter() - began
    waits.sort()
    return (size - start) / took, waits[len(waits) * 99 // 100] * 1e3


async def prove(archive: Archive, size: int) -> tuple[float, float]:
    """The median and p99 in ms of a proof of an entry drawn at random."""
    drawn = random.Random(SEED)  # which entries are proved is no secret
    waits = []
    for _ in range(PROOFS):
        began = time.perf_counter()
        await archive.inclusion_proof(drawn.randrange(size), 0)
        waits.append(time.perf_counter() - began)
    waits.sort()
    return waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3


async def slowest(asked: list[Callable[[], Awaitable[object]]]) -> float:
    """The median time in ms of the question that takes longest."""
    medians = []
    for ask in asked:
        waits = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await ask()
            waits.append(time.perf_counter() - began)
        medians.append(statistics.median(waits) * 1e3)
    return max(medians)


async def asked(
    log: OpenLog, process: IndexProcess, told: Callable[[int], None]
) -> tuple[float, float, float]:
    """The slowest page and the slowest count in ms, and the index's memory in MB, once it is up to date."""
    size = log.sequencer.published.size
    async with asyncio.timeout(INDEX_WAIT_S):
        while process.indexed < size:  # nobody tells of each batch
            await asyncio.sleep(0.05)
            told(process.indexed)
    completer = Completer("spiffe://countersign.test/service/ledger", SystemClock())
    servicer = LedgerQueryServicer(log.archive, log.sequencer, process, completer, NoOpenings())
    context: Any = None
    page = await slowest(
        [partial(servicer.QueryEntries, request, context) for request in QUERIES.values()]
    )
    count = await slowest(
        [
            partial(servicer.CountEntries, pb.CountEntriesRequest(group_by=dimensions), context)
            for dimensions in COUNTS.values()
        ]
    )
    return page, count, psutil.Process(process.process_id).memory_info().rss / 1e6


def checked(database: Database, size: int) -> float:
    """Entries a second that the ledger's check re-reads and verifies."""
    began = time.perf_counter()
    with contextlib.closing(database.open_for_reading()) as reading:
        check(reading, [SIGNER.verifier])
    return size / (time.perf_counter() - began)


class Measuring:
    """One log that grows, and its index."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._database = SqliteDatabase(folder / "ledger.sqlite")
        self._index = folder / "index.duckdb"
        self._progress = progress
        if not self._database.has_log():
            begin_log(self._database, SIGNER)
        with contextlib.closing(self._database.open_for_reading()) as reading:
            self.size = reading.head().size
        self._entries = made_entries(self.size)

    def _follows(self, size: int, what: str) -> Callable[[int], None]:
        task: TaskID = self._progress.add_task(f"{what} to {size:,}", total=size)
        return lambda reached: self._progress.update(task, completed=reached)

    async def at(self, size: int) -> Row:
        """Grow to this size and measure there."""
        told = self._follows(size, "grows")
        async with opened(self._database.open_for_writing(), SIGNER, LIMITS) as log:
            rate, append_p99 = await grow(log.sequencer, self._entries, size, told)
            proof_p50, proof_p99 = await prove(log.archive, size)
            memory = psutil.Process().memory_info().rss / 1e6
        told(size)
        told = self._follows(size, "is indexed")
        async with ledger_with_index(self._database, self._index) as (log, process):
            assert process is not None
            page, count, index_memory = await asked(log, process, told)
        told(size)
        rate_checked = await asyncio.to_thread(checked, self._database, size)
        return Row(
            *(size, rate, append_p99, proof_p50, proof_p99, memory),
            *(page, count, index_memory, rate_checked),
            bytes_of(self._database.path) / 1e6,
            bytes_of(self._index) / 1e6,
        )


def bytes_of(file: Path) -> int:
    """What a file and those that belong to it (its log, its backup of tiles) take."""
    return sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*") if one.is_file())


async def measure(folder: Path, sizes: list[int]) -> list[Row]:
    """Every size, one log; what an earlier run in this folder found is taken from there."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    found = folder / "found.jsonl"
    earlier = found.read_text(encoding="ascii").splitlines() if found.exists() else []
    rows = {row.size: row for row in (Row(**json.loads(line)) for line in earlier)}
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        measuring = Measuring(folder, progress)
        left = [size for size in sizes if size not in rows]
        if left and left[0] < measuring.size:
            raise SystemExit(f"the log in {folder} has {measuring.size:,} entries: begin another")
        for size in left:
            row = rows[size] = await measuring.at(size)
            with found.open("a", encoding="ascii") as file:
                file.write(f"{json.dumps(dataclasses.asdict(row))}\n")
            progress.console.print(row)
    return [rows[size] for size in sizes]


def sizes_of(text: str) -> list[int]:
    """Sizes, separated by commas, each as 10000 or as 1e4."""
    sizes = [float(one) for one in text.split(",")]
    if any(size != int(size) or size <= MEASURED_ENTRIES for size in sizes):
        raise ValueError(text)
    return [int(size) for size in sizes]


HEADINGS: Final = (
    ("entries", "{:,}"),
    ("appends/s", "{:,.0f}"),
    ("append p99 ms", "{:.0f}"),
    ("proof p50 ms", "{:.2f}"),
    ("proof p99 ms", "{:.2f}"),
    ("memory MB", "{:,.0f}"),
    ("slowest page ms", "{:,.0f}"),
    ("slowest count ms", "{:,.0f}"),
    ("index memory MB", "{:,.0f}"),
    ("verified/s", "{:,.0f}"),
    ("ledger MB", "{:,.0f}"),
    ("index MB", "{:,.0f}"),
)


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(
        title="The ledger as it grows (SQLite, entries of about 500 bytes without openings)"
    )
    for heading, _ in HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        values = zip(HEADINGS, dataclasses.astuple(row), strict=True)
        table.add_row(*(form.format(value) for (_, form), value in values))
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The ledger at each power of ten.")
    parser.add_argument(
        "--sizes",
        type=sizes_of,
        nargs="+",
        default=[list(SIZES)],
        help=f"such as 1e4,1e5; each above {MEASURED_ENTRIES:,}",
    )
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="write here, keep it, and go on where an earlier run was stopped",
    )
    arguments = parser.parse_args()
    sizes = sorted({size for some in arguments.sizes for size in some})
    logs.configure("bench", "ERROR")
    with ExitStack() as stack:
        if arguments.keep is not None:
            folder = arguments.keep
            folder.mkdir(parents=True, exist_ok=True)
        else:
            made = tempfile.TemporaryDirectory(dir=arguments.folder, prefix="countersign-bench-")
            folder = Path(stack.enter_context(made))
        show(uvloop.run(measure(folder, sizes)))


if __name__ == "__main__":
    main()
