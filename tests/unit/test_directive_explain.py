"""A decision of the past is made again bit for bit, or it is said exactly what differs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from directive.book import Book
from directive.evaluate import ENGINE, Evaluator
from directive.explain import Differs, Explanation, explain
from directive.policy_set import policy_set_sha256
from directive.recorded import RecordedSearch
from directive.worlds import World
from support.directives import (
    FORBID,
    LAPD,
    NOON,
    TRAINED,
    book_where_others_permit,
    changed_registry,
    directive,
    ordinary,
    permits_everything,
    registry,
    shipped_book,
    vocabulary,
)

Change = Callable[[Decision], object]


def on_record(
    change: Change = lambda _: None, book: Book | None = None, **facts: Any
) -> RecordedSearch:
    """A search that was decided by the shipped directives, or by others, and changed on record."""
    asked = ordinary(**facts)
    decision = Evaluator(book or shipped_book(), registry()).evaluate(asked, TRAINED, NOON)
    change(decision)
    return replace(RecordedSearch.of(7, asked, TRAINED, decision), at=NOON)


def shipped() -> World:
    return World(shipped_book(), registry())


def differing(explanation: Explanation) -> list[str]:
    return [str(one.what) for one in explanation.differences]


@pytest.mark.parametrize(
    "facts", [{}, {"purpose": 7}, {"beneficiary_agency": None}, {"system": "x"}]
)
def test_a_decision_is_made_again_bit_for_bit(facts: dict[str, Any]) -> None:
    search = on_record(**facts)
    explanation = explain(search, shipped())
    assert explanation.explained
    assert not explanation.contradicts
    assert explanation.again == search.decision


def test_a_text_that_is_not_at_hand_is_named() -> None:
    old = directive(FORBID + ";", name="lapd-of-old")
    search = on_record(book=book_where_others_permit(old))
    explanation = explain(search, World(book_where_others_permit(), registry()))
    missing = explanation.differences[0]
    assert (missing.what, missing.about) == (Differs.DIRECTIVE_MISSING, "lapd-of-old")
    assert missing.recorded == old.document.sha256.hex()
    assert {"OUTCOME", "VERDICT"} <= set(differing(explanation))
    assert not explanation.contradicts


def test_a_text_that_was_changed_under_its_name_is_named() -> None:
    search = on_record(book=book_where_others_permit(directive(FORBID + ";")))
    other = directive(FORBID + "when { context.attempt };")
    explanation = explain(search, World(book_where_others_permit(other), registry()))
    assert differing(explanation)[0] == "DIRECTIVE_TEXT"
    assert explanation.differences[0].now == other.document.sha256.hex()


def test_a_text_that_was_not_applied_then_is_named() -> None:
    known = permits_everything(LAPD, "LAPD-")
    later = directive(FORBID.replace("LAPD-9", "LAPD-8") + ";", name="another")
    search = on_record(book=book_where_others_permit(known))
    explanation = explain(search, World(book_where_others_permit(known, later), registry()))
    one = explanation.differences[0]
    assert (one.what, one.about) == (Differs.DIRECTIVE_NOT_IN_FORCE, "another")
    assert (one.recorded, one.now) == ("not applied", "applied")


def test_another_registry_is_named() -> None:
    other = changed_registry(officers={TRAINED: {"active": False}})
    explanation = explain(on_record(), World(shipped_book(), other))
    assert differing(explanation)[0] == "VOCABULARY_OR_REGISTRY"
    assert not explanation.contradicts


def engine_of_old(decision: Decision) -> None:
    """As the decision would be on record had another engine made it."""
    decision.engine = "cedarpy 4.0.0"
    decision.policy_set_sha256 = policy_set_sha256(
        vocabulary(), registry(), decision.engine, decision.verdicts
    )


def test_another_engine_is_named_and_nothing_else() -> None:
    explanation = explain(on_record(engine_of_old), shipped())
    assert differing(explanation) == ["ENGINE"]
    assert (explanation.differences[0].recorded, explanation.differences[0].now) == (
        *("cedarpy 4.0.0",),
        ENGINE,
    )


def permitted_though_refused(decision: Decision) -> None:
    decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED
    decision.verdicts[0].outcome = VerdictOutcome.VERDICT_OUTCOME_PERMIT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (permitted_though_refused, ["OUTCOME", "VERDICT"]),
        (lambda d: d.verdicts[0].rules[0].ClearField("citation"), ["VERDICT"]),
        (lambda d: d.verdicts.pop(), ["VERDICT"]),
        (lambda d: d.obligations.add(kind="notice"), ["OBLIGATIONS"]),
        (lambda d: setattr(d.evaluated_at, "nanos", 5), ["TIME"]),
        (lambda d: d.MergeFromString(b"\xa2\x06\x01x"), ["BYTES"]),
    ],
    ids=["outcome", "citation", "verdict", "duty", "time", "unknown field"],
)
def test_a_record_that_cannot_be_is_found_out(change: Change, said: list[str]) -> None:
    explanation = explain(on_record(change, purpose=7), shipped())
    assert differing(explanation) == said
    assert explanation.contradicts
    assert all(str(one).startswith(one.what) for one in explanation.differences)
