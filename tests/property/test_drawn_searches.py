"""What is drawn at random reaches every fact that a rule can ask for: nothing is compared only in name."""

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st

from directive.evaluate import Evaluator
from directive.projection import facts_read
from directive.rules import read_rules
from support.directives import NOON, shipped_book, vocabulary
from support.drawn_searches import OFFICERS, crowded, rules, searches

QUICKLY = settings(
    max_examples=5_000,
    phases=[Phase.generate],
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("fact", sorted(vocabulary().facts))
def test_every_fact_is_asked_for_and_told(fact: str) -> None:
    asking = Evaluator(shipped_book(), crowded())

    def told(drawn: tuple[object, str]) -> bool:
        facts, officer = drawn
        question = asking.ask(facts, officer, NOON)  # type: ignore[arg-type]
        request = question.request(question.seats[0].seat, [fact])
        return bool(request["context"] != "{}")

    find(st.tuples(searches(), OFFICERS), told, settings=QUICKLY)
    everything = frozenset(vocabulary().facts)

    def asked(text: str) -> bool:
        # A rule that takes the facts as a whole reads them all, and asks for none.
        read = facts_read(read_rules(text), everything)
        return fact in read and read < everything

    find(rules("LAPD-"), asked, settings=QUICKLY)
