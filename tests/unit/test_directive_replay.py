"""A replay says what a proposal would have refused, finds a record that contradicts itself, never guesses."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from countersign.type.v1.decision_pb2 import DecisionOutcome, VerdictOutcome
from countersign.type.v1.search_pb2 import Offence, OffenceSeverity
from directive.book import Book, Directive
from directive.evaluate import Evaluator
from directive.policy_set import policy_set_sha256
from directive.proposed import AsOf, Reading
from directive.recorded import NotRederivable, RecordedSearch, recorded
from directive.replay import Replay
from directive.replay_counts import Outcome, Replayed
from directive.worlds import OneWorld, World
from shared.registry import Registry
from support.circumstances import known
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
    registry,
    shipped_book,
    vocabulary,
)
from support.recorded_history import kept_and_opened, pending_entry, searches_of_years
from support.sieves import SieveThatNoticesNoAttempt, SieveThatTakesAllForAlike

ATTEMPTS = FORBID.replace("LAPD-9", "LAPD-8") + "when { context.attempt };"


def proposal(rules: str = ATTEMPTS, name: str = "proposed", **how: Any) -> Directive:
    return directive(rules, name=name, **how)


def searched(
    number: int = 0, *, book: Book | None = None, attempt: bool = False, **facts: Any
) -> RecordedSearch:
    """A search as it was decided by the directives of before."""
    asked = ordinary(**facts)
    asked.offence.attempt = attempt
    at = NOON + timedelta(days=number)
    decision = Evaluator(book or plain(), registry()).evaluate(asked, TRAINED, at)
    return RecordedSearch.of(number, asked, TRAINED, decision)


def read_again(search: RecordedSearch) -> RecordedSearch:
    """The same with what was changed of its decision."""
    return RecordedSearch.of(search.index, search.facts, search.officer, search.decision)


def plain() -> Book:
    """LAPD permits felonies and forbids crowds; everybody else permits everything."""
    rules = (
        '@requirement_1("no infraction") '
        + PERMIT
        + 'when { context.severity != Countersign::OffenceSeverity::"infraction" };'
        + FORBID.replace("LAPD-9", "LAPD-7")
        + 'when { context.purpose == Countersign::Purpose::"crowdAnalysis" };'
    )
    return book_where_others_permit(directive(rules, name="in-force"))


def replayed(
    proposed: Directive,
    *searches: RecordedSearch | NotRederivable,
    book: Book | None = None,
    world: Registry | None = None,
    **how: Any,
) -> Replayed:
    replay = Replay(OneWorld(World(book or plain(), world or registry())), proposed, **how)
    for one in searches:
        replay.add(one)
    return replay.finish()


def counts(found: Replayed) -> dict[str, int]:
    return {str(outcome): n for outcome, n in found.totals().items() if n}


def test_what_would_be_refused_is_counted_by_agency_month_and_rule() -> None:
    found = replayed(
        proposal(),
        searched(0),
        searched(1, attempt=True),
        searched(40, attempt=True),
        searched(41, attempt=True, purpose=8),
    )
    assert found.totals()[Outcome.TO_REFUSED] == 2
    assert found.totals()[Outcome.OTHER_REASONS] == 1
    assert found.totals()[Outcome.SAME] == 1
    assert found.by("month") == {
        "2026-06": {Outcome.SAME: 1, Outcome.TO_REFUSED: 1},
        "2026-07": {Outcome.TO_REFUSED: 1, Outcome.OTHER_REASONS: 1},
    }
    assert set(found.by("agency")) == {LAPD}
    assert found.by("rule") == {"LAPD-8": {Outcome.TO_REFUSED: 2, Outcome.OTHER_REASONS: 1}}
    assert [(one.index, one.month) for one in found.examples] == [
        (1, "2026-06"),
        (40, "2026-07"),
        (41, "2026-07"),
    ]
    assert (found.confirmed, found.sound) == (3, True)


def test_a_proposal_takes_the_place_of_what_it_overlaps_and_stands_beside_the_rest() -> None:
    own = [
        directive(PERMIT + ";", name="one"),
        directive(FORBID.replace("LAPD-9", "LAPD-7") + "when { context.attempt };", name="two"),
    ]
    book = book_where_others_permit(*own)
    attempt = searched(attempt=True, book=book)
    milder = FORBID.replace("LAPD-9", "LAPD-7") + "when { context.candidatesMax > 50 };"
    for name, rules in (("other", milder), ("two", milder.replace("LAPD-7", "LAPD-6"))):
        found = replayed(proposal(rules, name=name), attempt, book=book)
        assert (found.replaces, found.beside) == (("two",), ("one",))
        assert counts(found) == {Outcome.TO_PERMITTED: 1}
        assert found.by("rule") == {"LAPD-7": {Outcome.TO_PERMITTED: 1}}
    found = replayed(proposal(milder.replace("LAPD-7", "LAPD-6")), attempt, book=book)
    assert (found.replaces, found.beside) == ((), ("one", "two"))
    assert counts(found) == {Outcome.SAME: 1}


def test_a_proposal_takes_the_place_of_what_it_says_it_replaces() -> None:
    strict = FORBID.replace("LAPD-9", "LAPD-7") + "when { context.attempt };"
    own = [directive(PERMIT + ";", name="one"), directive(strict, name="two")]
    book = book_where_others_permit(*own)
    milder = PERMIT.replace("LAPD-9", "LAPD-6") + ";"
    attempt = searched(attempt=True, book=book)
    found = replayed(proposal(milder, replaces='"two"'), attempt, book=book)
    assert (found.replaces, found.beside) == (("two",), ("one",))
    assert counts(found) == {Outcome.TO_PERMITTED: 1}
    found = replayed(proposal(milder, replaces='"lasd-permits"'), attempt, book=book)
    assert (found.replaces, found.beside) == ((), ("one", "two"))


@pytest.mark.parametrize("until", [{}, {"effective_until": "2026-07-15"}])
def test_with_its_dates_a_proposal_leaves_in_force_what_it_replaces_until_it_begins(
    until: dict[str, str],
) -> None:
    was = '@requirement_1("done") ' + PERMIT + "when { !context.attempt };"
    own = [
        directive(was, name="one", effective_until="2026-06-11"),
        directive(was, name="two", effective_from="2026-06-11", effective_until="2026-07-15"),
        directive(was, name="three", effective_from="2026-07-15"),
    ]
    book = book_where_others_permit(*own)
    later = proposal(PERMIT + ";", effective_from="2026-07-01", **until)
    searches = [searched(day, attempt=True, book=book) for day in (0, 15, 35, 50)]
    found = replayed(later, *searches, book=book, reading=Reading(AsOf.LEGAL))
    assert found.replaces == ("one", "three", "two")
    permitted = [35] if until else [35, 50]
    assert [one.index for one in found.examples] == permitted
    assert counts(found) == {
        Outcome.SAME: 4 - len(permitted),
        Outcome.TO_PERMITTED: len(permitted),
    }


def test_a_requirement_that_would_be_missing_is_named() -> None:
    stricter = '@requirement_1("a case number") ' + PERMIT + 'when { context.caseNumber != "" };'
    without = searched(case_number="", book=book_where_others_permit())
    found = replayed(
        proposal(stricter, name="lapd-permits"), without, book=book_where_others_permit()
    )
    assert counts(found) == {Outcome.TO_REFUSED: 1}
    assert found.by("rule") == {"LAPD-9#1": {Outcome.TO_REFUSED: 1}}


def test_the_search_of_an_agency_that_is_not_asked_stays_as_it_is() -> None:
    book = shipped_book()
    others = searched(origin_agency=BURBANK, beneficiary_agency=BURBANK, book=book)
    assert counts(replayed(proposal(FORBID + ";"), others, book=book)) == {Outcome.SAME: 1}


def test_dates_are_kept_when_it_is_said_so() -> None:
    later = proposal(FORBID.replace("9", "8") + ";", effective_from="2026-07-01")
    searches = searched(0), searched(40)
    assert counts(replayed(later, *searches)) == {Outcome.TO_REFUSED: 2}
    kept = replayed(later, *searches, reading=Reading(AsOf.LEGAL))
    assert counts(kept) == {Outcome.SAME: 1, Outcome.TO_REFUSED: 1}
    assert [one.index for one in kept.examples] == [40]


ROUTED = (
    FORBID.replace("9", "8") + 'when { context.route == Countersign::RequestRoute::"informal" };'
)


def test_a_fact_that_was_not_recorded_is_not_guessed() -> None:
    said = known()
    stated = searched(circumstances=said.circumstances)
    found = replayed(proposal(ROUTED), searched(0), stated)
    assert counts(found) == {Outcome.CANNOT_SAY: 1, Outcome.SAME: 1}
    assert found.unsaid() == {"not recorded: route": 1}


def test_a_fact_for_whose_lack_a_search_was_refused_is_known_to_have_lacked() -> None:
    book = book_where_others_permit(proposal(ROUTED + PERMIT + ";", name="in-force"))
    asked = searched(book=book)
    other = proposal(ROUTED + PERMIT + ";", name="in-force", title='"another title"')
    assert counts(replayed(other, asked, book=book)) == {Outcome.SAME: 1}


def test_what_was_destroyed_is_not_guessed() -> None:
    gone = NotRederivable(3, "2026-06", LAPD, "its openings were destroyed")
    found = replayed(proposal(), gone, searched(1))
    assert counts(found) == {Outcome.CANNOT_SAY: 1, Outcome.SAME: 1}
    assert found.unsaid() == {"its openings were destroyed": 1}
    assert found.sound


def test_what_was_decided_by_a_text_that_is_not_at_hand_is_not_guessed() -> None:
    older = directive(
        '@requirement_1("done") ' + PERMIT + "when { !context.attempt };", name="in-force"
    )
    found = replayed(proposal(), searched(book=book_where_others_permit(older), attempt=True))
    assert found.unsaid() == {"decided by another text of a directive (in-force)": 1}
    nobody: dict[str, object] = {"officers": {}, "oversight": {}}
    registered = Registry.model_validate(registry().model_dump() | nobody)
    found = replayed(proposal(), searched(), world=registered)
    assert found.unsaid() == {"decided with another vocabulary or registry": 1}
    assert found.sound


def test_a_record_that_contradicts_itself_is_found_out() -> None:
    false = searched(purpose=8)
    false.decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED
    for verdict in false.decision.verdicts:
        verdict.outcome = VerdictOutcome.VERDICT_OUTCOME_PERMIT
    found = replayed(proposal(), searched(1), read_again(false))
    assert (found.contradictions, found.contradictions_listed) == (1, [0])
    assert not found.sound
    assert counts(found) == {Outcome.SAME: 1, Outcome.CANNOT_SAY: 1}


@pytest.mark.parametrize(("nanos", "contradictions"), [(1, 1), (5_000_000, 0)])
def test_a_time_that_no_decision_is_made_at_contradicts_itself(
    nanos: int, contradictions: int
) -> None:
    changed = searched()
    changed.decision.evaluated_at.nanos += nanos
    assert replayed(proposal(), read_again(changed)).contradictions == contradictions


def by_engine_of_old(search: RecordedSearch) -> RecordedSearch:
    search.decision.engine = "cedarpy 4.0.0"
    search.decision.policy_set_sha256 = policy_set_sha256(
        vocabulary(), registry(), "cedarpy 4.0.0", search.decision.verdicts
    )
    return read_again(search)


def test_a_search_with_a_field_that_nobody_knows_is_not_taken_for_one_without() -> None:
    false = searched(1)
    false.facts.offence.MergeFromString(b"\xf8\x3f\x01")
    assert replayed(proposal(), read_again(false)).contradictions == 1
    assert replayed(proposal(), searched(0), read_again(false)).contradictions == 1


def test_what_another_engine_decided_alike_counts_and_is_told() -> None:
    found = replayed(proposal(), by_engine_of_old(searched(attempt=True)))
    assert counts(found) == {Outcome.TO_REFUSED: 1}
    assert found.other_engine == {"cedarpy 4.0.0": 1}
    assert found.sound
    false = by_engine_of_old(searched())
    false.decision.verdicts[0].rules[0].id = "LAPD-1"
    assert replayed(proposal(), read_again(false)).contradictions == 1


def test_compiled_rules_that_are_wrong_are_found_out_by_the_sample() -> None:
    found = replayed(
        proposal(), searched(attempt=True), sample=1.0, sieve=SieveThatNoticesNoAttempt
    )
    assert (found.sampled, found.disagreements, found.sound) == (0, 1, False)


def test_a_false_verdict_of_another_party_is_found_out_by_the_sample() -> None:
    strict = FORBID.replace("LAPD-9", "LASD-8") + "when { context.attempt };"
    permits = PERMIT.replace("LAPD-9", "LASD-9") + ";"
    book = book_where_others_permit(
        directive(strict + permits, party=LASD, prefix="LASD-", name="of-another")
    )
    false = searched(1, book=book)
    false.facts.offence.attempt = True
    history = searched(0, book=book), read_again(false)
    milder = proposal(PERMIT + ";", name="lapd-permits")
    assert replayed(milder, *history, book=book).contradictions == 1
    for sample, disagreements in ((0.0, 0), (1.0, 1)):
        how: Any = {"book": book, "sample": sample, "sieve": SieveThatTakesAllForAlike}
        found = replayed(milder, *history, **how)
        assert (found.contradictions, found.disagreements) == (0, disagreements)


def test_all_are_counted_and_some_are_listed() -> None:
    found = replayed(proposal(), *[searched(n, attempt=True) for n in range(4)], examples_max=2)
    assert found.totals()[Outcome.TO_REFUSED] == 4
    assert len(found.examples) == 2


def history(count: int) -> Iterable[RecordedSearch]:
    decides = Evaluator(shipped_book(), registry())
    for index, drawn in enumerate(searches_of_years(count, seed=7)):
        entry, openings = kept_and_opened(pending_entry(drawn, decides, registry()))
        search = recorded(index, entry, openings, [])
        assert isinstance(search, RecordedSearch)
        yield search


def test_a_history_against_the_directives_of_then_has_no_contradiction_and_no_change() -> None:
    (own,) = [one for name, one in shipped_book().directives.items() if name == "lapd-2020-11-13"]
    found = replayed(
        own, *history(600), book=shipped_book(), reading=Reading(AsOf.LEGAL), sample=0.2
    )
    assert counts(found) == {Outcome.SAME: 600}
    assert found.sampled > 60
    assert found.sound


def test_the_engine_confirms_each_change_of_a_history() -> None:
    stricter = directive(
        FORBID.replace("LAPD-9", "LAPD-77")
        + 'when { context.severity != Countersign::OffenceSeverity::"violentFelony" };',
        name="felonies-only",
    )
    found = replayed(stricter, *history(600), book=shipped_book(), sample=0.2)
    changed = sum(n for o, n in found.totals().items() if o not in (Outcome.SAME,))
    assert found.totals()[Outcome.TO_REFUSED] > 10
    assert found.confirmed == changed == sum(found.by("rule")["LAPD-77"].values())
    assert found.sound


WORD = 'Countersign::{}::"{}"'.format
TOLD_APART = {
    f"context.purpose == {WORD('Purpose', 'missingPerson')}": {"purpose": 5},
    f"context.suspicion == {WORD('SuspicionLevel', 'none')}": {"suspicion": 1},
    f"context.provenance == {WORD('ProbeProvenance', 'sketch')}": {"provenance": 8},
    f"context.captureMode == {WORD('CaptureMode', 'drone')}": {"capture_mode": 6},
    f"context.severity == {WORD('OffenceSeverity', 'felony')}": {
        "offence": Offence(nibrs_code="120", severity=OffenceSeverity.OFFENCE_SEVERITY_FELONY)
    },
    "context.attempt": {"attempt": True},
    "context.narrativeGiven": {"narrative": "a witness saw him"},
    "context.candidatesMax > 20": {"candidates_max": 50},
    'context.nibrsCode == "09A"': {"nibrs": "09A"},
    'context.nibrsCode like "0*"': {"nibrs": "09B"},
    'context.statute != ""': {"statute": "Cal. Penal Code s. 211"},
    'context.caseNumber == ""': {"case_number": ""},
    'context.caseNumber like "27*"': {"case_number": "27-1"},
    'context.now > datetime("2026-06-15")': {"day": 40},
    'context.yearAgo > datetime("2025-06-15")': {"day": 40},
    f"context has beneficiary && context.beneficiary == {WORD('Agency', BURBANK)}": {
        "beneficiary_agency": BURBANK
    },
    f"principal == {WORD('Officer', 'lapd-50999')}": {"officer": "lapd-50999"},
    f"context.route == {WORD('RequestRoute', 'informal')}": {"route": 7},
}


def permitted(
    *,
    attempt: bool = False,
    nibrs: str = "120",
    statute: str = "",
    day: int = 0,
    officer: str = TRAINED,
    route: int = 1,
    **facts: Any,
) -> RecordedSearch:
    """A search that everybody permits."""
    said = known(route=route)
    asked = ordinary(**{"circumstances": said.circumstances, **facts})
    asked.offence.attempt = attempt
    asked.offence.nibrs_code, asked.offence.statute = nibrs, statute
    decides = Evaluator(book_where_others_permit(), registry())
    decision = decides.evaluate(asked, officer, NOON + timedelta(days=day))
    return RecordedSearch.of(day, asked, officer, decision)


@pytest.mark.parametrize(("condition", "changed"), TOLD_APART.items())
def test_searches_that_a_proposal_tells_apart_are_not_taken_for_alike(
    condition: str, changed: dict[str, Any]
) -> None:
    strict = proposal(FORBID.replace("9", "8") + f"when {{ {condition} }};")
    one, other = permitted(), permitted(**changed)
    for searches in ((one, other), (other, one), (one, one, other, other)):
        found = replayed(strict, *searches, book=book_where_others_permit(), sample=0.0)
        refused = len(searches) // 2
        assert counts(found) == {Outcome.TO_REFUSED: refused, Outcome.SAME: refused}
        assert found.sound
