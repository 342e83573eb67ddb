"""A proposal's dates are read in three ways: throughout, by what is legal, by what was received."""

from datetime import datetime, timedelta

import pytest

from directive.evaluate import Evaluator
from directive.proposed import AsOf, Reading
from directive.recorded import RecordedSearch
from directive.replay import Replay
from directive.replay_counts import Outcome, Replayed
from directive.worlds import OneWorld, World
from support.directives import (
    FORBID,
    NOON,
    TRAINED,
    book_where_others_permit,
    directive,
    ordinary,
    registry,
)

DAYS = (0, 10, 20, 30, 40)
"""On which there is a search, after NOON of 1 June 2026."""


def searched(day: int) -> RecordedSearch:
    facts, book = ordinary(), book_where_others_permit()
    decision = Evaluator(book, registry()).evaluate(facts, TRAINED, NOON + timedelta(days=day))
    return RecordedSearch.of(day, facts, TRAINED, decision)


def replayed(reading: Reading, order: tuple[int, ...] = DAYS) -> Replayed:
    nothing = directive(
        FORBID.replace("LAPD-9", "LAPD-8") + ";",
        name="proposed",
        effective_from="2026-06-06",
        effective_until="2026-07-06",
    )
    replay = Replay(
        OneWorld(World(book_where_others_permit(), registry())),
        nothing,
        reading=reading,
        sample=1.0,
    )
    for day in order:
        replay.add(searched(day))
    found = replay.finish()
    assert found.sound
    return found


def received(day: int, **more: int) -> Reading:
    return Reading(AsOf.RECEIVED, NOON + timedelta(days=day, **more))


@pytest.mark.parametrize(
    ("reading", "refused"),
    [
        (Reading(AsOf.ALWAYS), [0, 10, 20, 30, 40]),
        (Reading(AsOf.LEGAL), [10, 20, 30]),
        (received(-100), [10, 20, 30]),
        (received(20), [20, 30]),
        (received(20, microseconds=1), [30]),
        (received(35), []),
    ],
)
def test_a_proposal_counts_from_its_day_on_or_from_when_it_was_received(
    reading: Reading, refused: list[int]
) -> None:
    found = replayed(reading)
    assert [one.index for one in found.examples] == refused
    assert found.totals()[Outcome.SAME] == len(DAYS) - len(refused)
    assert found.confirmed == len(refused)


def test_searches_of_before_it_was_received_are_not_alike_to_later_ones() -> None:
    for order in ((10, 20), (20, 10)):
        found = replayed(received(15), order)
        assert [one.index for one in found.examples] == [20]


def test_when_it_was_received_is_said_with_that_reading_alone() -> None:
    for as_of, when in ((AsOf.RECEIVED, None), (AsOf.LEGAL, NOON), (AsOf.ALWAYS, NOON)):
        with pytest.raises(AssertionError):
            _made(as_of, when)


def _made(as_of: AsOf, when: datetime | None) -> Reading:
    return Reading(as_of, when)
