"""Keeps a number of requests under way, and counts time and processor time of every process for each."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil
from rich.console import Console
from rich.table import Table

console = Console(width=120)


class Subject(Protocol):
    """What is measured."""

    def prepare_ahead(self, count: int) -> None:
        """Makes what so many of them need and what is no part of the work that is measured."""

    async def __call__(self) -> None:
        """Does one."""


@dataclass(frozen=True)
class Measured:
    """Requests of one subject, so many in flight."""

    in_flight: int
    elapsed_s: float
    took_s: Sequence[float]
    """Of each request, the fastest first."""
    cpu_s: dict[str, float]
    """Processor time of all requests, by process."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.took_s) / self.elapsed_s

    @property
    def p50_ms(self) -> float:
        """What half of them took at most."""
        return statistics.median(self.took_s) * 1000

    @property
    def p99_ms(self) -> float:
        """What all but a hundredth took at most."""
        return self.took_s[min(len(self.took_s) - 1, int(len(self.took_s) * 0.99))] * 1000

    @property
    def cpu_ms(self) -> dict[str, float]:
        """Processor time for each request, by process."""
        return {name: spent / len(self.took_s) * 1000 for name, spent in self.cpu_s.items()}

    @property
    def cpu_total_ms(self) -> float:
        """Over all processes."""
        return sum(self.cpu_ms.values())


def together(turns: Sequence[Measured]) -> Measured:
    """What was measured in several turns, as one."""
    return Measured(
        in_flight=turns[0].in_flight,
        elapsed_s=sum(turn.elapsed_s for turn in turns),
        took_s=sorted(took for turn in turns for took in turn.took_s),
        cpu_s={name: sum(turn.cpu_s[name] for turn in turns) for name in turns[0].cpu_s},
    )


def cpu_seconds(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """User and system time so far of each process."""
    times = {name: process.cpu_times() for name, process in processes.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


async def load(
    one: Subject, in_flight: int, count: int, processes: dict[str, psutil.Process]
) -> Measured:
    """Keeps `in_flight` of them going until `count` are done."""
    one.prepare_ahead(count)
    left = count
    took: list[float] = []

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            await one()
            took.append(time.perf_counter() - started)

    before, started = cpu_seconds(processes), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed_s, after = time.perf_counter() - started, cpu_seconds(processes)
    spent = {name: after[name] - before[name] for name in processes}
    return Measured(in_flight, elapsed_s, sorted(took), spent)


def show(title: str, rows: Sequence[Measured]) -> None:
    """Prints one subject's levels."""
    table = Table(title=title, title_justify="left")
    for column in ("in flight", "per second", "p50 ms", "p99 ms", "CPU ms", "CPU ms by process"):
        table.add_column(column, justify="left" if "by" in column else "right")
    for row in rows:
        parts = ", ".join(f"{name} {spent:.2f}" for name, spent in row.cpu_ms.items())
        figures = [f"{row.rate:.0f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"]
        table.add_row(str(row.in_flight), *figures, f"{row.cpu_total_ms:.2f}", parts)
    console.print(table)
