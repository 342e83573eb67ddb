"""In a replay, searches that a rule can tell apart are never taken for alike; others mostly are."""

from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from countersign.type.v1 import circumstances_pb2 as pb
from countersign.type.v1.search_pb2 import Offence, OffenceSeverity
from directive.book import Book
from directive.circumstances import CIRCUMSTANCES, EMERGENCY, INSTRUMENT
from directive.evaluate import Evaluator
from directive.recorded import RecordedSearch
from directive.replay import Replay
from directive.replay_counts import Outcome
from directive.replay_likeness import Alike
from directive.worlds import OneWorld, World
from shared.registry import Registry
from support.circumstances import emergency, instrument, known, whole_registry
from support.directives import (
    BURBANK,
    FORBID,
    LAPD,
    NOON,
    TRAINED,
    book_where_others_permit,
    changed_registry,
    directive,
)

STRICT = FORBID.replace("LAPD-9", "LAPD-8")
WORD = 'Countersign::{}::"{}"'.format
FELONY = OffenceSeverity.OFFENCE_SEVERITY_FELONY
WITH_BASIS = {"emergency_basis": "a child is missing"}
THEFT = {"offence": Offence(nibrs_code="23A", severity=FELONY)}
MURDER_ABROAD = {"equivalent_statute": "18 Pa.C.S. s. 3701"}
GRANTED = instrument()


TOLD_APART: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "route": (f"== {WORD('RequestRoute', 'informal')}", {}, {"route": 7}),
    "probeEdit": (f"!= {WORD('ProbeEdit', 'none')}", {}, {"probe_edit": 3}),
    "protectedBasis": (f"!= {WORD('ProtectedBasis', 'none')}", {}, {"protected_basis": 2}),
    "investigation": (f"!= {WORD('InvestigationStage', 'open')}", {}, {"investigation": 2}),
    "chargeStatus": (f"!= {WORD('ChargeStatus', 'suspected')}", {}, {"charge_status": 1}),
    "consentGiven": ("== true", {}, {"consent_given": True}),
    "askedForIdentity": ("== true", {}, {"asked_for_identity": True}),
    "requestFormAttested": ("== true", {}, {"request_form_attested": True}),
    "unsolicited": ("== true", {}, {"unsolicited": True}),
    "offenceSets": (f".contains({WORD('OffenceSet', 'robberies')})", THEFT, {}),
    "equivalentSets": (f".contains({WORD('OffenceSet', 'robberies')})", {}, MURDER_ABROAD),
    "instrument": (f"!= {WORD('InstrumentKind', 'none')}", {}, {"instrument": GRANTED}),
    "instrumentStatus": (
        f"== {WORD('InstrumentStatus', 'granted')}",
        {"instrument": instrument(status=pb.INSTRUMENT_STATUS_REQUESTED)},
        {"instrument": GRANTED},
    ),
    "instrumentIssuer": (
        f"== {WORD('InstrumentIssuer', 'court')}",
        {"instrument": instrument(issuer=pb.INSTRUMENT_ISSUER_PROSECUTOR)},
        {"instrument": GRANTED},
    ),
    "instrumentScope": (
        f"== {WORD('InstrumentScope', 'faceSearch')}",
        {"instrument": instrument(scope=pb.INSTRUMENT_SCOPE_OTHER)},
        {"instrument": GRANTED},
    ),
    "instrumentJurisdiction": (
        f"== {WORD('Jurisdiction', 'US-CA')}",
        {"instrument": instrument(jurisdiction="US")},
        {"instrument": GRANTED},
    ),
    "instrumentInForce": (
        "== false",
        {"instrument": GRANTED},
        {"instrument": GRANTED, "days": 31},
    ),
    "emergency": ("== true", {}, {"emergency": emergency(), **WITH_BASIS}),
    "emergencyHours": (
        "> 12",
        {"emergency": emergency(), **WITH_BASIS},
        {"emergency": emergency(), "days": 1, **WITH_BASIS},
    ),
    "emergencyBasisGiven": (
        "== true",
        {"emergency": emergency()},
        {"emergency": emergency(), **WITH_BASIS},
    ),
    "ratificationOverdue": (
        "== true",
        {"emergency": emergency(), **WITH_BASIS},
        {"emergency": emergency(), "days": 3, **WITH_BASIS},
    ),
    "requesterClass": ("", {}, {}),
    "galleryOrigin": ("", {}, {}),
    "lowestGroupAccuracy": ("", {}, {}),
}
"""Fact to what a rule asks of it, a search of which that is not so, and one of which it is."""
OPTIONAL = {*INSTRUMENT[1:], *EMERGENCY[1:]}
REGISTERED = {"requesterClass", "galleryOrigin", "lowestGroupAccuracy"}
"""They follow from agency, gallery and system, which are never taken for one another."""


def searched(
    book: Book, *, days: int = 0, officer: str = TRAINED, world: Registry, **facts: Any
) -> RecordedSearch:
    """A search as the book decided it."""
    outside = {name: facts.pop(name) for name in ("offence", "emergency_basis") if name in facts}
    asked = known(**facts)
    if "offence" in outside:
        asked.offence.CopyFrom(outside["offence"])
    asked.emergency_basis = outside.get("emergency_basis", "")
    at = NOON + timedelta(days=days)
    return RecordedSearch.of(
        days, asked, officer, Evaluator(book, world).evaluate(asked, officer, at)
    )


def test_there_is_a_pair_of_searches_for_each_circumstance() -> None:
    assert TOLD_APART.keys() == CIRCUMSTANCES


@pytest.mark.parametrize("fact", sorted(CIRCUMSTANCES - REGISTERED))
def test_circumstances_that_a_proposal_tells_apart_are_not_taken_for_alike(fact: str) -> None:
    condition, *pair = TOLD_APART[fact]
    given = f"context has {fact} && " if fact in OPTIONAL else ""
    world, book = whole_registry(), book_where_others_permit()
    proposal = directive(
        STRICT + f"when {{ {given}context.{fact} {condition} }};",
        known=world,
        name="proposed",
    )
    one, other = (searched(book, world=world, **facts) for facts in pair)
    for order in ((one, other), (other, one), (one, one, other, other)):
        replay = Replay(OneWorld(World(book, world)), proposal, sample=0.0)
        for search in order:
            replay.add(search)
        found = replay.finish()
        half = len(order) // 2
        assert found.totals()[Outcome.TO_REFUSED] == found.totals()[Outcome.SAME] == half
        assert (found.confirmed, found.sound) == (half, True)


def test_what_no_rule_asks_of_circumstances_does_not_tell_searches_apart() -> None:
    world = whole_registry()
    book = book_where_others_permit(directive(STRICT + "when { context.consentGiven };"))
    alike = _alike(book, world)
    one = searched(book, world=world, instrument=instrument())
    for facts in ({"route": 7}, {"emergency": emergency(), "days": 2}, {"instrument": None}):
        assert alike.key(searched(book, world=world, **facts)) == alike.key(one)
    assert alike.key(searched(book, world=world, consent_given=True)) != alike.key(one)


@cache
def staffed() -> Registry:
    """Officers of whom the registry says the same, and some of whom it says something else."""
    own = {"agency": LAPD, "active": True, "lists": ["lapd-fr-users"]}
    return changed_registry(
        officers={
            "one": {**own, "certificates": {"LACRIS-FR": "2026-07-01"}},
            "same": {**own, "certificates": {"LACRIS-FR": "2026-09-01"}},
            "lapsed": {**own, "certificates": {"LACRIS-FR": "2026-05-01"}},
            "another-course": {**own, "certificates": {"OTHER": "2026-07-01"}},
            "unlisted": {**own, "lists": [], "certificates": {"LACRIS-FR": "2026-07-01"}},
            "inactive": {**own, "active": False, "certificates": {"LACRIS-FR": "2026-07-01"}},
            "elsewhere": {**own, "agency": BURBANK, "certificates": {"LACRIS-FR": "2026-07-01"}},
        }
    )


def _alike(book: Book, world: Registry) -> Alike:
    return Alike([(book, Evaluator(book, world))], world)


CERTIFIED = (
    'unless { principal.hasTag("LACRIS-FR") && principal.getTag("LACRIS-FR") > context.now };'
)


def certified(condition: str = CERTIFIED) -> tuple[Book, Alike]:
    """Where LAPD forbids those without a certificate."""
    own = directive(STRICT + condition, known=staffed())
    book = book_where_others_permit(own)
    return book, _alike(book, staffed())


@pytest.mark.parametrize(
    ("officer", "days", "same"),
    [
        ("same", 0, True),
        ("same", 20, True),
        ("one", 40, False),
        ("lapsed", 0, False),
        ("another-course", 0, False),
        ("unlisted", 0, False),
        ("inactive", 0, False),
        ("elsewhere", 0, False),
        ("nobody", 0, False),
    ],
)
def test_officers_are_alike_of_whom_the_registry_says_the_same(
    officer: str, days: int, *, same: bool
) -> None:
    book, alike = certified()
    one = searched(book, officer="one", world=staffed())
    other = searched(book, officer=officer, days=days, world=staffed())
    assert (alike.key(other) == alike.key(one)) is same
    assert not same or other.content == one.content


@pytest.mark.parametrize(
    "condition",
    [
        f"when {{ principal == {WORD('Officer', 'one')} }};",
        CERTIFIED.replace("context.now", 'datetime("2026-08-01")'),
    ],
)
def test_officers_whom_a_rule_may_tell_apart_by_more_are_not_alike(condition: str) -> None:
    book, alike = certified(condition)
    one, other = (searched(book, officer=who, world=staffed()) for who in ("one", "same"))
    assert alike.key(other) != alike.key(one)


def test_officers_of_whom_no_rule_asks_anything_are_alike() -> None:
    book, alike = certified("when { context.attempt };")
    keys = {
        alike.key(searched(book, officer=who, world=staffed()))
        for who in ("one", "lapsed", "inactive")
    }
    assert len(keys) == 1
    for stranger in ("elsewhere", "nobody"):
        assert alike.key(searched(book, officer=stranger, world=staffed())) not in keys


def test_a_country_that_never_ordered_anything_is_asked_with_its_first_proposal() -> None:
    book, world = book_where_others_permit(), staffed()
    first = directive(
        FORBID.replace("LAPD-9", "US-1") + ";", party="US", prefix="US-", name="us-first"
    )
    replay = Replay(OneWorld(World(book, world)), first, sample=1.0)
    for _ in range(2):
        replay.add(searched(book, world=world))
    found = replay.finish()
    assert found.totals()[Outcome.TO_REFUSED] == found.confirmed == 2
    assert found.by("rule") == {"US-1": {Outcome.TO_REFUSED: 2}}
    assert found.sound
