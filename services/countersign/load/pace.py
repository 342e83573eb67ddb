"""When each piece of work begins: at a rate that nothing slows, or as soon as another has ended.

With a rate, work is timed from when it was to begin. A tool that waits for a slow answer before it asks
again, and counts from there, leaves out just those whom the slowness keeps waiting ("coordinated
omission"); people who want a search do not come later because the last one took long.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

OUTSTANDING_MAX: Final = 5_000
"""Pieces of work that have begun and not ended. Past it an installation does not follow at all, and what
else was to begin is counted as left out."""

Work = Callable[[float], Awaitable[None]]
"""Does one, given when it was to begin. Raises nothing that the load should survive."""


@dataclass(frozen=True)
class Time:
    """A clock that never goes back, and how one waits by it."""

    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class Bounds:
    """Where the load ends, whichever comes first."""

    duration_s: float
    count_max: int


async def open_loop(
    rate: float, bounds: Bounds, time: Time, work: Work, left_out: Callable[[], None]
) -> None:
    """So many a second, whatever becomes of them; ends when all have ended."""
    began = time.now()
    outstanding: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as tasks:
        for number in range(min(bounds.count_max, math.ceil(rate * bounds.duration_s))):
            intended = began + number / rate
            # Without a wait too: what has come for others has to be looked at.
            await time.sleep(max(0.0, intended - time.now()))
            if len(outstanding) >= OUTSTANDING_MAX:
                left_out()
                continue
            task = tasks.create_task(_done(work, intended))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)


async def closed_loop(in_flight: int, bounds: Bounds, time: Time, work: Work) -> None:
    """So many at any time, each followed by the next; ends when all have ended."""
    until = time.now() + bounds.duration_s
    left = bounds.count_max

    async def worker() -> None:
        nonlocal left
        while left > 0 and time.now() < until:
            left -= 1
            await work(time.now())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(in_flight, bounds.count_max)):
            tasks.create_task(worker())


async def _done(work: Work, intended: float) -> None:
    await work(intended)
