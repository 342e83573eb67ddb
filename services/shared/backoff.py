"""How long before something that failed is tried again: ever longer, up to a bound, and not all at once.

Where code only waits and tries again, stamina does it. This is for waits that somebody else keeps: the bus,
which delivers a message again, or a loop that has other work meanwhile.
"""

import random
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from time import monotonic

_DOUBLED_MAX = 30
"""Past it every bound is reached, and the number would only grow."""


def jittered(wait_s: float) -> float:
    """Between half of it and the whole: who failed together does not come back together."""
    return wait_s * random.uniform(0.5, 1)  # noqa: S311  # nothing secret depends on it


@dataclass(frozen=True)
class Backoff:
    """Doubles from the first wait to the longest."""

    first_s: float
    most_s: float

    def wait_s(self, failures: int) -> float:
        """The wait after so many failures in a row, from 1."""
        return jittered(min(self.most_s, self.first_s * 2 ** min(failures - 1, _DOUBLED_MAX)))


class PutOff:
    """What failed, by name, and from when on each is tried again."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures: Counter[str] = Counter()
        self._again: dict[str, float] = {}

    def is_due(self, name: str) -> bool:
        """Whether it may be tried now."""
        return name not in self._again or monotonic() >= self._again[name]

    def failed(self, name: str) -> None:
        """It was tried in vain. What was under way together, and fails together, is one failure."""
        if self.is_due(name):
            self._failures[name] += 1
            self._again[name] = monotonic() + self._backoff.wait_s(self._failures[name])

    def succeeded(self, name: str) -> None:
        """The next failure is a first one."""
        self._failures.pop(name, None)
        self._again.pop(name, None)

    def keep_only(self, names: Set[str]) -> None:
        """Forget all others."""
        for name in self._again.keys() - names:
            self.succeeded(name)
