"""What is drawn at random reaches every fact that a rule can ask for: nothing is compared only in name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from countersign.type.v1.search_pb2 import SearchFacts
from directive.evaluate import Evaluator
from directive.projection import facts_read
from directive.rules import read_rules
from support.directives import NOON, PERMIT, shipped_book, vocabulary
from support.drawn_searches import CONDITIONS, OFFICERS, crowded, rules, searches

QUICKLY = settings(
    max_examples=5_000,
    phases=[Phase.generate],
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

Drawn = TypeVar("Drawn")


def test_every_fact_is_told() -> None:
    asking = Evaluator(shipped_book(), crowded())
    missing = set(vocabulary().facts)

    def all_told(drawn: tuple[SearchFacts, str]) -> bool:
        facts, officer = drawn
        question = asking.ask(facts, officer, NOON)
        seat = question.seats[0].seat
        told = {one for one in missing if question.request(seat, [one])["context"] != "{}"}
        missing.difference_update(told)
        return not missing

    assert found(st.tuples(searches(), OFFICERS), all_told), missing


def test_every_fact_is_asked_for() -> None:
    """By the conditions that rules are put together from; one by one there are few of them."""
    missing = facts_missing()
    when = CONDITIONS.map(lambda condition: f"{PERMIT} when {{ {condition} }};")
    assert found(when, missing.all_asked), missing.left


@pytest.mark.usefixtures("long_form")
def test_every_fact_is_asked_for_by_whole_rules() -> None:
    missing = facts_missing()
    assert found(rules("LAPD-"), missing.all_asked), missing.left


@dataclass(frozen=True)
class Missing:
    """The facts that no rule has asked for yet."""

    everything: frozenset[str]
    left: set[str]

    def all_asked(self, text: str) -> bool:
        """Whether none is left after these rules, too."""
        for rule in read_rules(text):
            # One that takes the facts as a whole reads them all, and asks for none.
            read = facts_read([rule], self.everything)
            if read < self.everything:
                self.left.difference_update(read)
        return not self.left


def facts_missing() -> Missing:
    return Missing(frozenset(vocabulary().facts), set(vocabulary().facts))


def found(drawn: st.SearchStrategy[Drawn], last: Callable[[Drawn], bool]) -> bool:
    """Whether drawing on comes to an example of which this is true."""
    try:
        find(drawn, last, settings=QUICKLY)
    except NoSuchExample:
        return False
    return True
