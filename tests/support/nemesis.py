"""Breaks parts of an exchange at random, one or two at a time, and says what it did.

What it does is drawn from its seed; how long it lasts is counted in what the clients are told meanwhile,
with a bound, so that a round goes as far on a slow machine as on a fast one.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from support.exchanges import Exchange, Load
from support.installations import ProcessUnderTest

HURT_LINES: Final = (5, 60)
"""How much clients are told while something is broken."""
REST_LINES: Final = (20, 100)
"""And before the next."""
REST_S_MAX: Final = 2.5


@dataclass(frozen=True)
class Bounds:
    """How long something stays broken at most, in seconds."""

    hurt_s_max: float


def _killed(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    process.kill()
    wait()
    process.start()


def _frozen(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    process.freeze()
    try:
        wait()
    finally:
        process.thaw()


def _restarted(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    code = process.stop()
    assert code == 0, f"{process.part.name} ended with {code} when it was told to stop"
    process.start()
    wait()


HARMS: Final[Mapping[str, Callable[[ProcessUnderTest, Callable[[], None]], None]]] = {
    "killed": _killed,
    "frozen": _frozen,
    "restarted": _restarted,
}


class Nemesis:
    """One who breaks things."""

    def __init__(self, exchange: Exchange, seed: int, bounds: Bounds) -> None:
        self._exchange = exchange
        self._chance = random.Random(seed)
        self._bounds = bounds
        self.did: list[str] = []

    def strike(self, load: Load, times: int) -> None:
        """So many parts, no part twice as often as another, each in a random way."""
        names: list[str] = []
        for _ in range(times):
            if not names:
                names = self._chance.sample(
                    [*self._exchange.processes], len(self._exchange.processes)
                )
            self._strike(load, names.pop())

    def _strike(self, load: Load, name: str) -> None:
        harm = self._chance.choice([*HARMS])
        rest, hurt = self._chance.randint(*REST_LINES), self._chance.randint(*HURT_LINES)
        load.wait_for(rest, REST_S_MAX)
        self.did.append(f"{name} {harm}")
        process = self._exchange.processes[name]
        HARMS[harm](process, lambda: load.wait_for(hurt, self._bounds.hurt_s_max))
