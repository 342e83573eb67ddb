"""A proposal's dates are read in three ways: throughout, by what is legal, by what was received."""

from datetime import datetime, timedelta

import pytest

from directive.book import Book, Directive
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


def searched(day: int, book: Book | None = None) -> RecordedSearch:
    facts, decides = ordinary(), Evaluator(book or book_where_others_permit(), registry())
    decision = decides.evaluate(facts, TRAINED, NOON + timedelta(days=day))
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


def of_the_country(begins: str, name: str = "us-order") -> Directive:
    """It forbids everything from that day on; a country is asked from its first order on."""
    rules = FORBID.replace("LAPD-9", "US-1") + ";"
    return directive(rules, party="US", prefix="US-", name=name, effective_from=begins)


@pytest.mark.parametrize(
    ("was", "proposed", "as_of", "outcomes"),
    [
        # Asked throughout by the proposal, and on record from 11 June on.
        ("2026-06-11", "2026-06-11", AsOf.ALWAYS, {0: Outcome.TO_REFUSED, 10: Outcome.SAME}),
        ("2026-06-11", "2026-06-01", AsOf.LEGAL, {0: Outcome.TO_REFUSED, 10: Outcome.SAME}),
        # Put off: the country would not have been asked until then.
        ("2026-06-01", "2026-06-11", AsOf.LEGAL, {0: Outcome.TO_PERMITTED, 10: Outcome.SAME}),
    ],
)
def test_a_country_is_asked_from_the_day_of_its_first_order_as_proposed(
    was: str, proposed: str, as_of: AsOf, outcomes: dict[int, Outcome]
) -> None:
    book = book_where_others_permit(of_the_country(was))
    replay = Replay(
        OneWorld(World(book, registry())),
        of_the_country(proposed),
        reading=Reading(as_of),
        sample=1.0,
    )
    for day in outcomes:
        replay.add(searched(day, book))
    found = replay.finish()
    changed = {one.index: one.change.outcome for one in found.examples}
    assert {day: changed.get(day, Outcome.SAME) for day in outcomes} == outcomes
    assert found.sound


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
