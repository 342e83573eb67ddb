"""Told only what its rules can read, and asked once for seats that they do not tell apart, a party says
exactly what it would have said otherwise: for the shipped directives and for any others."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1.search_pb2 import SearchFacts
from directive.book import Book, Directive
from directive.evaluate import Evaluator, SeatVerdict
from directive.question import Question, SeatOf
from support.directives import (
    LASD,
    NOON,
    TRAINED,
    book_where_others_permit,
    ordinary,
    shipped_book,
    unguarded,
    vocabulary,
)
from support.drawn_searches import (
    MOMENTS,
    OFFICERS,
    TEXTS,
    crowded,
    officer_for,
    rules,
    searches,
)
from support.examples import examples

SHIPPED = sorted(shipped_book().directives)


class OneByOne(Evaluator):
    """Asks about each seat as if it were the only one. With `keep=False`, as if never asked before."""

    _last: tuple[Question, dict[SeatOf, SeatVerdict]] | None = None

    def _of_seats(self, question: Question, seats: Sequence[SeatOf]) -> list[SeatVerdict]:
        # Each seat of one question once: what is told of it does not follow from who asks.
        if self._last is None or self._last[0] is not question:
            self._last = question, {}
        said = self._last[1]
        for seat in seats:
            if seat not in said:
                said[seat] = self._of_seat(question, seat, {})
        return [said[seat] for seat in seats]


Pair = tuple[Evaluator, Evaluator]


def both_ways(directives: tuple[Directive, ...]) -> Pair:
    """The same directives as they are asked, and told everything and asked about each seat."""
    return (
        Evaluator(Book(directives, vocabulary()), crowded()),
        OneByOne(Book(directives, vocabulary(), project=False), crowded(), keep=False),
    )


@cache
def shipped(name: str) -> Pair:
    """All shipped directives, or one of them where the other parties permit everything."""
    every = shipped_book().directives
    if not name:
        return both_ways(tuple(every.values()))
    return both_ways(tuple(book_where_others_permit(every[name]).directives.values()))


def assert_the_same(pair: Pair, facts: SearchFacts, officer: str, at: datetime) -> None:
    projected, whole = pair
    question = whole.ask(facts, officer, at)
    expected = whole.decide(question)
    assert projected.evaluate(facts, officer, at) == expected
    for party in {verdict.party for verdict in expected.verdicts}:
        said = whole.party_says(question, party)
        assert list(projected.evaluate_party(facts, officer, at, party)) == said


@pytest.mark.promise(3)
@given(
    name=st.sampled_from(["", *SHIPPED]),
    facts=searches(),
    officer=OFFICERS,
    own=st.booleans(),
    at=MOMENTS,
)
@examples(1)
def test_shipped_directives_decide_the_same_when_told_only_what_they_read(
    name: str, facts: SearchFacts, officer: str, own: bool, at: datetime
) -> None:
    assert_the_same(shipped(name), facts, officer_for(facts, officer, own=own), at)


@pytest.mark.promise(3)
@given(
    lapd=rules("LAPD-"),
    lasd=rules("LASD-"),
    asked=st.lists(st.tuples(searches(), OFFICERS, st.booleans(), MOMENTS), min_size=5, max_size=5),
)
@examples(0.4)
def test_any_directives_decide_the_same_when_told_only_what_they_read(
    lapd: str, lasd: str, asked: list[tuple[SearchFacts, str, bool, datetime]]
) -> None:
    written = (
        unguarded(lapd),
        unguarded(lasd, party=LASD, prefix="LASD-", name="another-directive"),
    )
    pair = both_ways(tuple(book_where_others_permit(*written).directives.values()))
    assert_the_same(pair, ordinary(), "lapd-40123", NOON)
    for facts, officer, own, at in asked:
        assert_the_same(pair, facts, officer_for(facts, officer, own=own), at)


LAPSES = [
    datetime.combine(day, time(), UTC)
    for officer in crowded().officers.values()
    for day in officer.certificates.values()
]
WRITTEN = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)]
EDGES = st.tuples(st.sampled_from([*LAPSES, *WRITTEN, NOON]), st.integers(-2, 2)).map(
    lambda edge: edge[0] + timedelta(milliseconds=edge[1])
)


@pytest.mark.promise(3)
@given(
    lapd=rules("LAPD-"),
    base=searches(),
    officer=OFFICERS,
    own=st.booleans(),
    asked=st.lists(st.tuples(TEXTS, TEXTS, TEXTS, EDGES), min_size=12, max_size=12),
)
@examples(0.2)
def test_what_was_answered_before_is_answered_the_same_as_if_asked_anew(
    lapd: str,
    base: SearchFacts,
    officer: str,
    own: bool,
    asked: list[tuple[str, str, str, datetime]],
) -> None:
    pairs = [both_ways(tuple(book_where_others_permit(unguarded(lapd)).directives.values()))]
    for facts in (base, ordinary(narrative="")):
        for case_number, statute, nibrs_code, at in asked:
            facts.case_number = case_number
            facts.offence.statute, facts.offence.nibrs_code = statute, nibrs_code
            for pair in (*pairs, shipped("")):
                assert_the_same(pair, facts, officer_for(facts, officer, own=own), at)
                assert_the_same(pair, facts, TRAINED, at)
