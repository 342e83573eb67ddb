"""Whatever the directives, the proposal and the searches: the engine says of each what the replay says."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1.search_pb2 import SearchFacts
from directive.book import Book
from directive.evaluate import Evaluator
from directive.recorded import RecordedSearch
from directive.replay import Replay
from directive.replay_counts import Outcome
from directive.worlds import OneWorld, World
from support.directives import NOON, book_where_others_permit, ordinary, unguarded, vocabulary
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


@given(
    before=rules("LAPD-"),
    after=rules("LAPD-"),
    asked=st.lists(
        st.tuples(searches(), OFFICERS, st.booleans(), MOMENTS, TEXTS), min_size=6, max_size=6
    ),
)
@examples(0.3)
def test_the_engine_says_of_each_search_what_the_replay_says(
    before: str,
    after: str,
    asked: list[tuple[SearchFacts, str, bool, datetime, str]],
) -> None:
    own = unguarded(before, name="in-force")
    directives = tuple(book_where_others_permit(own).directives.values())
    book = Book(directives, vocabulary())
    decides = Evaluator(book, crowded(), keep=False)
    replay = Replay(OneWorld(World(book, crowded())), unguarded(after, name="in-force"), sample=1.0)
    count = 0
    for facts, officer, own_officer, at, text in [
        *asked,
        (ordinary(), "lapd-40123", False, datetime(2026, 6, 1, tzinfo=UTC), ""),
    ]:
        if facts.HasField("beneficiary_agency") and not facts.beneficiary_agency:
            facts.ClearField("beneficiary_agency")  # the contract has no empty one
        who = officer_for(facts, officer, own=own_officer)
        for case_number, asks, moment in (
            (facts.case_number, who, at),
            (text, who, NOON),
            ("another", f"of-{facts.origin_agency.lower()}-2026-06-02", at),
            ("another", f"of-{facts.origin_agency.lower()}-2026-09-01", NOON),
            ("another", f"of-{facts.origin_agency.lower()}-2026-05-01", NOON + timedelta(days=3)),
        ):
            facts.case_number = case_number
            kept = SearchFacts.FromString(facts.SerializeToString())
            decision = decides.evaluate(kept, asks, moment)
            replay.add(RecordedSearch.of(count, kept, asks, decision))
            count += 1
    found = replay.finish()
    assert found.sound
    unsaid = found.totals()[Outcome.CANNOT_SAY]
    assert found.sampled + found.confirmed + unsaid == found.searches == count
