"""What rules are told of the circumstances of a search; what is not known refuses whoever asks for it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from countersign.type.v1 import circumstances_pb2 as pb
from countersign.type.v1.decision_pb2 import VerdictOutcome
from countersign.type.v1.search_pb2 import GalleryClass, OffenceSeverity, SearchFacts
from directive.circumstances import CIRCUMSTANCES, Circumstanced, year_before
from directive.evaluate import Evaluator
from shared.agency_class import class_of_agency
from shared.clock import stamp
from shared.registry import Registry
from support.circumstances import (
    EXPIRES,
    ISSUED,
    circumstances,
    emergency,
    instrument,
    known,
    whole_registry,
)
from support.directives import (
    FORBID,
    LAPD,
    NOON,
    PERMIT,
    TRAINED,
    CountingEvaluator,
    book,
    directive,
    ordinary,
    vocabulary,
)

PERMITS = VerdictOutcome.VERDICT_OUTCOME_PERMIT
FORBIDS = VerdictOutcome.VERDICT_OUTCOME_FORBID
CANNOT_TELL = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
OF_INSTRUMENT = {fact for fact in CIRCUMSTANCES if fact.startswith("instrument")}
OF_EMERGENCY = {fact for fact in CIRCUMSTANCES if fact.startswith(("emergency", "ratification"))}


def told(facts: SearchFacts, at: datetime = NOON, registry: Registry | None = None) -> Any:
    return Circumstanced(registry or whole_registry(), vocabulary()).tell(facts, at)


def lapd_says(
    condition: str, facts: SearchFacts, *, head: str = FORBID, version: str = "2"
) -> tuple[int, list[str], list[str]]:
    """What LAPD says whose rules permit everything but for one condition."""
    rules = PERMIT.replace("LAPD-9", "LAPD-8") + f";{head} when {{ {condition} }};"
    evaluator = Evaluator(
        book(directive(rules, known=whole_registry(), vocabulary=f'"{version}"')), whole_registry()
    )
    verdict = evaluator.evaluate_party(facts, TRAINED, NOON, LAPD)[0].verdict
    return verdict.outcome, list(verdict.faults), list(verdict.unknown_facts)


def test_every_fact_of_the_vocabulary_is_told_by_every_search_or_a_circumstance() -> None:
    by_every_search = set(vocabulary().earlier["1"].facts) | {"yearAgo"}
    assert set(vocabulary().facts) == by_every_search | CIRCUMSTANCES
    assert not by_every_search & CIRCUMSTANCES


@pytest.mark.promise(3)
def test_of_a_search_that_says_nothing_nothing_is_known() -> None:
    bare = told(ordinary(), registry=Registry.model_validate({"agencies": {}}))
    from_the_search_itself = {"offenceSets", "equivalentSets", "requesterClass"}
    assert bare.unknown == CIRCUMSTANCES - from_the_search_itself
    assert bare.phrases.keys() == from_the_search_itself


def test_of_a_search_that_says_everything_everything_is_known() -> None:
    whole = told(known(instrument=instrument(), emergency=emergency()))
    assert not whole.unknown
    assert whole.phrases.keys() == CIRCUMSTANCES


def test_what_belongs_to_no_instrument_and_no_emergency_is_absent_and_not_unknown() -> None:
    none = told(known())
    assert not none.unknown
    assert CIRCUMSTANCES - none.phrases.keys() == (OF_INSTRUMENT | OF_EMERGENCY) - {
        *("instrument", "emergency")
    }


UNSTATED = {
    **{name: (name, None) for name in ("route", "unsolicited", "instrument", "emergency")},
    "probeEdit": ("probe_edit", None),
    "protectedBasis": ("protected_basis", None),
    "investigation": ("investigation", None),
    "chargeStatus": ("charge_status", None),
    "consentGiven": ("consent_given", None),
    "askedForIdentity": ("asked_for_identity", None),
    "requestFormAttested": ("request_form_attested", None),
    "instrumentStatus": ("instrument", instrument(status=None)),
    "instrumentIssuer": ("instrument", instrument(issuer=None)),
    "instrumentScope": ("instrument", instrument(scope=None)),
    "instrumentJurisdiction": ("instrument", instrument(jurisdiction=None)),
    "instrumentInForce": ("instrument", instrument(expires_at=None)),
    "emergencyHours": ("emergency", emergency(began_at=None)),
    "ratificationOverdue": ("emergency", emergency(ratify_by=None)),
}


@pytest.mark.promise(3)
@pytest.mark.parametrize(("fact", "change"), UNSTATED.items(), ids=UNSTATED)
def test_a_fact_that_was_not_stated_refuses_whoever_reads_it(
    fact: str, change: tuple[str, Any]
) -> None:
    facts = known(**{change[0]: change[1]})
    optional = fact[:10] in ("instrument", "emergencyH", "ratificati") and fact != "instrument"
    reads = f"context has {fact} && context.{fact} != context.{fact}"
    if not optional:
        reads = f"context.{fact} != context.{fact}"
    outcome, faults, unknown = lapd_says(reads, facts)
    assert (outcome, faults) == (CANNOT_TELL, ["FACT_UNKNOWN"])
    assert unknown == [fact]
    elsewhere, _, _ = lapd_says("context.attempt", facts)
    assert elsewhere == PERMITS, "who does not read it is not concerned"


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("section", "name", "field", "fact"),
    [
        ("systems", "lacris", "lowest_group_accuracy", "lowestGroupAccuracy"),
        ("galleries", "lacris-booking", "origin", "galleryOrigin"),
    ],
)
def test_what_the_registry_does_not_know_is_unknown(
    section: str, name: str, field: str, fact: str
) -> None:
    content = whole_registry().model_dump()
    content[section][name][field] = None
    assert told(known(), registry=Registry.model_validate(content)).unknown == {fact}


@pytest.mark.parametrize(
    ("changes", "in_force"),
    [
        ({}, True),
        ({"expires_at": None, "never_expires": True}, True),
        ({"uses_left": None, "unlimited_uses": True}, True),
        ({"uses_left": 0}, False),
        ({"expires_at": stamp(NOON)}, False),
        ({"expires_at": stamp(NOON + timedelta(microseconds=1))}, True),
        ({"issued_at": stamp(NOON)}, True),
        ({"issued_at": stamp(NOON + timedelta(seconds=1))}, False),
        ({"status": pb.INSTRUMENT_STATUS_REFUSED}, False),
        ({"status": pb.INSTRUMENT_STATUS_REQUESTED, "expires_at": None}, False),
        ({"status": pb.INSTRUMENT_STATUS_NOT_REQUESTED}, False),
        ({"status": None}, None),
        ({"uses_left": None}, None),
        ({"expires_at": None}, None),
        ({"issued_at": None}, None),
        ({"issued_at": None, "uses_left": 0}, False),
    ],
)
def test_an_instrument_is_in_force_when_granted_issued_not_expired_and_not_used_up(
    changes: dict[str, Any], in_force: bool | None
) -> None:
    found = told(known(instrument=instrument(**changes)))
    expected = None if in_force is None else f'"instrumentInForce": {str(in_force).lower()}'
    assert found.phrases.get("instrumentInForce") == expected
    assert ("instrumentInForce" in found.unknown) == (in_force is None)


@pytest.mark.promise(3)
def test_an_instrument_expires_although_it_was_good_a_moment_ago() -> None:
    rules = '@requirement_1("in force")' + PERMIT
    rules += "when { context has instrumentInForce && context.instrumentInForce };"
    evaluator = CountingEvaluator(book(directive(rules)), whole_registry())
    facts = known(instrument=instrument())
    moments = [ISSUED, NOON, EXPIRES - timedelta(microseconds=1), EXPIRES, NOON]
    said = [evaluator.evaluate_party(facts, TRAINED, at, LAPD)[0].permits for at in moments]
    assert said == [True, True, True, False, True]
    assert evaluator.asked == 8, (
        "two answers, what was missing once, and five kinds that might cure it"
    )


@pytest.mark.parametrize(
    ("began", "hours"),
    [
        (NOON, 0),
        (NOON - timedelta(minutes=59), 0),
        (NOON - timedelta(hours=48), 48),
        (NOON + timedelta(seconds=1), None),
    ],
)
def test_an_emergency_is_counted_in_whole_hours_and_does_not_begin_later(
    began: datetime, hours: int | None
) -> None:
    found = told(known(emergency=emergency(began_at=stamp(began))))
    expected = None if hours is None else f'"emergencyHours": {hours}'
    assert found.phrases.get("emergencyHours") == expected
    assert ("emergencyHours" in found.unknown) == (hours is None)


def test_the_basis_of_an_emergency_is_given_or_not_and_its_text_is_not_told() -> None:
    facts = known(emergency=emergency())
    for basis, given in [("", "false"), ("  \n", "false"), ("a child was taken", "true")]:
        facts.emergency_basis = basis
        phrases = told(facts).phrases
        assert phrases["emergencyBasisGiven"] == f'"emergencyBasisGiven": {given}'
        assert "child" not in str(phrases)


def test_ratification_is_overdue_from_its_deadline_on() -> None:
    facts = known(emergency=emergency(ratify_by=stamp(NOON)))
    for at, overdue in [(NOON - timedelta(milliseconds=1), "false"), (NOON, "true")]:
        assert told(facts, at).phrases["ratificationOverdue"].endswith(overdue)


@pytest.mark.parametrize(
    ("code", "statute", "equivalent", "sets"),
    [
        ("120", "", "", (True, False)),
        ("13A", "18 Pa.C.S. s. 3701", "", (True, False)),
        ("13A", "", "18 Pa.C.S. s. 3701", (False, True)),
        ("12", "18 Pa.C.S. s. 37", "18 pa.c.s. s. 3701", (False, False)),
    ],
)
def test_offences_are_in_sets_by_code_and_statute_and_equivalents_by_statute(
    code: str, statute: str, equivalent: str, sets: tuple[bool, bool]
) -> None:
    facts = known(equivalent_statute=equivalent)
    facts.offence.nibrs_code, facts.offence.statute = code, statute
    phrases = told(facts).phrases
    assert tuple("robberies" in phrases[name] for name in ("offenceSets", "equivalentSets")) == sets
    member = 'contains(Countersign::OffenceSet::"robberies")'
    for name, inside in zip(("offenceSets", "equivalentSets"), sets, strict=True):
        outcome, _, _ = lapd_says(f"context.{name}.{member}", facts)
        assert outcome == (FORBIDS if inside else PERMITS)


@pytest.mark.promise(3)
def test_an_offence_that_is_neither_coded_nor_cited_may_be_in_any_set() -> None:
    facts = known()
    facts.offence.nibrs_code = ""
    forbidden = 'context.offenceSets.contains(Countersign::OffenceSet::"robberies")'
    assert lapd_says(forbidden, facts) == (CANNOT_TELL, ["FACT_UNKNOWN"], ["offenceSets"])
    facts.offence.severity = OffenceSeverity.OFFENCE_SEVERITY_NOT_CRIMINAL
    assert lapd_says(forbidden, facts)[0] == PERMITS, "where there is no offence, none is in a set"


@pytest.mark.promise(3)
def test_a_circumstance_of_a_release_to_come_is_unknown_to_every_party() -> None:
    """Who cannot read it cannot know that nobody forbids it."""
    facts = known(instrument=instrument())
    facts.circumstances.instrument.MergeFromString(b"\xfa\x7d\x05later")
    assert lapd_says("context.attempt", facts) == (CANNOT_TELL, ["FACT_UNKNOWN"], [])


@pytest.mark.parametrize(
    ("ori", "word"),
    [
        (LAPD, "LAW_ENFORCEMENT"),
        ("MD0000009", "LAW_ENFORCEMENT"),
        ("CA019013A", "PROSECUTION"),
        ("CA019015B", "PRETRIAL_SERVICES"),
        ("CA019015C", "CORRECTIONS"),
        ("CA019013G", "PROBATION_AND_PAROLE"),
        ("DCINTER0I", "INTERPOL"),
        ("CA019023J", "COURT"),
        ("CA019013Z", "OTHER"),
        ("", "OTHER"),
    ],
)
def test_the_class_of_an_agency_is_in_the_ninth_character_of_its_ori(ori: str, word: str) -> None:
    assert class_of_agency(ori) == pb.AgencyClass.Value(f"AGENCY_CLASS_{word}")


def test_a_year_ago_is_the_same_day() -> None:
    assert year_before(NOON) == NOON.replace(year=2025)
    assert year_before(datetime(2028, 2, 29, 1, tzinfo=UTC)) == datetime(2027, 2, 28, 1, tzinfo=UTC)
    assert year_before(datetime(1, 3, 1, tzinfo=UTC)).year == 1


@pytest.mark.promise(3)
def test_a_certificate_of_more_than_a_year_ago_is_not_of_this_year() -> None:
    content = whole_registry().model_dump()
    content["officers"][TRAINED]["certificates_issued"] = {"LACRIS-FR": "2026-01-01"}
    registry = Registry.model_validate(content)
    rules = (
        '@requirement_1("trained within a year")'
        + PERMIT
        + (
            'when { principal.hasTag("LACRIS-FR.issued") && '
            'principal.getTag("LACRIS-FR.issued") > context.yearAgo };'
        )
    )
    evaluator = CountingEvaluator(book(directive(rules, known=registry)), registry)
    last = datetime(2027, 1, 1, tzinfo=UTC)
    moments = [NOON, last - timedelta(milliseconds=1), last, NOON]
    said = [evaluator.evaluate_party(ordinary(), TRAINED, at, LAPD)[0].permits for at in moments]
    assert said == [True, True, False, True]
    assert evaluator.asked == 3


@pytest.mark.promise(3)
def test_an_agreement_on_file_counts_until_its_day() -> None:
    content = whole_registry().model_dump()
    content["agencies"][LAPD]["agreements"] = {"LACRIS-MOA": "2027-01-01"}
    registry = Registry.model_validate(content)
    rules = (
        '@requirement_1("an agreement")'
        + PERMIT
        + (
            'when { principal.agency.hasTag("LACRIS-MOA") && '
            'principal.agency.getTag("LACRIS-MOA") > context.now };'
        )
    )
    evaluator = Evaluator(book(directive(rules, known=registry)), registry)
    for at, permits in [(NOON, True), (datetime(2027, 1, 1, tzinfo=UTC), False)]:
        assert evaluator.evaluate_party(ordinary(), TRAINED, at, LAPD)[0].permits == permits


LATER_WORDS = [
    ({"suspicion": 4}, 'context.suspicion == Countersign::SuspicionLevel::"none"', "suspicion"),
    ({"purpose": 11}, 'context.purpose == Countersign::Purpose::"crowdAnalysis"', "purpose"),
    ({"provenance": 10}, 'context.provenance == Countersign::ProbeProvenance::"sketch"', "provenance"),
    ({"capture_mode": 6}, 'context.captureMode == Countersign::CaptureMode::"liveVideo"', "captureMode"),
]  # fmt: skip


@pytest.mark.promise(3)
@pytest.mark.parametrize(("change", "condition", "fact"), LATER_WORDS)
def test_a_directive_cannot_tell_of_a_word_that_its_vocabulary_did_not_have(
    change: dict[str, int], condition: str, fact: str
) -> None:
    facts = ordinary(**change)
    assert lapd_says(condition, facts, version="1") == (CANNOT_TELL, ["FACT_UNKNOWN"], [fact])
    assert lapd_says(condition, facts, version="2")[0] == PERMITS
    assert lapd_says("context.attempt", facts, version="1")[0] == PERMITS, "it does not read it"


@pytest.mark.promise(3)
def test_a_class_of_gallery_that_its_vocabulary_did_not_have_is_unknown_too() -> None:
    content = whole_registry().model_dump()
    content["galleries"]["lacris-booking"]["gallery_class"] = "prisoners"
    registry = Registry.model_validate(content)
    assert registry.galleries["lacris-booking"].proto_class == GalleryClass.GALLERY_CLASS_PRISONERS
    condition = 'resource.class == Countersign::GalleryClass::"webScraped"'
    rules = PERMIT.replace("LAPD-9", "LAPD-8") + f";{FORBID} when {{ {condition} }};"
    for version, expected in [("1", CANNOT_TELL), ("2", PERMITS)]:
        made = directive(rules, vocabulary=f'"{version}"')
        verdict = Evaluator(book(made), registry).evaluate_party(ordinary(), TRAINED, NOON, LAPD)
        assert verdict[0].verdict.outcome == expected


def test_searches_in_other_circumstances_are_asked_about_anew() -> None:
    rules = PERMIT.replace("LAPD-9", "LAPD-8") + ";" + FORBID
    rules += 'when { context.route == Countersign::RequestRoute::"informal" };'
    evaluator = CountingEvaluator(book(directive(rules)), whole_registry())
    routes = [pb.REQUEST_ROUTE_DIRECT, pb.REQUEST_ROUTE_INFORMAL, pb.REQUEST_ROUTE_DIRECT]
    said = [
        evaluator.evaluate_party(
            ordinary(circumstances=circumstances(route=route)), TRAINED, NOON, LAPD
        )[0].permits
        for route in routes
    ]
    assert said == [True, False, True]
    assert evaluator.asked == 2
