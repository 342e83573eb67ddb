"""Compiled rules mean what Cedar means, trap after trap; what they do not know is left to the engine."""

import json
from typing import Any

import cedarpy
import pytest
from cedarpy import pst

from directive import entities
from directive.book import Book
from directive.cedar_values import (
    Asked,
    Entity,
    NotCompiled,
    Uid,
    Unsure,
    action,
    known_entities,
    moment,
    value_of,
)
from directive.compiled import CompiledRules
from directive.evaluate import Evaluator
from directive.sieve import Sieve, sifted_of
from support.circumstances import known
from support.directives import (
    FORBID,
    LAPD,
    NOON,
    PERMIT,
    TRAINED,
    book_where_others_permit,
    directive,
    ordinary,
    registry,
    shipped_book,
    unguarded,
    vocabulary,
)

SUBMIT = action("submitSearch")
OFFICER = 'Countersign::Officer::"lapd-40123"'
AGENCY = f'Countersign::Agency::"{LAPD}"'
PURPOSES = ["criminalInvestigation", "missingPerson"]

CONDITIONS = [
    # Values of different types are not equal, though Python thinks so.
    "true == 1",
    "1 != true",
    "[1].contains(true)",
    f'{AGENCY} == "{LAPD}"',
    f'{AGENCY} == Countersign::Jurisdiction::"{LAPD}"',
    'datetime("1970-01-01") == 0',
    "[1, 1, 2] == [2, 1]",
    "[] == [1]",
    '[datetime("2026-06-01")] == [datetime("2026-06-01T01:00:00+0100")]',
    # Comparing is for numbers and times.
    "1 < 2",
    "true < 2",
    '1 < datetime("2026-06-01")',
    '"a" < "b"',
    'context.now >= datetime("2026-06-01T12:00:00Z")',
    'datetime("2026-06-01T12:00:00.001Z") > context.now',
    # A condition is a truth value, and no further is looked than must be.
    "1",
    "!1",
    "context.caseNumber || true",
    "true || 1",
    "false || 1",
    "false && 1",
    "true && 1",
    "if 1 then true else false",
    "if true then true else 1",
    "if true then 1 else true",
    "false && context.beneficiary.none",
    # Sets.
    "1.contains(1)",
    "[].isEmpty()",
    "[1].isEmpty()",
    "1.isEmpty()",
    "[1, 2].containsAll([1])",
    "[1].containsAll([])",
    "[1].containsAny([])",
    "[1].containsAll(1)",
    'context.offenceSets.contains("robberies")',
    # Below, also of what nobody knows.
    f"principal in {OFFICER}",
    f"principal in [{OFFICER}]",
    f"principal in [{OFFICER}, 1]",
    "principal in []",
    "principal in 1",
    f'"{LAPD}" in {AGENCY}',
    'principal in Countersign::NamedList::"lapd-fr-users"',
    'principal in [Countersign::NamedList::"lapd-fr-users", Countersign::Agency::"nobody"]',
    'Countersign::Officer::"ghost" in Countersign::Officer::"ghost"',
    'Countersign::Officer::"ghost" in Countersign::NamedList::"lapd-fr-users"',
    'action in Countersign::Action::"search"',
    'action == Countersign::Action::"submitSearch"',
    f'{AGENCY} in Countersign::Jurisdiction::"US-CA"',
    'resource.owner in Countersign::Jurisdiction::"US-CA"',
    # What is there, and what is not.
    "principal has agency",
    "principal has none",
    'Countersign::Officer::"ghost" has agency',
    'Countersign::Officer::"ghost".agency == principal.agency',
    "principal.none",
    "1 has agency",
    "context.caseNumber has agency",
    "context has beneficiary",
    "context has warrant",
    "context has beneficiary.name",
    "context has warrant.name",
    "context.warrant",
    "resource.system.commercial",
    # Tags.
    'principal.hasTag("LACRIS-FR")',
    'principal.hasTag("none")',
    "principal.hasTag(1)",
    '"a".hasTag("b")',
    'Countersign::Officer::"ghost".hasTag("LACRIS-FR")',
    'Countersign::Officer::"ghost".getTag("LACRIS-FR") > context.now',
    'principal.getTag("LACRIS-FR") > context.now',
    'principal.getTag("none") > context.now',
    # Patterns and types.
    '"a\\nb" like "a*b"',
    '"ab" like "a*b*"',
    '"a.b" like "a\\*b"',
    '"a*b" like "a\\*b"',
    '1 like "*"',
    "principal is Countersign::Officer",
    "principal is Countersign::Agency",
    f"principal is Countersign::Officer in {OFFICER}",
    "principal is Countersign::Agency in 1",
    "principal is Countersign::Officer in 1",
    "1 is Countersign::Officer",
]
NOT_KNOWN = [
    "1 + 1 == 2",
    "-context.candidatesMax < 0",
    'decimal("1.0").lessThan(decimal("2.0"))',
    'ip("10.0.0.1").isIpv4()',
    'context.now.toDate() == datetime("2026-06-01")',
    'datetime("soon") == context.now',
    'datetime("2026-06-01T12:00:00+2460") == context.now',
    "context == context",
    "{a: 1} == {a: 1}",
    "[true] == [true]",
    "[1, 2].containsAny([true])",
]


def entities_known() -> dict[Uid, Entity]:
    own = {SUBMIT: Entity(ancestors=frozenset({action("search")}))}
    return known_entities(entities.records(registry(), vocabulary())) | own


def rule(condition: str, word: str = "when") -> pst.Template:
    text = f"permit (principal, action, resource) {word} {{ {condition} }};"
    (one,) = cedarpy.policies_to_pst(text).static_policies.values()
    return one


def asked() -> Asked:
    return Asked(
        Uid("Countersign::Officer", TRAINED),
        Uid("Countersign::Gallery", "lacris-booking"),
        {
            **{fact: value_of(value) for fact, value in told().items() if fact != "now"},
            "now": moment(told()["now"]) or 0,
        },
    )


def question() -> dict[str, object]:
    evaluator = Evaluator(shipped_book(), registry())
    put = evaluator.ask(ordinary(), TRAINED, NOON)
    facts = [fact for fact in vocabulary().facts if fact != "yearAgo"]
    return put.request(put.seats[0].seat, facts)


def told() -> dict[str, str]:
    found: dict[str, str] = json.loads(str(question()["context"]))
    return found


@pytest.mark.parametrize("word", ["when", "unless"])
def test_conditions_mean_what_cedar_means(word: str) -> None:
    engine = entities.build(registry(), vocabulary())
    request, here, known = question(), asked(), entities_known()
    different = {}
    for condition in CONDITIONS:
        one = rule(condition, word)
        policies = cedarpy.PolicySet.from_pst(pst.PolicySet({}, {one.id: one}, ()))
        said = cedarpy.is_authorized(request, policies, engine, vocabulary().loose)
        assert said.decision is not cedarpy.Decision.NoDecision
        expected = said.decision is cedarpy.Decision.Allow, bool(said.diagnostics.errors)
        found = CompiledRules([one], SUBMIT, known).run(here)
        if (bool(found.fired), bool(found.failed)) != expected:
            different[condition] = expected
    assert not different


@pytest.mark.parametrize("condition", NOT_KNOWN)
def test_what_is_not_known_is_left_to_the_engine(condition: str) -> None:
    with pytest.raises((NotCompiled, Unsure)):
        CompiledRules([rule(condition)], SUBMIT, entities_known()).run(asked())


def test_a_rule_about_another_action_never_fires() -> None:
    for scope, fires in (("action", 1), ("search", 1), ("submitSearch", 1), ("other", 0)):
        named = scope if scope == "action" else f'action in Countersign::Action::"{scope}"'
        (one,) = cedarpy.policies_to_pst(
            f"permit (principal, {named}, resource);"
        ).static_policies.values()
        assert CompiledRules([one], SUBMIT, entities_known()).run(asked()).fired == fires


def decided_alike(sieve: Sieve, plain: Evaluator) -> bool:
    for purpose in (1, 5, 7):
        facts = ordinary(purpose=purpose)
        expected = sifted_of(plain.evaluate(facts, TRAINED, NOON))
        for _ in range(2):
            if sieve.sift(sieve.ask(facts, TRAINED, NOON)) != expected:
                return False
    return True


@pytest.mark.parametrize(
    "condition", ["context.candidatesMax + 1 > 100", "context.warrant == 1", "1 < true"]
)
def test_rules_that_are_not_compiled_or_err_are_asked_of_the_engine(condition: str) -> None:
    written = FORBID + f"when {{ {condition} }};" + PERMIT.replace("9", "8") + ";"
    book = book_where_others_permit(unguarded(written))
    sieve = Sieve(book, registry())
    assert decided_alike(sieve, Evaluator(book, registry()))
    assert sieve.left_to_engine
    assert not sieve.disagreements


@pytest.mark.parametrize("stated", [True, False])
def test_what_would_cure_a_refusal_is_told_apart_although_the_same_rules_fire(
    *, stated: bool
) -> None:
    """Who attempted it would be permitted with a warrant, and the other would not."""
    written = PERMIT.replace("9", "8") + "when { context.attempt };" + FORBID
    written += "unless { context has instrumentInForce && context.instrumentInForce };"
    book = book_where_others_permit(unguarded(written))
    sieve, plain = Sieve(book, registry()), Evaluator(book, registry())
    cured = set()
    for attempt in (True, False, True, False):
        facts = known() if stated else ordinary()
        facts.offence.attempt = attempt
        expected = plain.evaluate(facts, TRAINED, NOON)
        assert sieve.sift(sieve.ask(facts, TRAINED, NOON)) == sifted_of(expected)
        cured.add(tuple(expected.verdicts[0].cured_by_instruments))
    assert len(cured) == 2
    assert not sieve.left_to_engine
    assert not sieve.disagreements


class SieveThatIsWrong(Sieve):
    """Believes that every rule fires."""

    def _class(self, *question: Any) -> Any:
        found = super()._class(*question)
        return found and (found[0], 0b11, *found[2:])


def test_compiled_rules_that_are_wrong_are_found_out_and_not_believed() -> None:
    written = FORBID + "when { context.attempt };" + PERMIT.replace("9", "8") + ";"
    book = Book([directive(written)], vocabulary())
    sieve = SieveThatIsWrong(book, registry())
    plain = Evaluator(book, registry())
    for attempt in (False, True, False):
        facts = ordinary()
        facts.offence.attempt = attempt
        expected = sifted_of(plain.evaluate(facts, TRAINED, NOON))
        assert sieve.sift(sieve.ask(facts, TRAINED, NOON)) == expected
    assert sieve.disagreements == 1
