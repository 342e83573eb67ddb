"""The load of `countersign bench`: when each piece begins, what it consists of, and what is told of it."""

import asyncio
import random
import re
from itertools import islice

import pytest
from rich.console import Console

from broker.limits import LimitSettings
from countersign.cli.bench_view import Asked, Outcome, print_outcome
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.load.histogram import Histogram
from countersign.load.measured import PERMITTED, SET_WHAT, Measured, Step
from countersign.load.mix import BadMix, Kind, interleaved, parse_mix
from countersign.load.pace import OUTSTANDING_MAX, Bounds, Time, closed_loop, open_loop
from countersign.load.tickets import issued, of_tokens
from shared.errors import NotAuthentic
from shared.signing import SigningKey

BEGAN = 100.0


class TimeThatIsTold:
    """Passes when somebody waits, or says so."""

    def __init__(self) -> None:
        self.at = BEGAN
        self.time = Time(lambda: self.at, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        until = self.at + seconds
        await asyncio.sleep(0)
        self.at = max(self.at, until)
        await asyncio.sleep(0)


def nothing() -> None:
    raise AssertionError("left out")


async def test_work_begins_at_the_rate_and_is_timed_from_when_it_was_to_begin() -> None:
    clock = TimeThatIsTold()
    intended: list[float] = []
    late: list[float] = []

    async def stands_still_once(when: float) -> None:
        intended.append(when)
        late.append(clock.at - when)
        if len(intended) == 3:
            clock.at += 0.5

    await open_loop(10, Bounds(1.0, 1_000), clock.time, stands_still_once, nothing)
    assert intended == pytest.approx([BEGAN + number / 10 for number in range(10)])
    # What was to begin while all stood still has waited that long, and is not told as quick.
    assert late[:3] == pytest.approx([0, 0, 0])
    assert late[3:8] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=0.001)


async def test_what_does_not_end_is_begun_so_often_and_the_rest_is_left_out() -> None:
    clock = TimeThatIsTold()
    released = asyncio.Event()
    begun = left_out = 0

    async def waits(_: float) -> None:
        nonlocal begun
        begun += 1
        if begun > OUTSTANDING_MAX:
            released.set()
        await released.wait()

    def leave_out() -> None:
        nonlocal left_out
        left_out += 1
        released.set()

    await open_loop(1_000_000, Bounds(10.0, OUTSTANDING_MAX + 1), clock.time, waits, leave_out)
    assert (begun, left_out) == (OUTSTANDING_MAX, 1)


@pytest.mark.parametrize(("count_max", "ended"), [(7, 7), (1_000, 21)])
async def test_so_many_are_in_flight_until_the_first_bound(count_max: int, ended: int) -> None:
    clock = TimeThatIsTold()
    in_flight = most = done = 0

    async def takes_a_second(_: float) -> None:
        nonlocal in_flight, most, done
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        clock.at += 0.25  # four at a time, so that each takes a second
        in_flight -= 1
        done += 1

    await closed_loop(4, Bounds(4.5, count_max), clock.time, takes_a_second)
    assert (most, done) == (4, ended)


def test_a_mix_is_spread_evenly() -> None:
    mix = parse_mix("search=8, check=1,read=1,forbidden=0")
    assert mix == {Kind.SEARCH: 8, Kind.CHECK: 1, Kind.READ: 1}
    drawn = list(islice(interleaved(mix), 1_000))
    for start in range(0, 1_000, 10):
        stretch = drawn[start : start + 10]
        assert {kind: stretch.count(kind) for kind in mix} == mix


@pytest.mark.parametrize(
    "text", ["", "search", "search=0", "search=-1", "search=1,search=2", "x=1"]
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(BadMix):
        parse_mix(text)


def test_percentiles_are_never_less_than_they_were_and_one_per_cent_more_at_most() -> None:
    draw = random.Random(6)
    taken = sorted(draw.lognormvariate(-3, 1.5) for _ in range(5_000))
    histogram = Histogram()
    for seconds in draw.sample(taken, len(taken)):
        histogram.add(seconds)
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        exact = taken[round(share * len(taken)) - 1]
        assert exact <= histogram.percentile_s(share) * 1.000001 <= exact * 1.011
    document = histogram.document()
    assert document["max"] == pytest.approx(taken[-1] * 1000, abs=0.001)
    assert sum(count for _, count in document["buckets"]) == 5_000
    assert Histogram().percentile_s(0.99) == 0


def test_tokens_that_were_issued_before_are_tickets_for_their_searches() -> None:
    provider = DevelopmentIdentityProvider("https://idp.example.org", SigningKey.generate())
    tickets = list(islice(issued(provider, ["badge-1", "badge-2"]), 3))
    assert [one.officer for one in tickets] == ["badge-1", "badge-2", "badge-1"]
    assert len({one.search_id for one in tickets}) == 3
    assert of_tokens(one.token for one in tickets) == tickets


def test_a_token_without_officer_or_search_is_no_ticket() -> None:
    with pytest.raises(NotAuthentic):
        of_tokens(["not a token"])


def outcome(measured: Measured, p99_max_ms: float | None = None) -> Outcome:
    asked = Asked(10.0, None, Bounds(10.0, 100), {Kind.SEARCH: 1}, "LOAD-TEST", 1.0, p99_max_ms)
    return Outcome(asked, measured, 10.0, stopped=False)


def measured(right: int, *reasons: str, left_out: int = 0) -> Measured:
    """So many searches of 50 ms each, these errors, and so many that were not begun."""
    one = Measured()
    one.left_out = left_out
    one.begun[Kind.SEARCH] = right + len(reasons)
    one.right[Kind.SEARCH] = right
    for _ in range(right):
        one.took(Step.ANSWERED, 0.05)
    for reason in reasons:
        one.failed(Kind.SEARCH, reason, by_limit=reason in SET_WHAT)
    return one


def test_bounds_that_are_kept_are() -> None:
    kept = outcome(measured(99, "UNREACHABLE"), p99_max_ms=60)
    assert kept.broken() == []
    assert kept.reached == pytest.approx(9.9)


@pytest.mark.parametrize(
    "broken",
    [
        outcome(measured(0)),
        outcome(measured(98, "UNREACHABLE", "UNREACHABLE")),
        outcome(measured(100, left_out=2)),
        outcome(measured(100), p99_max_ms=40),
        outcome(measured(1_000, PERMITTED)),
    ],
)
def test_a_bound_that_is_not_kept_is_told(broken: Outcome) -> None:
    assert len(broken.broken()) == 1
    assert broken.document()["bounds_broken"] == broken.broken()


def test_searches_of_which_none_was_answered_are_not_quick() -> None:
    assert outcome(measured(0), p99_max_ms=1e9).broken()[1].startswith("p99")


def test_a_limit_is_told_with_what_to_set() -> None:
    limited = outcome(measured(10, "OFFICER_SEARCHES_LIMIT"))
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        print_outcome(console, limited)
    assert "officer_searches_per_minute" in captured.get()
    told = limited.document()["limited"]["OFFICER_SEARCHES_LIMIT"]
    assert told == {"count": 1, "set": SET_WHAT["OFFICER_SEARCHES_LIMIT"]}


def test_what_is_to_be_set_can_be_set() -> None:
    named = set(re.findall(r"(?:agency|officer)_\w+", " ".join(SET_WHAT.values())))
    assert named == set(LimitSettings.model_fields)
