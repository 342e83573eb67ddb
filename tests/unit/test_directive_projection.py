"""What a party is not told cannot help it to permit."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Any

import cedarpy
import pytest

from countersign.type.v1.decision_pb2 import DecisionOutcome, VerdictOutcome
from directive import entities, self_test
from directive.book import Book, Directive, Slice
from directive.evaluate import Evaluator
from directive.findings import DirectiveRefused
from directive.projection import Projection, check, facts_read, seat_lists
from directive.rules import Rule, read_rules
from directive.self_test import EngineUntrustworthy
from directive.vocabulary import Vocabulary, VocabularyError
from support.circumstances import known, whole_registry
from support.directives import (
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    TRAINED,
    CountingEvaluator,
    book_where_others_permit,
    directive,
    ordinary,
    registry,
    shipped_book,
    unguarded,
    vocabulary,
)

REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
CANNOT_TELL = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL

READS = {
    "now": 'context.now < datetime("2020-01-01")',
    "seat": 'context.seat == Countersign::Seat::"jurisdiction"',
    "purpose": 'context.purpose == Countersign::Purpose::"crowdAnalysis"',
    "suspicion": 'context.suspicion == Countersign::SuspicionLevel::"none"',
    "severity": 'context.severity == Countersign::OffenceSeverity::"infraction"',
    "provenance": 'context.provenance == Countersign::ProbeProvenance::"sketch"',
    "captureMode": 'context.captureMode == Countersign::CaptureMode::"liveVideo"',
    "nibrsCode": 'context.nibrsCode == "720"',
    "statute": 'context.statute == "1"',
    "attempt": "context.attempt",
    "caseNumber": 'context.caseNumber == ""',
    "narrativeGiven": "context.narrativeGiven",
    "candidatesMax": "context.candidatesMax > 49",
    "yearAgo": 'context.yearAgo < datetime("2019-01-01")',
    "probeEdit": 'context.probeEdit == Countersign::ProbeEdit::"substantive"',
    "route": 'context.route == Countersign::RequestRoute::"informal"',
    "protectedBasis": 'context.protectedBasis == Countersign::ProtectedBasis::"religion"',
    "investigation": 'context.investigation == Countersign::InvestigationStage::"closed"',
    "chargeStatus": 'context.chargeStatus == Countersign::ChargeStatus::"notSuspected"',
    "offenceSets": "context.offenceSets.isEmpty()",
    "equivalentSets": "!context.equivalentSets.isEmpty()",
    "consentGiven": "context.consentGiven",
    "askedForIdentity": "context.askedForIdentity",
    "requestFormAttested": "context.requestFormAttested",
    "unsolicited": "context.unsolicited",
    "instrument": 'context.instrument == Countersign::InstrumentKind::"subpoena"',
    "emergency": "context.emergency",
    "requesterClass": 'context.requesterClass == Countersign::AgencyClass::"interpol"',
    "galleryOrigin": 'context.galleryOrigin == Countersign::GalleryOrigin::"untargetedScraping"',
    "lowestGroupAccuracy": "context.lowestGroupAccuracy < 1",
    "instrumentStatus": (
        "context has instrumentStatus && "
        'context.instrumentStatus == Countersign::InstrumentStatus::"refused"'
    ),
    "instrumentIssuer": (
        "context has instrumentIssuer && "
        'context.instrumentIssuer == Countersign::InstrumentIssuer::"prosecutor"'
    ),
    "instrumentJurisdiction": (
        "context has instrumentJurisdiction && "
        'context.instrumentJurisdiction == Countersign::Jurisdiction::"US-CA"'
    ),
    "instrumentScope": (
        "context has instrumentScope && "
        'context.instrumentScope == Countersign::InstrumentScope::"other"'
    ),
    "instrumentInForce": "context has instrumentInForce && context.instrumentInForce",
    "emergencyHours": "context has emergencyHours && context.emergencyHours > 48",
    "emergencyBasisGiven": "context has emergencyBasisGiven && context.emergencyBasisGiven",
    "ratificationOverdue": "context has ratificationOverdue && context.ratificationOverdue",
    "beneficiary": (
        'context has beneficiary && context.beneficiary == Countersign::Agency::"CA0191200"'
    ),
}

MAY_BE_ABSENT = {fact for fact, condition in READS.items() if condition.startswith("context has")}


def forbids_when(condition: str) -> str:
    return PERMIT + ";" + FORBID.replace("LAPD-9", "LAPD-8") + f"when {{ {condition} }};"


def projection_of(*facts: str) -> Projection:
    return Projection(facts, vocabulary().cut(facts))


def everything_but(dropped: str) -> Projection:
    return projection_of(*(fact for fact in vocabulary().facts if fact != dropped))


def rules_when(condition: str) -> list[Rule]:
    return read_rules(forbids_when(condition))


def test_every_fact_is_tried_here() -> None:
    assert set(READS) == set(vocabulary().facts)


@pytest.mark.parametrize("fact", READS)
def test_a_rule_is_told_what_it_reads_and_nothing_else(fact: str) -> None:
    assert facts_read(rules_when(READS[fact]), vocabulary().facts) == {fact}
    made = book_where_others_permit(directive(forbids_when(READS[fact])))
    rules = made.slice(LAPD, NOON.date())
    assert rules is not None
    assert rules.projection.facts == (fact,)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("principal.active", set()),
        ("context has beneficiary", {"beneficiary"}),
        ('context["caseNumber"] == ""', {"caseNumber"}),
        (
            "!(if true then context.attempt else context.narrativeGiven)",
            {"attempt", "narrativeGiven"},
        ),
        ("context.warrant", set()),
        ("context == context", None),
        ("[context].contains(context)", None),
        ("{facts: context}.facts.attempt", None),
        ("(if true then context else context).attempt", None),
    ],
)
def test_who_takes_the_facts_as_a_whole_is_told_everything(
    condition: str, expected: set[str] | None
) -> None:
    everything = set(vocabulary().facts)
    read = facts_read(rules_when(condition), vocabulary().facts)
    assert read == (everything if expected is None else expected)


ORIGIN, OPERATOR = 'Countersign::Seat::"origin"', 'Countersign::Seat::"operator"'


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("principal.active", []),
        (f"context.seat == {ORIGIN}", [{"origin"}]),
        (f"{ORIGIN} != context.seat", [{"origin"}]),
        (f"[{ORIGIN}, {OPERATOR}].contains(context.seat)", [{"origin", "operator"}]),
        (
            f"context.seat == {ORIGIN} || context.seat == {OPERATOR}",
            [{"origin"}, {"operator"}],
        ),
        ("context.seat == context.seat", None),
        (f"context.seat in {ORIGIN}", None),
        (f"[{ORIGIN}, context.seat].contains(context.seat)", None),
        (f"[context.seat].contains({ORIGIN})", None),
        (f"[context.seat].containsAny([{ORIGIN}])", None),
        (f"context.seat == {ORIGIN} && [context.seat].contains({ORIGIN})", None),
        ("context has seat", None),
        ("principal.seat", None),
        (f"{{facts: context}}.facts.seat == {ORIGIN}", None),
        ("context == context", None),
    ],
)
def test_seats_are_told_apart_by_written_out_seats_or_each_is_asked(
    condition: str, expected: list[set[str]] | None
) -> None:
    found = seat_lists(rules_when(condition))
    assert (None if found is None else [set(named) for named in found]) == expected


@pytest.mark.promise(3)
@pytest.mark.parametrize("fact", READS)
def test_a_fact_dropped_by_mistake_stops_the_load(fact: str) -> None:
    rules = rules_when(READS[fact])
    check(rules, projection_of(fact), vocabulary())
    with pytest.raises(DirectiveRefused, match=r"LAPD-8.*PROJECTION"):
        check(rules, everything_but(fact), vocabulary())


@pytest.mark.promise(3)
def test_presence_of_a_fact_dropped_by_mistake_stops_the_load_too() -> None:
    # Silently false for the engine, at load and in every decision.
    with pytest.raises(DirectiveRefused, match=r"LAPD-8.*PROJECTION"):
        check(rules_when("context has beneficiary"), everything_but("beneficiary"), vocabulary())


_NO_SCHEMA: Any = None


class CarelessVocabulary(Vocabulary):
    """Cuts one fact more than it was asked to."""

    def cut(self, facts: Collection[str]) -> cedarpy.Schema:
        """The schema without the purpose."""
        return super().cut([fact for fact in facts if fact != "purpose"])


@pytest.mark.promise(3)
def test_a_book_is_not_loaded_with_a_projection_that_is_wrong() -> None:
    fields = dataclasses.fields(Vocabulary)
    careless = CarelessVocabulary(**{f.name: getattr(vocabulary(), f.name) for f in fields})
    reads = directive(forbids_when(READS["purpose"]))
    with pytest.raises(DirectiveRefused, match=r"LAPD-8.*PROJECTION"):
        Book([reads], careless)
    Book([directive(forbids_when(READS["statute"]))], careless)


class BookThatDrops(Book):
    """A book whose projections are wrong, as if no check had noticed."""

    dropped = ""

    def __init__(self, directives: Iterable[Directive], vocabulary: Vocabulary) -> None:
        super().__init__(directives, vocabulary)
        # A book holds its slices: whoever asks it tells them apart by their identity.
        self._made: list[Slice] = []

    def slice(self, party: str, day: date) -> Slice | None:
        """The slice without one of its facts."""
        rules = super().slice(party, day)
        if rules is None or party != LAPD:
            return rules
        left = [fact for fact in rules.projection.facts if fact != self.dropped]
        self._made.append(dataclasses.replace(rules, projection=projection_of(*left)))
        return self._made[-1]


@pytest.mark.promise(3)
@pytest.mark.parametrize("fact", sorted(READS.keys() - MAY_BE_ABSENT))
def test_a_rule_that_reads_a_dropped_fact_cannot_permit(fact: str) -> None:
    everyone = book_where_others_permit(directive(forbids_when(READS[fact])))
    broken = BookThatDrops(everyone.directives.values(), vocabulary())
    evaluator = Evaluator(broken, whole_registry())
    assert evaluator.evaluate(known(), TRAINED, NOON).outcome != REFUSED
    broken.dropped = fact
    decision = evaluator.evaluate(known(), TRAINED, NOON)
    assert decision.outcome == REFUSED
    assert decision.verdicts[0].outcome == CANNOT_TELL
    assert list(decision.verdicts[0].faults) == ["EVALUATION_ERROR"]


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "projection",
    [
        Projection(("seat",), vocabulary().schema),
        Projection(vocabulary().facts, vocabulary().cut(("seat",))),
        Projection(("seat",), vocabulary().cut(("seat", "attempt"))),
        Projection((), vocabulary().cut(("seat",))),
        Projection((), vocabulary().cut(("beneficiary",))),
        Projection(("seat",), _NO_SCHEMA),
    ],
)
def test_facts_that_do_not_match_their_schema_stop_the_start(projection: Projection) -> None:
    handle = entities.build(registry(), vocabulary())
    self_test.run(handle, registry(), vocabulary(), shipped_book().projections)
    with pytest.raises(EngineUntrustworthy):
        self_test.run(handle, registry(), vocabulary(), [projection])


def test_each_seat_has_its_verdict_and_seats_that_are_not_told_apart_one_question() -> None:
    evaluator = CountingEvaluator(shipped_book(), registry())
    decision = evaluator.evaluate(ordinary(), TRAINED, NOON)
    assert [verdict.seat for verdict in decision.verdicts] == [1, 2, 3, 4, 5]
    assert [v.party for v in decision.verdicts] == [LAPD, LAPD, LASD, LASD, "US-CA"]
    assert evaluator.asked == 3, "one for each party"


def test_seats_that_are_told_apart_are_asked_each() -> None:
    rules = PERMIT + f"when {{ context.seat == {ORIGIN} }};"
    evaluator = CountingEvaluator(book_where_others_permit(unguarded(rules)), registry())
    verdicts = evaluator.evaluate_party(ordinary(), TRAINED, NOON, LAPD)
    assert [verdict.permits for verdict in verdicts] == [True, False]
    assert evaluator.asked == 2


def test_an_answer_for_two_seats_is_two_verdicts() -> None:
    evaluator = Evaluator(shipped_book(), registry())
    one, other = evaluator.evaluate_party(ordinary(), TRAINED, NOON, LASD)
    one.verdict.party = "changed"
    assert other.verdict.party == LASD


def test_the_schema_of_no_facts_and_of_all() -> None:
    assert vocabulary().cut(vocabulary().facts) is vocabulary().schema
    assert "type Facts = {  };" in str(vocabulary().cut(()))


def test_the_same_facts_are_cut_once() -> None:
    """The engine is tried with each schema before anything is decided with it."""
    cut = vocabulary().cut(("seat", "attempt"))
    assert vocabulary().cut(["attempt", "seat"]) is cut
    assert vocabulary().cut(("seat",)) is not cut


def _changed(old: str, new: str) -> bytes:
    assert old in vocabulary().text
    return vocabulary().text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("statute: String,", "statute: { text: String },"),
        ("statute: String,", "statute: Set<Set<String>>,"),
        ("context: Facts", "context: { seat: Seat }"),
        ("type Facts", "type Other = { seat: Seat };\n  type Things"),
    ],
)
def test_facts_that_cannot_be_left_out_one_by_one_are_no_vocabulary(old: str, new: str) -> None:
    text = _changed(old, new)
    if "Things" in new:
        text = text.replace(b"context: Facts", b"context: Things")
    with pytest.raises(VocabularyError, match="flat record"):
        Vocabulary.parse(text)


def test_projections_are_made_once() -> None:
    made = shipped_book().projections
    assert len({projection.facts for projection in made}) == len(made)
    told: Sequence[int] = [len(projection.facts) for projection in made]
    assert max(told) < len(vocabulary().facts)
