"""Who is asked above a state: its country and union, from the day on which they first ordered anything."""

from datetime import datetime

import pytest

from countersign.policy.v1.policy_pb2 import EvaluateRequest
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Seat, VerdictOutcome
from directive.book import Directive
from directive.evaluate import Evaluator
from policy.deciding import Deciding
from shared.clock import stamp
from shared.registry import Registry
from support.directives import (
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    TRAINED,
    book,
    changed_registry,
    directive,
    ordinary,
    permits_everything,
    registry,
)
from support.policies import current

pytestmark = pytest.mark.promise(3)

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
SAYS_PERMIT = VerdictOutcome.VERDICT_OUTCOME_PERMIT
BERLIN = "DEB000001"
ACROSS = ordinary(system="polas", gallery="polas-web")


def world() -> Registry:
    """The demonstration's, with a system in Berlin and a gallery of the FBI in it."""
    content = registry().model_dump()
    content["agencies"] |= {
        BERLIN: {"name": "Polizei Berlin", "jurisdiction": "DE-BE"},
        "DCFBIWA00": {"name": "FBI", "jurisdiction": "US"},
    }
    content["systems"]["polas"] = {"name": "POLAS", "operator": BERLIN, "commercial": False}
    gallery = {"name": "G", "system": "polas", "owner": "DCFBIWA00", "gallery_class": "web_scraped"}
    content["galleries"]["polas-web"] = gallery
    content["unions"] = {"EU": ["DE", "FR"], "AU": ["KE"]}
    return Registry.model_validate(content)


def ordered(rules: str, party: str, prefix: str, **how: str) -> Directive:
    """What a country or union orders."""
    text = rules.replace("LAPD-9", f"{prefix}1") + ";"
    name = f"{prefix.lower()}orders"
    return directive(text, known=world(), party=party, prefix=prefix, name=name, **how)


def decided(*above: Directive, at: datetime = NOON, known: Registry | None = None) -> Decision:
    states = [permits_everything(party, prefix) for party, prefix in
              ((LAPD, "LAPD-"), (LASD, "LASD-"), ("US-CA", "CA-"))]  # fmt: skip
    return Evaluator(book(*states, *above), known or registry()).evaluate(ordinary(), TRAINED, at)


def asked(decision: Decision) -> list[str]:
    return [v.party for v in decision.verdicts if v.seat == Seat.SEAT_JURISDICTION]


def test_a_country_that_never_ordered_anything_is_not_asked() -> None:
    decision = decided()
    assert (asked(decision), decision.outcome) == (["US-CA"], PERMITTED)


def test_a_countrys_prohibition_binds_its_states() -> None:
    decision = decided(ordered(FORBID, "US", "US-"))
    assert (asked(decision), decision.outcome) == (["US", "US-CA"], REFUSED)
    assert [rule.id for v in decision.verdicts if v.party == "US" for rule in v.rules] == ["US-1"]


def test_it_is_asked_from_its_first_day_on_and_refuses_when_its_order_lapsed() -> None:
    dated = {"effective_from": "2026-02-01", "effective_until": "2026-05-01"}
    law = ordered(PERMIT, "US", "US-", **dated)
    before, during, after = (
        decided(law, at=NOON.replace(month=month, day=day))
        for month, day in ((1, 31), (2, 1), (5, 1))
    )
    assert (asked(before), before.outcome) == (["US-CA"], PERMITTED)
    assert (asked(during), during.outcome) == (["US", "US-CA"], PERMITTED)
    assert (asked(after), after.outcome) == (["US", "US-CA"], REFUSED)
    assert [list(v.faults) for v in after.verdicts if v.party == "US"] == [["NO_DIRECTIVE"]]


def test_days_are_told_apart_by_one_evaluator_too() -> None:
    law = ordered(PERMIT, "US", "US-", effective_from="2026-02-01")
    evaluator = Evaluator(book(law), registry())
    for month, expected in ((1, ["US-CA"]), (2, ["US", "US-CA"]), (1, ["US-CA"])):
        decision = evaluator.evaluate(ordinary(), TRAINED, NOON.replace(month=month))
        assert asked(decision) == expected


def test_there_is_one_verdict_for_each_seat_with_unions_and_countries() -> None:
    parties = {
        LAPD: "LAPD-",
        BERLIN: "BERLIN-",
        "DCFBIWA00": "FBI-",
        "US-CA": "CA-",
        "DE-BE": "BE-",
        "US": "US-",
        "EU": "EU-",
        "DE": "DE-",
    }
    duty = '@obligation_report("monthly") '
    law = [ordered(duty + PERMIT, party, prefix) for party, prefix in parties.items()]
    evaluator = Evaluator(book(*law), world())
    decision = evaluator.evaluate(ACROSS, TRAINED, NOON)
    assert [(Seat.Name(v.seat)[5:], v.party) for v in decision.verdicts] == [
        ("ORIGIN", LAPD),
        ("BENEFICIARY", LAPD),
        ("OPERATOR", BERLIN),
        ("GALLERY_OWNER", "DCFBIWA00"),
        *(("JURISDICTION", code) for code in ("DE", "DE-BE", "EU", "US", "US-CA")),
    ]
    assert decision.outcome == PERMITTED
    assert {one.party for one in decision.obligations} == set(parties), "duties of every permit"
    for number, party in enumerate(parties):
        forbidding = ordered(FORBID, party, parties[party])
        others = [*law[:number], forbidding, *law[number + 1 :]]
        said = Evaluator(book(*others), world()).evaluate(ACROSS, TRAINED, NOON)
        assert said.outcome == REFUSED, f"{party} forbids"
        assert len(said.verdicts) == 9, "all are reported"
        assert {v.party for v in said.verdicts if v.outcome != SAYS_PERMIT} == {party}


def test_an_agency_of_the_country_itself_has_it_asked_in_any_case() -> None:
    decision = Evaluator(book(), world()).evaluate(ACROSS, TRAINED, NOON)
    assert asked(decision) == ["DE-BE", "US", "US-CA"]
    assert all(list(v.faults) == ["NO_DIRECTIVE"] for v in decision.verdicts)


def test_rules_find_an_agency_in_its_country() -> None:
    rules = PERMIT.rstrip() + ' when { principal.agency in Countersign::Jurisdiction::"US" }'
    rules = '@requirement_1("of this country")' + rules
    assert decided(ordered(rules, "US", "US-")).outcome == PERMITTED


async def test_the_entry_says_who_was_asked() -> None:
    for law, expected in (((), ["US-CA"]), ((ordered(PERMIT, "US", "US-"),), ["US", "US-CA"])):
        deciding = Deciding(current(book(*law), registry()))
        request = EvaluateRequest(facts=ordinary(), officer=TRAINED, at=stamp(NOON))
        assert list((await deciding.evaluate(request)).parties.jurisdictions) == expected


def test_a_country_follows_from_the_code_and_a_union_from_the_registry() -> None:
    assert world().above("DE-BE") == {"DE", "EU"}
    assert world().above("DE") == {"EU"}
    assert world().above("US-CA") == {"US"}
    assert world().above("US") == frozenset()
    direct = changed_registry()
    assert direct.above("US-CA") == {"US"}
