"""By the word of who was expelled nothing is permitted, and no prohibition falls away with it."""

import pytest

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Verdict
from directive.book import Book
from directive.elsewhere import Elsewhere
from directive.evaluate import Evaluator
from registry.folding import Fold
from support.directives import (
    BURBANK,
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
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


def decided(fold: Fold, book: Book, elsewhere: Elsewhere | None = None) -> Decision:
    return Evaluator(book, fold.registry).evaluate(ordinary(), TRAINED, NOON, elsewhere)


def refuses(decision: Decision) -> bool:
    return decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED


def permits(decision: Decision) -> bool:
    return decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED


def expelling(fold: Fold, owner: str) -> Fold:
    tried = fold.copy()
    tried.apply(on_record(order(owner)), {})
    return tried


@pytest.mark.parametrize("owner", [LAPD, LASD, STATE, UNION])
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


RESTING = {
    "the members of a union": (UNION, f'principal.agency in Countersign::Jurisdiction::"{UNION}"'),
    "whether any set has the offence": (OTHER, "!context.offenceSets.isEmpty()"),
    "sets that the rule does not name": (
        OTHER,
        "context.offenceSets.containsAny(context.offenceSets)",
    ),
    "an agreement": (BURBANK, f'Countersign::Agency::"{BURBANK}".hasTag("MOU")'),
}


@pytest.fixture(name="telling", scope="module")
def _telling(fold: Fold) -> Fold:
    """Where who is no party has registered what a rule may ask for."""
    told = fold.copy()
    publish(told, signed(document(agency(OTHER, OFFENCES.replace("09A", "120"))), 2))
    public = agency(BURBANK).replace("[agency]", "[agency]\nagreements = { MOU = 2099-01-01 }")
    publish(told, signed(document(public), 2))
    ours = OFFENCES.replace("grave", "ours").replace("09A", "120")
    publish(told, signed(document(agency(STATE, ours)), 2))
    return told


def only_where(asked: str, fold: Fold) -> Book:
    """The department permits nothing but what fulfils this; the others permit everything."""
    forbids = FORBID.replace("LAPD-9", "LAPD-8")
    rules = f"{forbids}unless {{ {asked} }};\n{PERMIT};"
    return book_where_others_permit(directive(rules, known=fold.registry))


@pytest.mark.parametrize("asked", RESTING)
def test_what_an_expelled_owner_registered_permits_nothing_though_it_is_no_party(
    telling: Fold, asked: str
) -> None:
    """A union that has never ordered anything is not asked, and still says who its members are."""
    owner, condition = RESTING[asked]
    book = only_where(condition, telling)
    assert permits(decided(telling, book))
    refused = decided(expelling(telling, owner), book)
    faults = {one.party: list(one.faults) for one in refused.verdicts}
    assert faults.pop(LAPD) == ["PARTY_EXPELLED"]
    assert not any(faults.values())


def test_rules_that_take_nothing_from_the_word_of_who_is_expelled_go_on(telling: Fold) -> None:
    asked = (
        f'principal.agency != Countersign::Agency::"{BURBANK}" && '
        'context.offenceSets.contains(Countersign::OffenceSet::"ours")'
    )
    book = only_where(asked, telling)
    assert permits(decided(expelling(expelling(telling, OTHER), BURBANK), book))


@pytest.mark.parametrize(
    ("owner", "refer"), [(LAPD, False), (LASD, False), (LASD, True), (STATE, False)]
)
def test_no_peer_speaks_for_who_is_expelled_here(fold: Fold, owner: str, *, refer: bool) -> None:
    """Both registries have the system and the parties, and each has registrars of its own."""
    book = book_where_others_permit()
    said = decided(fold, book).verdicts
    vouched: dict[tuple[int, str], Verdict] = {
        (one.seat, one.party): one for one in said if one.party == owner and not refer
    }
    elsewhere = Elsewhere("peer.test", frozenset({owner}), refer, vouched)
    assert not refuses(decided(fold, book, elsewhere))
    refused = decided(expelling(fold, owner), book, elsewhere)
    assert refuses(refused)
    of_it = [one for one in refused.verdicts if one.party == owner]
    assert all("PARTY_EXPELLED" in one.faults and not one.asked_at for one in of_it)


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
