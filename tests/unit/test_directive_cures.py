"""A refusal that an instrument would cure says so, and by which kind; no other refusal does."""

import pytest

from countersign.type.v1 import circumstances_pb2 as pb
from countersign.type.v1.decision_pb2 import Verdict, VerdictOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from directive.evaluate import Evaluator
from support.circumstances import emergency, instrument, known, whole_registry
from support.directives import FORBID, LAPD, NOON, PERMIT, TRAINED, book, directive, ordinary

WARRANT, ORDER = pb.INSTRUMENT_KIND_SEARCH_WARRANT, pb.INSTRUMENT_KIND_COURT_ORDER
KINDS = [kind for kind in pb.InstrumentKind.values() if kind > pb.INSTRUMENT_KIND_NONE]
ALLOWED = PERMIT.replace("LAPD-9", "LAPD-8") + ";\n"

COURT_ORDER_IN_FORCE = (
    """@requirement_1("a warrant or court order") @requirement_2("in force")
"""
    + PERMIT
    + """when { [Countersign::InstrumentKind::"searchWarrant",
        Countersign::InstrumentKind::"courtOrder"].contains(context.instrument) }
when { context has instrumentInForce && context.instrumentInForce }"""
)


def lapd_says(rules: str, facts: SearchFacts, *, keep: bool = True) -> Verdict:
    evaluator = Evaluator(
        book(directive(rules, known=whole_registry())), whole_registry(), keep=keep
    )
    first = evaluator.evaluate_party(facts, TRAINED, NOON, LAPD)[0].verdict
    again = evaluator.evaluate_party(facts, TRAINED, NOON, LAPD)[0].verdict
    assert first.SerializeToString() == again.SerializeToString()
    return first


@pytest.mark.parametrize("keep", [True, False])
def test_a_refusal_that_a_warrant_or_an_order_would_cure_says_so(*, keep: bool) -> None:
    verdict = lapd_says(f"{COURT_ORDER_IN_FORCE};", known(), keep=keep)
    assert verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_FORBID
    assert [one.requirement for one in verdict.unmet] == ["a warrant or court order", "in force"]
    assert list(verdict.cured_by_instruments) == [WARRANT, ORDER]


def test_an_instrument_that_lapsed_is_cured_by_one_that_has_not() -> None:
    lapsed = known(instrument=instrument(uses_left=0))
    assert WARRANT in lapd_says(f"{COURT_ORDER_IN_FORCE};", lapsed).cured_by_instruments


def test_a_permit_needs_no_cure() -> None:
    verdict = lapd_says(f"{COURT_ORDER_IN_FORCE};", known(instrument=instrument()))
    assert verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_PERMIT
    assert not verdict.cured_by_instruments


def test_what_lacks_something_else_as_well_is_not_cured() -> None:
    rules = COURT_ORDER_IN_FORCE.replace("@requirement_2", '@requirement_3("tried") @requirement_2')
    assert not lapd_says(f"{rules} when {{ context.attempt }};", known()).cured_by_instruments


def test_a_prohibition_with_an_exception_for_an_instrument_is_cured() -> None:
    rules = FORBID + "unless { context has instrumentInForce && context.instrumentInForce };"
    verdict = lapd_says(ALLOWED + rules, known())
    assert [one.id for one in verdict.rules] == ["LAPD-9"]
    assert list(verdict.cured_by_instruments) == KINDS


def test_a_bare_prohibition_is_not_cured() -> None:
    bare = FORBID.replace("LAPD-9", "LAPD-7") + ";"
    assert not lapd_says(f"{COURT_ORDER_IN_FORCE};{bare}", known()).cured_by_instruments


def test_a_search_that_does_not_say_whether_there_is_one_is_told_too() -> None:
    verdict = lapd_says(f"{COURT_ORDER_IN_FORCE};", ordinary())
    assert (list(verdict.faults), verdict.outcome) == (
        ["FACT_UNKNOWN"],
        VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL,
    )
    assert list(verdict.cured_by_instruments) == [WARRANT, ORDER]


def test_another_fact_that_is_unknown_is_not_cured() -> None:
    rules = COURT_ORDER_IN_FORCE.replace(
        "@requirement_2", '@requirement_3("agrees") @requirement_2'
    )
    facts = known(consent_given=None)
    assert not lapd_says(f"{rules} when {{ context.consentGiven }};", facts).cured_by_instruments


def test_a_prohibition_that_may_apply_is_not_taken_for_one_that_does_not() -> None:
    """Untold, the fact would be absent for the rule: as if there were no emergency."""
    rules = FORBID.replace("LAPD-9", "LAPD-7")
    rules += "when { context has emergencyHours && context.emergencyHours > 48 };"
    facts = known(emergency=emergency(began_at=None))
    assert not lapd_says(f"{COURT_ORDER_IN_FORCE};{rules}", facts).cured_by_instruments


def test_who_must_issue_it_where_and_for_what_is_found_too() -> None:
    rules = (
        PERMIT
        + """when { context.instrument == Countersign::InstrumentKind::"courtOrder" }
when { context has instrumentIssuer &&
       context.instrumentIssuer == Countersign::InstrumentIssuer::"grandJury" }
when { context has instrumentScope && context.instrumentScope == Countersign::InstrumentScope::"other" }
when { context has instrumentJurisdiction &&
       context.instrumentJurisdiction == Countersign::Jurisdiction::"US-CA" };"""
    )
    notes = "".join(f'@requirement_{number}("part") ' for number in range(1, 5))
    assert list(lapd_says(notes + rules, known()).cured_by_instruments) == [ORDER]


def test_rules_that_read_no_instrument_are_cured_by_none() -> None:
    rules = '@requirement_1("tried") ' + PERMIT + "when { context.attempt };"
    assert not lapd_says(rules, ordinary()).cured_by_instruments
