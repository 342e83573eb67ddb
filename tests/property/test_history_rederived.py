"""Every decision of a long history comes out again bit for bit, from what is on record of it alone."""

from directive.evaluate import Evaluator
from directive.recorded import RecordedSearch, openings_needed, recorded
from directive.sieve import Sieve, sifted_of
from directive.worlds import World
from support.directives import registry, shipped_book
from support.recorded_history import kept_and_opened, pending_entry, searches_of_years

SEARCHES = 10_000


def test_every_decision_of_ten_thousand_comes_out_again_bit_for_bit() -> None:
    decides = Evaluator(shipped_book(), registry())
    again = Evaluator(shipped_book(), registry(), keep=False)
    sieve = Sieve(shipped_book(), registry())
    wanted = openings_needed(World(shipped_book(), registry()).facts)
    outcomes = set()
    for index, drawn in enumerate(searches_of_years(SEARCHES, seed=20260601)):
        pending = pending_entry(drawn, decides, registry(), checked=index % 10 == 0)
        entry, openings = kept_and_opened(pending)
        given = {field: openings[field] for field in wanted}
        search = recorded(index, entry, given, wanted)
        assert isinstance(search, RecordedSearch)
        decision = again.evaluate(search.facts, search.officer, search.at)
        assert decision.SerializeToString(deterministic=True) == (
            search.decision.SerializeToString(deterministic=True)
        ), index
        question = sieve.ask(search.facts, search.officer, search.at)
        assert sieve.sift(question).content == sifted_of(search.decision).content, index
        outcomes.add(tuple((v.party, v.outcome, *v.faults) for v in decision.verdicts))
    assert len(outcomes) > 20, "the history is of many sorts"
    assert not sieve.disagreements
