"""The traps of the engine: each permits wrongly where its guard is missing, and is named after its entry in
the design's list of them."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import cedarpy
import pytest

from countersign.type.v1.decision_pb2 import (
    DecisionOutcome,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import (
    SearchFacts,
)
from directive import entities, self_test
from directive.book import Book, Directive
from directive.entities import EntitiesError
from directive.evaluate import Evaluator
from directive.self_test import EngineUntrustworthy
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

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
SAYS_PERMIT = VerdictOutcome.VERDICT_OUTCOME_PERMIT
SAYS_FORBID = VerdictOutcome.VERDICT_OUTCOME_FORBID
CANNOT_TELL = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL


@pytest.fixture(name="shipped", scope="module")
def _shipped() -> Evaluator:
    return Evaluator(shipped_book(), registry())


def lapd_says(*directives: Directive, facts: SearchFacts | None = None) -> Verdict:
    """The origin's verdict, where every other party permits."""
    evaluator = Evaluator(book_where_others_permit(*directives), registry())
    decision = evaluator.evaluate(facts or ordinary(), TRAINED, NOON)
    others = [v.outcome for v in decision.verdicts if v.party not in (LAPD, "")]
    assert set(others) == {SAYS_PERMIT}
    origin = decision.verdicts[0]
    assert (origin.seat, origin.party) == (Seat.SEAT_ORIGIN, LAPD)
    if origin.outcome != SAYS_PERMIT:
        assert decision.outcome == REFUSED
    return origin


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "condition",
    [
        'context.beneficiary == Countersign::Agency::"CA0191200"',
        "context.candidatesMax * 9223372036854775807 > 1 && context.candidatesMax > 1",
        "context.candidatesMax - 9223372036854775807 - 9223372036854775807 < 1",
        "context.warrant",
        "principal.rank == 1",
        'principal.getTag("SOME-COURSE") > context.now',
        'Countersign::System::"ghost".commercial',
    ],
)
def test_trap_4_1_a_prohibition_that_errs_is_skipped_by_cedar_and_refuses_here(
    condition: str,
) -> None:
    facts = ordinary(beneficiary_agency=None) if "beneficiary" in condition else ordinary()
    rules = PERMIT + ";" + FORBID.replace("LAPD-9", "LAPD-8") + f"when {{ {condition} }};"
    said = lapd_says(unguarded(rules), facts=facts)
    assert said.outcome == CANNOT_TELL
    assert list(said.faults) == ["EVALUATION_ERROR"]
    assert [rule.id for rule in said.rules] == ["LAPD-9"], "the trap: Cedar would have permitted"


@pytest.mark.promise(3)
def test_trap_4_1_a_permit_that_errs_beside_one_that_holds_refuses_too() -> None:
    rules = PERMIT + ";" + PERMIT.replace("LAPD-9", "LAPD-8") + "when { context.warrant };"
    assert lapd_says(unguarded(rules)).outcome == CANNOT_TELL


@pytest.mark.promise(3)
def test_trap_4_2_a_registry_with_a_dangling_name_is_not_used() -> None:
    galleries = dict(registry().galleries)
    galleries["lacris-booking"] = galleries["lacris-booking"].model_copy(update={"system": "ghost"})
    dangling = registry().model_copy(update={"galleries": galleries})
    with pytest.raises(EntitiesError, match=r'lacris-booking.*System::"ghost"'):
        Evaluator(shipped_book(), dangling)


@pytest.mark.promise(3)
def test_trap_4_3_entities_built_without_the_schema_stop_the_start() -> None:
    with_schema = entities.build(registry(), vocabulary())
    self_test.run(with_schema, registry(), vocabulary())
    found = json.dumps(list(entities.records(registry(), vocabulary())))
    without = cedarpy.Entities.from_json_str(found)
    with pytest.raises(EngineUntrustworthy, match="prohibition of all searches"):
        self_test.run(without, registry(), vocabulary())


_NO_SCHEMA: Any = None


@pytest.mark.promise(3)
def test_trap_4_6_an_engine_without_the_schema_stops_the_start() -> None:
    blind = dataclasses.replace(vocabulary(), schema=_NO_SCHEMA)
    with pytest.raises(EngineUntrustworthy):
        Evaluator(Book(shipped_book().directives.values(), blind), registry())
    with pytest.raises(EngineUntrustworthy):
        self_test.run(entities.build(registry(), vocabulary()), registry(), blind)


@pytest.mark.promise(3)
def test_trap_4_6_a_question_that_does_not_fit_the_schema_cannot_be_told() -> None:
    # Seats whose words the schema does not have: the engine answers NoDecision, which is no denial.
    words = {**vocabulary()._words, "Seat": dict.fromkeys(range(1, 6), "chair")}
    garbled = dataclasses.replace(vocabulary(), _words=words)
    everyone = Book(book_where_others_permit().directives.values(), garbled)
    decision = Evaluator(everyone, registry()).evaluate(ordinary(), TRAINED, NOON)
    assert decision.outcome == REFUSED
    assert {v.outcome for v in decision.verdicts} == {CANNOT_TELL}
    assert {f for v in decision.verdicts for f in v.faults} == {"NO_DECISION"}


def test_trap_4_8_a_refusal_by_default_says_what_was_missing(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(case_number=""), "lapd-50999", NOON)
    assert [(u.rule_id, u.clause) for u in decision.verdicts[0].unmet] == [
        ("LAPD-1", 0), ("LAPD-1", 4),
    ]  # fmt: skip


def test_trap_4_8_rules_for_another_seat_are_not_offered_as_a_cure() -> None:
    seats = {"origin": 9, "operator": 8}
    rules = "".join(
        f'@requirement_1("for the {seat}") @requirement_2("an inactive officer") '
        + PERMIT.replace("LAPD-9", f"LAPD-{number}")
        + f'when {{ context.seat == Countersign::Seat::"{seat}" }}'
        + "unless { principal.active };"
        for seat, number in seats.items()
    )
    said = lapd_says(directive(rules))
    assert [(u.rule_id, u.clause) for u in said.unmet] == [("LAPD-9", 2)]


def test_trap_4_12_verdicts_name_our_identifiers_whatever_the_order_of_the_text() -> None:
    first, second = PERMIT + ";", FORBID.replace("LAPD-9", "LAPD-8") + ";"
    for rules in (first + second, second + first):
        said = lapd_says(directive(rules))
        assert said.outcome == SAYS_FORBID
        assert [rule.id for rule in said.rules] == ["LAPD-8"]


def test_trap_4_16_rules_see_the_time_they_are_given_and_no_other(shipped: Evaluator) -> None:
    lapses = datetime(2025, 1, 1, tzinfo=UTC)
    before = shipped.evaluate(ordinary(), "lapd-40777", lapses - timedelta(milliseconds=1))
    assert before.outcome == PERMITTED
    assert shipped.evaluate(ordinary(), "lapd-40777", lapses).outcome == REFUSED


def test_one_partys_permit_never_speaks_for_another() -> None:
    silent = directive(
        '@requirement_1("an inactive officer") ' + PERMIT + "unless { principal.active };"
    )
    said = lapd_says(silent)
    assert said.outcome == SAYS_FORBID
    assert not said.rules
