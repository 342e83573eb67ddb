"""The resident memory of each process of an installation over many full searches (those of `search.py`).

Prints it at the beginning and after each tenth, and ends with 1 when that of a process grew in the last
four tenths. Bounded in count; ends only what it started.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil
import uvloop
from rich.table import Table

from measuring import console, load
from search import IN_FLIGHT, WARM_UP, searching

NATS: Final = "nats-server"
MEMORY_LOOKS: Final = 10
"""How often memory is looked at, evenly."""
FILLED: Final = 6
"""Looks until it is to be flat. What the broker keeps at hand (10,000 records of 12 kB and 64 MiB of answers)
is full after some 27,000 searches, so a shorter run than of 50,000 shows it filling."""
MEMORY_GROWTH_MAX: Final = 0.05
"""From then on; how an allocator breathes."""
KEPT_EACH_MAX: Final = 4096
"""Bytes that NATS may grow by for each search. It keeps the answer's subject for a day, and for ten minutes
the ids of two messages, by which a second copy is told; its collector lets the heap double."""


async def measure_memory(searches: int) -> dict[str, list[float]]:
    """Resident memory of each process in MiB: at the beginning, and after each tenth of the searches."""
    resident: dict[str, list[float]] = {}

    def look(processes: dict[str, psutil.Process]) -> None:
        for name, process in processes.items():
            resident.setdefault(name, []).append(process.memory_info().rss / 2**20)

    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        async with searching(Path(folder) / "data") as (search, processes):
            look(processes)
            for number in range(MEMORY_LOOKS):
                part = await load(search, IN_FLIGHT, searches // MEMORY_LOOKS, processes)
                look(processes)
                done = (number + 1) * (searches // MEMORY_LOOKS)
                console.print(
                    f"{done} searches, {part.rate:.0f} a second, {part.cpu_total_ms:.1f} ms"
                )
    return resident


def show_memory(searches: int, resident: dict[str, list[float]]) -> bool:
    """Prints every look; says whether the memory of each process was flat at the end."""
    part = searches // MEMORY_LOOKS
    table = Table(title=f"Resident memory, MiB, {IN_FLIGHT} in flight", title_justify="left")
    columns = ("searches", *resident)
    for column in columns:
        table.add_column(column, justify="right")
    for number in range(MEMORY_LOOKS + 1):
        row = [f"{looks[number]:.0f}" for looks in resident.values()]
        table.add_row(str(WARM_UP + number * part), *row)
    console.print(table)
    keeps = resident.pop(NATS)
    kept_each = (keeps[-1] - keeps[FILLED]) * 2**20 / (part * (MEMORY_LOOKS - FILLED))
    growth = {name: looks[-1] / looks[FILLED] - 1 for name, looks in resident.items()}
    growing = [name for name, grown in growth.items() if grown > MEMORY_GROWTH_MAX]
    growing += [NATS] if kept_each > KEPT_EACH_MAX else []
    shown = ", ".join(f"{name} {grown:+.1%}" for name, grown in growth.items())
    verdict = f"GROWING: {', '.join(growing)}" if growing else "flat"
    console.print(
        f"Memory in the last tenths: {verdict} ({shown}; {NATS} {kept_each:.0f} B a search)"
    )
    return not growing


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=50_000)
    searches = max(parser.parse_args().searches, MEMORY_LOOKS * IN_FLIGHT)
    flat = show_memory(searches, uvloop.run(measure_memory(searches)))
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
