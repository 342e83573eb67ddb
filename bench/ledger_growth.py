"""How the ledger fares as it grows: appends, proofs, verification, memory and disk at each power of ten.

One log grows through all sizes. At each: entries a second on the way there, proofs of entries drawn
at random, the whole file re-read and verified by the ledger's own check, memory, bytes on disk.
Run: `python bench/ledger_growth.py [--sizes 10000 100000 1000000]`. 10,000,000 takes about half an
hour and 15 GB. Bounded by the sizes; ends only what it started.
"""

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ledger.archive import Archive
from ledger.check import check
from ledger.log import begin_log, opened
from ledger.sequencer import Sequencer
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database
from ledger_appends import COMPLETER, SIGNER, pending_entry

SIZES: Final = (10_000, 100_000, 1_000_000)
REQUEST_ENTRIES: Final = 64
REQUESTS_IN_FLIGHT: Final = 8
PROOFS: Final = 2_000
SEED: Final = 1

console = Console(width=120)


@dataclass(frozen=True)
class Row:
    """What was found at one size."""

    size: int
    appends_per_second: float
    append_p99_ms: float
    proof_p50_ms: float
    proof_p99_ms: float
    checked_per_second: float
    memory_mb: float
    disk_mb: float


async def grow(
    sequencer: Sequencer, size: int, advance: Progress, task: object
) -> tuple[float, float]:
    """Append until the log has this size; gives entries a second and the p99 of a request in ms."""
    start = sequencer.published.size
    numbers = iter(range(start, size, REQUEST_ENTRIES))
    waits: list[float] = []

    async def appender() -> None:
        for number in numbers:
            count = min(REQUEST_ENTRIES, size - number)
            entries = [COMPLETER.complete(pending_entry(number + i), "entry") for i in range(count)]
            began = time.perf_counter()
            await sequencer.append(entries)
            waits.append(time.perf_counter() - began)
            advance.update(task, completed=number + count)  # type: ignore[arg-type]

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


def checked(database: Database, size: int) -> float:
    """Entries a second that the ledger's check re-reads and verifies."""
    began = time.perf_counter()
    with contextlib.closing(database.open_for_reading()) as reading:
        check(reading, [SIGNER.verifier])
    return size / (time.perf_counter() - began)


def bytes_of(folder: Path) -> int:
    """What lies in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


async def measure(folder: Path, sizes: list[int]) -> list[Row]:
    """Every size, one log."""
    database = SqliteDatabase(folder / "ledger.sqlite")
    begin_log(database, SIGNER)
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for size in sizes:
            task = progress.add_task(f"to {size:,} entries", total=size)
            async with opened(database.open_for_writing(), SIGNER) as log:
                rate, append_p99 = await grow(log.sequencer, size, progress, task)
                proof_p50, proof_p99 = await prove(log.archive, size)
                memory = psutil.Process().memory_info().rss / 1e6
            rate_checked = await asyncio.to_thread(checked, database, size)
            disk = bytes_of(folder) / 1e6
            rows.append(
                Row(size, rate, append_p99, proof_p50, proof_p99, rate_checked, memory, disk)
            )
    return rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="The ledger as it grows (SQLite, entries of about 600 bytes)")
    for heading in (
        "entries",
        "appends/s",
        "append p99 ms",
        "proof p50 ms",
        "proof p99 ms",
        "checked/s",
        "memory MB",
        "disk MB",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row.size:,}",
            f"{row.appends_per_second:,.0f}",
            f"{row.append_p99_ms:.0f}",
            f"{row.proof_p50_ms:.2f}",
            f"{row.proof_p99_ms:.2f}",
            f"{row.checked_per_second:,.0f}",
            f"{row.memory_mb:,.0f}",
            f"{row.disk_mb:,.0f}",
        )
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The ledger at each power of ten.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="ascending")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="countersign-bench-") as folder:
        show(uvloop.run(measure(Path(folder), sorted(arguments.sizes))))


if __name__ == "__main__":
    main()
