"""What the parties say: one verdict for each seat, any forbid wins, doubt refuses."""

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version
from typing import Any

import pytest

from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import (
    Offence,
    OffenceSeverity,
    ProbeProvenance,
    Purpose,
)
from directive.book import Directive
from directive.evaluate import Evaluator, conjunction, follows
from directive.findings import DirectiveRefused
from shared.registry import Registry
from support.directives import (
    BURBANK,
    FACEFIND,
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    TRAINED,
    book,
    book_where_others_permit,
    changed_registry,
    directive,
    ordinary,
    permits_everything,
    registry,
    shipped_book,
)

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
SAYS_PERMIT = VerdictOutcome.VERDICT_OUTCOME_PERMIT
SAYS_FORBID = VerdictOutcome.VERDICT_OUTCOME_FORBID
CANNOT_TELL = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL


@pytest.fixture(name="shipped", scope="module")
def _shipped() -> Evaluator:
    return Evaluator(shipped_book(), registry())


def outcomes(decision: Decision) -> dict[tuple[str, str], str]:
    return {
        (Seat.Name(v.seat)[5:], v.party): VerdictOutcome.Name(v.outcome)[16:]
        for v in decision.verdicts
    }


# --- The decision


def test_a_search_that_everyone_permits_names_rules_duties_and_texts(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(), TRAINED, NOON)
    assert decision.outcome == PERMITTED
    assert outcomes(decision) == {
        ("ORIGIN", LAPD): "PERMIT",
        ("BENEFICIARY", LAPD): "PERMIT",
        ("OPERATOR", LASD): "PERMIT",
        ("GALLERY_OWNER", LASD): "PERMIT",
        ("JURISDICTION", "US-CA"): "PERMIT",
    }
    assert [rule.id for v in decision.verdicts for rule in v.rules] == [
        "LAPD-1", "LAPD-1", "LASD-1", "LASD-1", "CA-1",
    ]  # fmt: skip
    assert [(o.party, o.rule_id, o.kind, o.parameters) for o in decision.obligations] == [
        (LASD, "LASD-1", "notice", "lead-only"),
        (LAPD, "LAPD-1", "log", "officer,caseNumber,probe"),
        (LAPD, "LAPD-1", "notice", "lead-only"),
    ]
    assert [d.name for d in decision.verdicts[0].directives] == [
        "lapd-2020-11-13", "lapd-commission-2021-01-12",
    ]  # fmt: skip
    assert decision.engine == f"cedarpy {version('cedarpy')}"
    assert decision.evaluated_at.ToDatetime(UTC) == NOON


def test_the_jurisdiction_is_asked_once_however_many_agencies_it_binds(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(beneficiary_agency=BURBANK), TRAINED, NOON)
    assert [v.party for v in decision.verdicts if v.seat == Seat.SEAT_JURISDICTION] == ["US-CA"]


def test_on_behalf_of_another_agency_is_refused_with_the_rule_and_its_citation(
    shipped: Evaluator,
) -> None:
    decision = shipped.evaluate(ordinary(beneficiary_agency=BURBANK), TRAINED, NOON)
    assert decision.outcome == REFUSED
    (rule,) = decision.verdicts[0].rules
    assert rule.id == "LAPD-3"
    assert "on behalf of outside agencies" in rule.citation
    assert outcomes(decision)["BENEFICIARY", BURBANK] == "PERMIT"
    assert not decision.verdicts[0].unmet, "nothing that is missing would cure a prohibition"


def test_a_lapsed_certificate_is_refused_with_what_would_cure_it(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(), "lapd-40777", NOON)
    assert decision.outcome == REFUSED
    (unmet,) = decision.verdicts[0].unmet
    assert (unmet.rule_id, unmet.clause) == ("LAPD-1", 3)
    assert unmet.requirement == (
        "a LACRIS face-recognition training certificate that has not lapsed"
    )
    assert unmet.citation


def test_a_commercial_service_is_refused_by_everyone_concerned(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(system="facefind", gallery="facefind-web"), TRAINED, NOON)
    assert decision.outcome == REFUSED
    assert {r.id for v in decision.verdicts for r in v.rules} == {
        "LAPD-2", "LAPD-4", "FACEFIND-1", "CA-1",
    }  # fmt: skip
    assert {o.rule_id for o in decision.obligations} == {"LAPD-2"}


@pytest.mark.promise(3)
def test_t76_an_unknown_beneficiary_is_never_read_as_the_origin_itself(shipped: Evaluator) -> None:
    decision = shipped.evaluate(ordinary(beneficiary_agency=None), TRAINED, NOON)
    assert decision.outcome == REFUSED
    assert [rule.id for rule in decision.verdicts[0].rules] == ["LAPD-3"]
    beneficiary = decision.verdicts[1]
    assert (beneficiary.seat, beneficiary.party) == (Seat.SEAT_BENEFICIARY, "")
    assert beneficiary.outcome == CANNOT_TELL
    assert list(beneficiary.faults) == ["BENEFICIARY_UNKNOWN"]


def test_t75_both_ends_are_asked_and_one_refusal_is_enough() -> None:
    maine = changed_registry(
        agencies={"ME0000000": {"name": "Maine BMV (placeholder)", "jurisdiction": "US-ME"}},
        systems={"maine-bmv": {"name": "BMV", "operator": "ME0000000", "commercial": False}},
        galleries={
            "maine-licences": {
                "name": "licences",
                "system": "maine-bmv",
                "owner": "ME0000000",
                "gallery_class": "driver_licences",
            }
        },
    )
    willing = [permits_everything("ME0000000", "ME-"), permits_everything("US-ME", "USME-")]
    everyone = book(*shipped_book().directives.values(), *willing)
    decision = Evaluator(everyone, maine).evaluate(
        ordinary(system="maine-bmv", gallery="maine-licences"), TRAINED, NOON
    )
    assert decision.outcome == REFUSED
    assert [rule.id for rule in decision.verdicts[0].rules] == ["LAPD-4"]
    said = outcomes(decision)
    assert said["OPERATOR", "ME0000000"] == said["JURISDICTION", "US-ME"] == "PERMIT"
    assert said["JURISDICTION", "US-CA"] == "PERMIT"


@pytest.mark.promise(3)
def test_t78_a_bare_prohibition_always_forbids(shipped: Evaluator) -> None:
    facts = ordinary(
        system="facefind",
        gallery="facefind-web",
        purpose=Purpose.PURPOSE_IMMINENT_THREAT_TO_LIFE,
    )
    decision = shipped.evaluate(facts, TRAINED, NOON)
    assert outcomes(decision)["OPERATOR", FACEFIND] == "FORBID"
    assert outcomes(decision)["GALLERY_OWNER", FACEFIND] == "FORBID"


def test_t79_a_duty_of_one_directive_stands_though_another_is_silent() -> None:
    review = directive('@obligation_peer_review("two examiners") ' + PERMIT + ";", name="one")
    silent = directive(PERMIT.replace("LAPD-9", "LAPD-8") + ";", name="two")
    evaluator = Evaluator(book_where_others_permit(_named(review, "one"), silent), registry())
    decision = evaluator.evaluate(ordinary(), TRAINED, NOON)
    assert decision.outcome == PERMITTED
    assert [(o.kind, o.rule_id) for o in decision.obligations] == [("peer_review", "LAPD-9")]


def _named(given: Directive, name: str) -> Directive:
    manifest = given.document.manifest.model_copy(update={"name": name})
    return Directive(dataclasses.replace(given.document, manifest=manifest), given.rules)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], REFUSED),
        ([SAYS_PERMIT], PERMITTED),
        ([SAYS_PERMIT, SAYS_PERMIT], PERMITTED),
        ([SAYS_PERMIT, SAYS_FORBID], REFUSED),
        ([CANNOT_TELL, SAYS_PERMIT], REFUSED),
        ([SAYS_PERMIT, VerdictOutcome.VERDICT_OUTCOME_UNSPECIFIED], REFUSED),
    ],
)
def test_the_decision_is_the_conjunction_and_nothing_is_no_permit(
    verdicts: list[Any], expected: int
) -> None:
    assert conjunction([Verdict(outcome=outcome) for outcome in verdicts]) == expected


# --- Doubt refuses


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("changes", "officer", "fault"),
    [
        ({"origin_agency": "XX0000000"}, TRAINED, "UNKNOWN_AGENCY"),
        ({"beneficiary_agency": "XX0000000"}, TRAINED, "UNKNOWN_AGENCY"),
        ({"system": "nowhere"}, TRAINED, "UNKNOWN_SYSTEM"),
        ({"gallery": "nowhere"}, TRAINED, "UNKNOWN_GALLERY"),
        ({"gallery": "facefind-web"}, TRAINED, "UNKNOWN_GALLERY"),
        ({}, "nobody", "UNKNOWN_OFFICER"),
        ({}, "", "UNKNOWN_OFFICER"),
        ({}, "burbank-117", "OFFICER_OF_ANOTHER_AGENCY"),
        ({"purpose": 0}, TRAINED, "FACT_UNKNOWN"),
        ({"purpose": 99}, TRAINED, "FACT_UNKNOWN"),
        ({"suspicion": 0}, TRAINED, "FACT_UNKNOWN"),
        ({"provenance": 0}, TRAINED, "FACT_UNKNOWN"),
        ({"capture_mode": 0}, TRAINED, "FACT_UNKNOWN"),
        ({"offence": None}, TRAINED, "FACT_UNKNOWN"),
        ({"offence": Offence(severity=OffenceSeverity.ValueType(77))}, TRAINED, "FACT_UNKNOWN"),
    ],
)
def test_what_nobody_knows_refuses_though_every_party_permits_everything(
    changes: dict[str, Any], officer: str, fault: str
) -> None:
    evaluator = Evaluator(book_where_others_permit(), registry())
    assert evaluator.evaluate(ordinary(), TRAINED, NOON).outcome == PERMITTED
    decision = evaluator.evaluate(ordinary(**changes), officer, NOON)
    assert decision.outcome == REFUSED
    assert fault in {f for v in decision.verdicts for f in v.faults}


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("changes", "officer"),
    [
        ({"origin_agency": "XX0000000"}, TRAINED),
        ({"system": "nowhere"}, TRAINED),
        ({"gallery": "nowhere"}, TRAINED),
        ({"gallery": "facefind-web"}, TRAINED),
        ({"purpose": 0}, TRAINED),
        ({}, "nobody"),
        ({}, "burbank-117"),
    ],
)
def test_nobody_can_tell_when_who_what_or_why_is_unknown(
    changes: dict[str, Any], officer: str
) -> None:
    evaluator = Evaluator(book_where_others_permit(), registry())
    decision = evaluator.evaluate(ordinary(**changes), officer, NOON)
    assert {v.outcome for v in decision.verdicts} == {CANNOT_TELL}


@pytest.mark.promise(3)
def test_a_party_without_a_directive_refuses() -> None:
    only = [permits_everything(LASD, "LASD-"), permits_everything("US-CA", "CA-")]
    decision = Evaluator(book(*only), registry()).evaluate(ordinary(), TRAINED, NOON)
    assert decision.outcome == REFUSED
    assert list(decision.verdicts[0].faults) == ["NO_DIRECTIVE"]
    assert decision.verdicts[0].outcome == CANNOT_TELL


@pytest.mark.promise(3)
def test_an_expired_directive_refuses_from_its_last_day_on() -> None:
    brief = directive(PERMIT + ";", effective_until="2026-06-02")
    evaluator = Evaluator(book_where_others_permit(brief), registry())
    last = datetime(2026, 6, 1, 23, 59, 59, 999999, tzinfo=UTC)
    assert evaluator.evaluate(ordinary(), TRAINED, last).outcome == PERMITTED
    after = evaluator.evaluate(ordinary(), TRAINED, last + timedelta(microseconds=1))
    assert after.outcome == REFUSED
    assert "NO_DIRECTIVE" in after.verdicts[0].faults


def test_the_day_is_counted_in_utc_wherever_the_caller_is() -> None:
    brief = directive(PERMIT + ";", effective_until="2026-06-02")
    evaluator = Evaluator(book_where_others_permit(brief), registry())
    in_los_angeles = datetime(2026, 6, 1, 18, tzinfo=timezone(timedelta(hours=-7)))
    assert evaluator.evaluate(ordinary(), TRAINED, in_los_angeles).outcome == REFUSED


def test_a_new_version_of_a_directive_takes_over_on_its_day() -> None:
    old = _named(directive(PERMIT + ";", effective_until="2026-06-02"), "old")
    new = _named(directive(FORBID + ";", effective_from="2026-06-02"), "new")
    evaluator = Evaluator(book_where_others_permit(old, new), registry())
    assert evaluator.evaluate(ordinary(), TRAINED, NOON).outcome == PERMITTED
    later = evaluator.evaluate(ordinary(), TRAINED, NOON + timedelta(days=1))
    assert later.outcome == REFUSED
    assert [d.name for d in later.verdicts[0].directives] == ["new"]


def test_the_same_identifier_twice_on_one_day_is_not_loaded() -> None:
    one, two = _named(directive(PERMIT + ";"), "one"), _named(directive(FORBID + ";"), "two")
    with pytest.raises(DirectiveRefused, match=r"also a rule of one, .*VERSIONS_OVERLAP"):
        book(one, two)


def test_two_directives_of_one_name_are_not_loaded() -> None:
    other = FORBID.replace("LAPD-9", "LAPD-8") + ";"
    with pytest.raises(DirectiveRefused, match="NAME_DUPLICATE"):
        book(_named(directive(PERMIT + ";"), "one"), _named(directive(other), "one"))


def test_a_prefix_belongs_to_one_party() -> None:
    with pytest.raises(DirectiveRefused, match="ID_PREFIX"):
        book(permits_everything(LAPD, "LAPD-"), _named(
            directive(PERMIT + ";", party=LASD, prefix="LAPD-"), "thief"))  # fmt: skip


@pytest.mark.promise(3)
def test_an_answer_that_does_not_follow_from_the_rules_named_is_not_taken() -> None:
    permit, forbid = (directive(rules + ";").rules[0] for rules in (PERMIT, FORBID))
    assert follows(True, 1, [permit])
    assert follows(False, 1, [forbid])
    assert follows(False, 0, [])
    assert not follows(True, 0, []), "a permit that no rule gave"
    assert not follows(True, 2, [permit]), "a rule that nobody knows"
    assert not follows(True, 2, [permit, forbid])
    assert not follows(False, 1, [permit])


# --- What the decision is bound to


def test_the_same_question_is_answered_bit_for_bit_the_same(shipped: Evaluator) -> None:
    again = Evaluator(shipped_book(), registry())
    first = shipped.evaluate(ordinary(), TRAINED, NOON).SerializeToString(deterministic=True)
    assert first == again.evaluate(ordinary(), TRAINED, NOON).SerializeToString(deterministic=True)


def test_the_digest_changes_with_registry_and_directives(shipped: Evaluator) -> None:
    here = shipped.evaluate(ordinary(), TRAINED, NOON).policy_set_sha256
    other_registry = changed_registry(officers={"lapd-1": {"agency": LAPD, "active": True}})
    other = Evaluator(shipped_book(), other_registry).evaluate(ordinary(), TRAINED, NOON)
    assert other.outcome == PERMITTED
    assert other.policy_set_sha256 != here
    fewer = book_where_others_permit()
    assert (
        Evaluator(fewer, registry()).evaluate(ordinary(), TRAINED, NOON).policy_set_sha256 != here
    )
    elsewhere = shipped.evaluate(
        ordinary(provenance=ProbeProvenance.PROBE_PROVENANCE_WITNESS_PHOTO), TRAINED, NOON
    )
    assert elsewhere.policy_set_sha256 == here, "it is about the rules, not about the question"


def test_the_time_is_kept_in_the_milliseconds_that_rules_see(shipped: Evaluator) -> None:
    exact = NOON.replace(microsecond=123456)
    decision = shipped.evaluate(ordinary(), TRAINED, exact)
    kept = decision.evaluated_at.ToDatetime(UTC)
    assert kept == NOON.replace(microsecond=123000)
    assert shipped.evaluate(ordinary(), TRAINED, kept) == decision


# --- One party only, for the connector


def test_one_party_is_asked_for_each_of_its_seats_and_no_other(shipped: Evaluator) -> None:
    verdicts = shipped.evaluate_party(ordinary(), TRAINED, NOON, LASD)
    assert [(v.verdict.seat, v.verdict.party) for v in verdicts] == [
        (Seat.SEAT_OPERATOR, LASD), (Seat.SEAT_GALLERY_OWNER, LASD),
    ]  # fmt: skip
    assert conjunction(v.verdict for v in verdicts) == PERMITTED
    whole = shipped.evaluate(ordinary(), TRAINED, NOON)
    assert [v.verdict for v in verdicts] == [v for v in whole.verdicts if v.party == LASD]


@pytest.mark.promise(3)
def test_a_party_without_a_seat_permits_nothing(shipped: Evaluator) -> None:
    verdicts = shipped.evaluate_party(ordinary(), TRAINED, NOON, BURBANK)
    assert not verdicts
    assert conjunction([held.verdict for held in verdicts]) == REFUSED


def test_a_registry_without_officers_and_galleries_still_starts() -> None:
    bare = Registry.model_validate(
        {"agencies": {code: {"name": "x", "jurisdiction": "US-CA"} for code in (LAPD, LASD)}}
    )
    evaluator = Evaluator(book_where_others_permit(), bare)
    assert evaluator.evaluate(ordinary(), TRAINED, NOON).outcome == REFUSED
