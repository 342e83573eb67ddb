"""What is answered without asking the engine again, and what is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from countersign.type.v1.decision_pb2 import VerdictOutcome
from countersign.type.v1.search_pb2 import (
    CaptureMode,
    ProbeProvenance,
    Purpose,
    SuspicionLevel,
)
from directive import evaluate
from directive.evaluate import Evaluator
from directive.likeness import Likeness, likeness
from directive.rules import read_rules
from support.directives import (
    BURBANK,
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    TRAINED,
    CountingEvaluator,
    book_where_others_permit,
    ordinary,
    registry,
    shipped_book,
    unguarded,
)

LAPSE = datetime(2027, 1, 1, tzinfo=UTC)


def of(condition: str) -> Likeness:
    return likeness(read_rules(PERMIT + f"when {{ {condition} }};"), (LAPSE,))


def test_another_case_at_another_time_is_not_asked_again() -> None:
    evaluator = CountingEvaluator(shipped_book(), registry())
    first = evaluator.evaluate(ordinary(), TRAINED, NOON)
    later = NOON + timedelta(seconds=7)
    again = evaluator.evaluate(ordinary(case_number="26-0002"), TRAINED, later)
    assert evaluator.asked == 3, "once for each party"
    assert again.evaluated_at.ToDatetime(UTC) == later
    again.evaluated_at.CopyFrom(first.evaluated_at)
    assert again == first


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "change",
    [{"case_number": ""}, {"provenance": ProbeProvenance.PROBE_PROVENANCE_SOCIAL_MEDIA}],
)
def test_a_fact_that_a_rule_reads_is_asked_about(change: dict[str, object]) -> None:
    evaluator = CountingEvaluator(shipped_book(), registry())
    evaluator.evaluate(ordinary(), TRAINED, NOON)
    before = evaluator.asked
    decision = evaluator.evaluate(ordinary(**change), TRAINED, NOON)
    assert evaluator.asked > before
    assert decision == Evaluator(shipped_book(), registry(), keep=False).evaluate(
        ordinary(**change), TRAINED, NOON
    )


@pytest.mark.promise(3)
def test_a_certificate_lapses_although_it_was_good_a_millisecond_ago() -> None:
    lapse = datetime.combine(
        registry().officers[TRAINED].certificates["LACRIS-FR"], datetime.min.time(), UTC
    )
    evaluator = Evaluator(shipped_book(), registry())
    outcomes = [
        evaluator.evaluate_party(ordinary(), TRAINED, lapse + timedelta(milliseconds=ms), LAPD)[0]
        for ms in (-2, -1, 0, 1, -1)
    ]
    assert [verdict.permits for verdict in outcomes] == [True, True, False, False, True]


@pytest.mark.promise(3)
def test_a_verdict_that_could_not_be_told_is_never_kept() -> None:
    rules = (
        PERMIT
        + ";"
        + FORBID.replace("LAPD-9", "LAPD-8")
        + (f'when {{ context.beneficiary == Countersign::Agency::"{LAPD}" }};')
    )
    evaluator = CountingEvaluator(book_where_others_permit(unguarded(rules)), registry())
    facts = ordinary()
    facts.ClearField("beneficiary_agency")
    for asked in (1, 2, 3):
        said = evaluator.evaluate_party(facts, TRAINED, NOON, LAPD)
        assert said[0].verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
        assert evaluator.asked == asked


def test_a_caller_cannot_change_what_is_kept() -> None:
    evaluator = Evaluator(shipped_book(), registry())
    for _ in range(3):
        said = evaluator.evaluate_party(ordinary(), TRAINED, NOON, LAPD)
        assert said[0].verdict.rules[0].id == "LAPD-1"
        said[0].verdict.rules[0].id = "changed"


def test_as_many_are_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "KEPT_VERDICTS_MAX", 3)
    evaluator = CountingEvaluator(shipped_book(), registry())
    evaluator.evaluate(ordinary(), TRAINED, NOON)
    evaluator.evaluate(ordinary(), "lapd-40777", NOON)
    before = evaluator.asked
    evaluator.evaluate(ordinary(), TRAINED, NOON)
    assert evaluator.asked == before + 2, "the oldest were forgotten"


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ('context.caseNumber != ""', {""}),
        ('"1" == context.caseNumber || context.caseNumber == "2"', {"1", "2"}),
        ('["1", "2"].contains(context.caseNumber)', {"1", "2"}),
        ('context.caseNumber like "1*"', None),
        ('context.caseNumber == "1" || context.caseNumber like "1*"', None),
        ("context.caseNumber == context.statute", None),
        ('[context.statute, "1"].contains(context.caseNumber)', None),
        ("[context.caseNumber].contains(context.caseNumber)", None),
        ("principal.hasTag(context.caseNumber)", None),
        ('context.caseNumber == "1" && [context].contains(context)', None),
        ('(if context.attempt then context else context).caseNumber == ""', None),
        ('context.caseNumber == (if true then "1" else "2")', None),
    ],
)
def test_texts_are_alike_only_when_compared_with_what_is_written(
    condition: str, named: set[str] | None
) -> None:
    found = of(condition).texts.get("caseNumber")
    assert found == (None if named is None else frozenset(named))


@pytest.mark.parametrize(
    ("condition", "instants"),
    [
        ('principal.getTag("X") > context.now', [LAPSE]),
        ('context.now < datetime("2026-01-01")', [datetime(2026, 1, 1, tzinfo=UTC), LAPSE]),
        (
            'datetime("2026-01-01T00:00:00+0100") == context.now',
            [datetime(2025, 12, 31, 23, tzinfo=UTC), LAPSE],
        ),
        ('context.now.toDate() == datetime("2026-01-01")', None),
        ("context.now == context.now", None),
        ("principal.getTag(context.caseNumber) > context.now", None),
        ('context.now < datetime("2026-01-01").offset(duration("1s"))', None),
        ("[context.now].contains(context.now)", None),
    ],
)
def test_times_are_alike_only_when_compared_with_what_is_known(
    condition: str, instants: list[datetime] | None
) -> None:
    found = of(condition).instants.get("now")
    assert found == (None if instants is None else tuple(instants))
    year = of(condition.replace("context.now", "context.yearAgo")).instants.get("yearAgo")
    assert year == found, "the other time is told apart in the same way"


def test_the_edge_itself_is_like_nothing_else() -> None:
    known = Likeness({"caseNumber": frozenset({""})}, {"now": (LAPSE,)})
    millisecond = timedelta(milliseconds=1)
    moments = [LAPSE - 2 * millisecond, LAPSE - millisecond, LAPSE, LAPSE + millisecond]
    classes = [known.of_moment("now", moment) for moment in moments]
    assert classes[0] == classes[1]
    assert len(set(classes)) == 3
    assert known.of_text("caseNumber", "1") == known.of_text("caseNumber", "2")
    assert known.of_text("caseNumber", "1") != known.of_text("caseNumber", "")
    assert known.of_text("statute", "1") != known.of_text("statute", "2")


@pytest.mark.parametrize(
    ("rules", "officer", "gallery"),
    [
        (PERMIT + ";", False, False),
        (PERMIT + "when { principal.active };", True, False),
        (PERMIT + "when { resource.system.commercial };", False, True),
        (
            PERMIT.replace("principal,", 'principal == Countersign::Officer::"a",') + ";",
            True,
            False,
        ),
        (
            PERMIT.replace("resource)", 'resource in Countersign::System::"lacris")') + ";",
            False,
            True,
        ),
        (PERMIT.replace("principal,", "principal is Countersign::Officer,") + ";", True, False),
        (PERMIT + "when { [context].contains(context) && principal.active };", True, False),
    ],
)
def test_officers_and_galleries_are_alike_to_rules_that_do_not_mention_them(
    rules: str, officer: bool, gallery: bool
) -> None:
    found = likeness(read_rules(rules), ())
    assert (found.officer, found.gallery) == (officer, gallery)


@pytest.mark.promise(3)
def test_what_was_kept_never_answers_another_question() -> None:
    kept = Evaluator(shipped_book(), registry())
    asked: list[tuple[dict[str, Any], str]] = [
        ({}, TRAINED),
        ({}, "lapd-40777"),
        ({"case_number": ""}, TRAINED),
        ({"beneficiary_agency": BURBANK}, TRAINED),
        ({"beneficiary_agency": LASD}, TRAINED),
        ({"gallery": "facefind-web", "system": "facefind"}, TRAINED),
        *(({"purpose": one}, TRAINED) for one in Purpose.values()),
        *(({"suspicion": one}, TRAINED) for one in SuspicionLevel.values()),
        *(({"provenance": one}, TRAINED) for one in ProbeProvenance.values()),
        *(({"capture_mode": one}, TRAINED) for one in CaptureMode.values()),
    ]
    for changes, officer in asked * 2:
        facts = ordinary(**changes)
        anew = Evaluator(shipped_book(), registry(), keep=False).evaluate(facts, officer, NOON)
        assert kept.evaluate(facts, officer, NOON) == anew, (changes, officer)


@pytest.mark.parametrize(
    "change",
    [
        {"origin_agency": BURBANK},
        {"beneficiary_agency": BURBANK},
        {"system": "another"},
        {"gallery": "another"},
    ],
)
def test_who_is_asked_is_not_taken_from_another_search(change: dict[str, object]) -> None:
    kept = Evaluator(shipped_book(), registry())
    kept.evaluate(ordinary(), TRAINED, NOON)
    decision = kept.evaluate(ordinary(**change), TRAINED, NOON)
    anew = Evaluator(shipped_book(), registry(), keep=False)
    assert decision == anew.evaluate(ordinary(**change), TRAINED, NOON)
