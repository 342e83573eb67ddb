"""How often is too often: an allowance for each name that refills with time.

Invariants:
- What is turned away takes nothing from the allowance: whoever waits as long as told gets through.
- A clock that is set back costs a name at most its allowance once more, never longer.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from shared.clock import Clock

NAMES_MAX: Final = 65_536
"""Agencies and officers of a state. Past it the one that was quiet longest is forgotten, to its advantage."""


@dataclass(frozen=True)
class Rate:
    """So many for each second in the long run, and so many at once."""

    per_s: float
    burst: int


class Allowances:
    """One allowance of the same rate for each name."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._clock = clock
        self._each_s = 1 / rate.per_s
        self._whole_s = rate.burst / rate.per_s
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many names have not all of theirs."""
        return len(self._full_at)

    def wait_s(self, name: str) -> float:
        """Takes one and gives 0; or takes nothing and gives the seconds until there is one to take."""
        now = self._clock.now().timestamp()
        # The generic cell rate algorithm: one number for each name says how much of its allowance is left.
        full_at = min(max(self._full_at.get(name, now), now), now + self._whole_s)
        wait_s = full_at + self._each_s - self._whole_s - now
        if wait_s > 1e-6:  # less than a clock tells apart
            self._full_at[name] = full_at
            return wait_s
        self._full_at[name] = full_at + self._each_s
        self._full_at.move_to_end(name)
        self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Names whose allowance is whole again, from the one that was quiet longest."""
        while self._full_at:
            name = next(iter(self._full_at))
            if self._full_at[name] > now and len(self._full_at) <= NAMES_MAX:
                return
            del self._full_at[name]
