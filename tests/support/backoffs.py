"""Waits that take no time, and what is asked of those that do."""

from dataclasses import dataclass, field
from typing import Final

from shared.backoff import Backoff

TIMES: Final = 16
STEP_S: Final = 0.01
"""By which a test's time goes on."""


@dataclass(frozen=True)
class NoWait(Backoff):
    """Tells how often in a row something had failed each time, and takes no time."""

    first_s: float = 0
    most_s: float = 0
    takes_s: float = 0
    asked: list[int] = field(default_factory=list)

    def wait_s(self, failures: int) -> float:
        """None, or always the same."""
        self.asked.append(failures)
        return self.takes_s


def assert_backs_off(waits_s: list[float], by: Backoff) -> None:
    """Each wait is at most double the one before, none past the bound, and they are not all the same."""
    for number, wait_s in enumerate(waits_s):
        longest = min(by.most_s, by.first_s * 2**number)
        assert longest / 2 <= wait_s <= longest + 5 * STEP_S, number
    assert by.first_s * 2 < by.most_s <= 30
    assert len({round(one, 1) for one in waits_s[-TIMES // 2 :]}) > 1, "all would come back at once"
