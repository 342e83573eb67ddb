"""By the word of who was expelled nothing is permitted, and no prohibition falls away with it."""

from datetime import datetime

import pytest

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome
from directive.book import Book
from directive.evaluate import Evaluator
from registry.folding import Fold
from support.directives import (
    LAPD,
    NOON,
    TRAINED,
    book_where_others_permit,
    directive,
    ordinary,
    permits_everything,
)
from support.registrars import admitting, on_record, order
from support.registrations import agency, demonstration, document, publish, signed, signer

pytestmark = pytest.mark.promise(3)

UNION, STATE, OTHER = "EU", "US-CA", "US-NV"
OFFENCES = '[offence_sets.grave]\ntitle = "Grave"\nnibrs = ["09A"]\n'


@pytest.fixture(name="fold", scope="module")
def _fold() -> Fold:
    owners = demonstration() | {
        UNION: (agency(UNION, keys=None).replace("[keys]", 'members = ["US"]\n[keys]'), ""),
        OTHER: (agency(OTHER, OFFENCES), ""),
    }
    fold = admitting(*owners)
    for public, officers in owners.values():
        publish(fold, signed(document(public, officers), 1))
    return fold


def decided(fold: Fold, book: Book, at: datetime = NOON) -> Decision:
    facts = ordinary()
    return Evaluator(book, fold.registry).evaluate(facts, TRAINED, at)


def permits(decision: Decision) -> bool:
    return decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED


def expelling(fold: Fold, owner: str) -> Fold:
    tried = fold.copy()
    tried.apply(on_record(order(owner)), {})
    return tried


@pytest.mark.parametrize("owner", [LAPD, "CA0190000", STATE, UNION])
def test_a_search_of_which_an_expelled_owner_is_a_party_is_refused(fold: Fold, owner: str) -> None:
    book = book_where_others_permit(permits_everything(UNION, "EU-"))
    assert permits(decided(fold, book))
    refused = decided(expelling(fold, owner), book)
    assert not permits(refused)
    of_it = [one for one in refused.verdicts if one.party == owner]
    assert of_it
    assert all("PARTY_EXPELLED" in one.faults for one in of_it)


def test_who_is_no_party_and_expelled_changes_nothing(fold: Fold) -> None:
    book = book_where_others_permit()
    assert permits(decided(expelling(fold, OTHER), book))


def test_rules_about_offences_of_an_expelled_owner_cannot_tell(fold: Fold) -> None:
    """Were the set taken out, no offence would be in it, and what forbids it would permit."""
    forbids = (
        '@id("LAPD-8")\n@title("x")\n@citation("x")\n'
        'forbid (principal, action in Countersign::Action::"search", resource)\n'
        'when { context.offenceSets.contains(Countersign::OffenceSet::"grave") };\n'
        '@id("LAPD-9")\n@title("x")\n@citation("x")\n'
        'permit (principal, action in Countersign::Action::"search", resource);\n'
    )
    said = directive(forbids, known=fold.registry)
    book = book_where_others_permit(said)
    assert permits(decided(fold, book))
    refused = decided(expelling(fold, OTHER), book)
    faults = {one.party: list(one.faults) for one in refused.verdicts}
    assert faults[LAPD] == ["PARTY_EXPELLED"]
    assert not faults[STATE]


def test_who_was_in_force_is_told_of_an_expulsion_though_no_table_changed(fold: Fold) -> None:
    book = book_where_others_permit()
    evaluator = Evaluator(book, fold.registry)
    back = expelling(fold, STATE)
    after = evaluator.over(back.registry)
    assert not permits(after.evaluate(ordinary(), TRAINED, NOON))
    assert permits(evaluator.evaluate(ordinary(), TRAINED, NOON))
    key = signer(STATE, 2)
    ruled = back.ruled(STATE)
    assert ruled is not None
    back.apply(on_record(order(STATE, "recover", key.vkey, follows=ruled.order)), {})
    publish(back, signed(document(agency(STATE, keys=[key.vkey])), 1, key))
    assert permits(after.over(back.registry).evaluate(ordinary(), TRAINED, NOON))
