"""Allowances that refill: what is let through, what is told, and what is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from shared.rates import Allowances, Rate
from support.clocks import ClockThatStandsStill


def taken(allowances: Allowances, name: str, tries: int) -> int:
    return sum(not allowances.wait_s(name) for _ in range(tries))


def test_so_many_at_once_and_then_as_time_passes() -> None:
    clock = ClockThatStandsStill()
    allowances = Allowances(Rate(per_s=2, burst=5), clock)
    assert taken(allowances, "a", 20) == 5
    assert taken(allowances, "b", 20) == 5, "each name has its own"
    clock.advance(seconds=1)
    assert taken(allowances, "a", 20) == 2
    clock.advance(hours=1)
    assert taken(allowances, "a", 20) == 5, "it is never more than whole"


def test_whoever_waits_as_long_as_told_gets_through() -> None:
    clock = ClockThatStandsStill()
    allowances = Allowances(Rate(per_s=1 / 60, burst=1), clock)
    assert allowances.wait_s("a") == 0
    for _ in range(3):
        wait_s = allowances.wait_s("a")
        assert 59 < wait_s <= 60, "asking takes nothing"
    clock.advance(seconds=wait_s)
    assert allowances.wait_s("a") == 0


def test_a_clock_that_is_set_back_does_not_lock_anybody_out() -> None:
    clock = ClockThatStandsStill()
    allowances = Allowances(Rate(per_s=1, burst=3), clock)
    assert taken(allowances, "a", 3) == 3
    clock.advance(days=-30)
    assert allowances.wait_s("a") <= 1
    clock.advance(seconds=3)
    assert taken(allowances, "a", 9) == 3


def test_names_whose_allowance_is_whole_are_forgotten() -> None:
    clock = ClockThatStandsStill()
    allowances = Allowances(Rate(per_s=1, burst=3), clock)
    for number in range(1000):
        allowances.wait_s(str(number))
    clock.advance(seconds=1)
    allowances.wait_s("another")
    assert len(allowances) == 1


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_the_rate_and_the_burst(
    pauses: list[float], per_s: float, burst: int
) -> None:
    clock = ClockThatStandsStill()
    allowances = Allowances(Rate(per_s, burst), clock)
    through = 0
    for pause in pauses:
        clock.advance(seconds=pause)
        through += not allowances.wait_s("a")
    assert through <= burst + per_s * sum(pauses) + 0.01
