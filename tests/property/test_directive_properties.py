"""Whatever is asked: any forbid refuses, doubt refuses, and the decision is the conjunction."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1 import circumstances_pb2, search_pb2
from countersign.type.v1.circumstances_pb2 import Instrument, InstrumentKind
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from countersign.type.v1.search_pb2 import Offence, OffenceSeverity, SearchFacts
from directive.evaluate import Evaluator
from shared.registry import Registry
from support.circumstances import circumstances
from support.directives import (
    BURBANK,
    FACEFIND,
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    book_where_others_permit,
    changed_registry,
    directive,
    ordinary,
    registry,
    shipped_book,
)
from support.examples import examples

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
PREFIXES = {
    LAPD: "LAPD-",
    LASD: "LASD-",
    BURBANK: "BURBANK-",
    FACEFIND: "FACEFIND-",
    "US-CA": "CA-",
}
AGENCIES = [LAPD, LASD, BURBANK, FACEFIND]
GALLERIES = {"lacris": ("lacris-booking", LASD), "facefind": ("facefind-web", FACEFIND)}


@cache
def crowded() -> Registry:
    """The demonstration's registry with an officer in every agency."""
    return changed_registry(
        officers={f"of-{ori.lower()}": {"agency": ori, "active": True} for ori in AGENCIES}
    )


@cache
def world(forbidding: frozenset[str]) -> Evaluator:
    """Everybody permits everything, but for those who forbid everything besides."""
    made = [
        directive(
            FORBID.replace("LAPD-", PREFIXES[p]) + ";",
            party=p,
            prefix=PREFIXES[p],
            name=f"forbids-{p.lower()}",
        )
        for p in sorted(forbidding)
    ]
    return Evaluator(book_where_others_permit(*made), crowded())


@cache
def curious() -> Evaluator:
    """Everybody permits everything, and asks for circumstances that change nothing."""
    reads = "context.route != context.route || context.instrument != context.instrument"
    made = [
        directive(
            (PERMIT + ";" + FORBID.replace("9", "8") + f"when {{ {reads} }};").replace(
                "LAPD-", prefix
            ),
            party=party,
            prefix=prefix,
            name=f"curious-{party.lower()}",
        )
        for party, prefix in PREFIXES.items()
    ]
    return Evaluator(book_where_others_permit(*made), crowded())


@cache
def shipped() -> Evaluator:
    return Evaluator(shipped_book(), registry())


def _values(enum: Any) -> st.SearchStrategy[int]:
    return st.sampled_from([number for number in enum.values() if number != 0])


@st.composite
def known_searches(draw: st.DrawFn) -> SearchFacts:
    """Searches in which every name and every value is known."""
    system = draw(st.sampled_from(sorted(GALLERIES)))
    return ordinary(
        origin_agency=draw(st.sampled_from(AGENCIES)),
        beneficiary_agency=draw(st.sampled_from(AGENCIES)),
        system=system,
        gallery=GALLERIES[system][0],
        purpose=draw(_values(search_pb2.Purpose)),
        suspicion=draw(_values(search_pb2.SuspicionLevel)),
        provenance=draw(_values(search_pb2.ProbeProvenance)),
        capture_mode=draw(_values(search_pb2.CaptureMode)),
        offence=Offence(
            nibrs_code=draw(st.from_regex(r"([0-9]{2}[0-9A-Z])?", fullmatch=True)),
            statute=draw(st.text(max_size=20)),
            attempt=draw(st.booleans()),
            severity=OffenceSeverity.ValueType(draw(_values(OffenceSeverity))),
        ),
        case_number=draw(st.text(max_size=20)),
        narrative=draw(st.text(max_size=20)),
        candidates_max=draw(st.integers(0, 50)),
        circumstances=circumstances(
            route=draw(_values(circumstances_pb2.RequestRoute)),
            instrument=Instrument(
                kind=InstrumentKind.ValueType(draw(_values(circumstances_pb2.InstrumentKind)))
            ),
        ),
    )


def officer_of(facts: SearchFacts) -> str:
    return f"of-{facts.origin_agency.lower()}"


def is_conjunction(decision: Decision) -> bool:
    every = bool(decision.verdicts) and all(
        v.outcome == VerdictOutcome.VERDICT_OUTCOME_PERMIT for v in decision.verdicts
    )
    return (decision.outcome == PERMITTED) == every


@pytest.mark.promise(3)
@given(facts=known_searches(), forbidding=st.frozensets(st.sampled_from(sorted(PREFIXES))))
@examples(1)
def test_any_forbid_refuses_whatever_the_rest(
    facts: SearchFacts, forbidding: frozenset[str]
) -> None:
    decision = world(forbidding).evaluate(facts, officer_of(facts), NOON)
    owner = GALLERIES[facts.system][1]
    asked = {facts.origin_agency, facts.beneficiary_agency, owner, "US-CA"}
    assert {v.party for v in decision.verdicts} == asked
    assert (decision.outcome == PERMITTED) == (not asked & forbidding)
    for verdict in decision.verdicts:
        forbids = verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_FORBID
        assert forbids == (verdict.party in forbidding), "each party speaks for itself"
    assert is_conjunction(decision)


def _setter(field: str) -> Callable[[SearchFacts, Any], None]:
    return lambda facts, value: setattr(facts, field, value)


UNKNOWN = st.sampled_from(["", "XX0000000", "nobody", "US-CA", "\u0430", "\\", '"', "a" * 200])
MUTATIONS: dict[str, tuple[st.SearchStrategy[Any], Callable[[SearchFacts, Any], None]]] = {
    "origin": (UNKNOWN, lambda f, v: setattr(f, "origin_agency", v)),
    "beneficiary": (UNKNOWN, lambda f, v: setattr(f, "beneficiary_agency", v)),
    "no beneficiary": (st.none(), lambda f, _: f.ClearField("beneficiary_agency")),
    "system": (UNKNOWN, lambda f, v: setattr(f, "system", v)),
    "gallery": (UNKNOWN, lambda f, v: setattr(f, "gallery", v)),
    "no route": (st.none(), lambda f, _: f.circumstances.ClearField("route")),
    "no instrument": (st.none(), lambda f, _: f.circumstances.ClearField("instrument")),
    "no circumstances": (st.none(), lambda f, _: f.ClearField("circumstances")),
    "no offence": (st.none(), lambda f, _: f.ClearField("offence")),
    **{
        field: (st.sampled_from([0, -1, 15, 99, 2**31 - 1]), _setter(field))
        for field in ("purpose", "suspicion", "provenance", "capture_mode")
    },
    "severity": (
        st.sampled_from([0, -1, 99]),
        lambda f, v: setattr(f.offence, "severity", v),
    ),
}


@pytest.mark.promise(3)
@given(facts=known_searches(), data=st.data())
@examples(2)
def test_nothing_unknown_or_missing_is_ever_permitted(
    facts: SearchFacts, data: st.DataObject
) -> None:
    evaluator = curious()
    officer = officer_of(facts)
    assert evaluator.evaluate(facts, officer, NOON).outcome == PERMITTED
    names = data.draw(st.sets(st.sampled_from([*MUTATIONS, "officer"]), min_size=1, max_size=3))
    for name in sorted(names):
        if name == "officer":
            officer = data.draw(UNKNOWN)
            continue
        values, change = MUTATIONS[name]
        change(facts, data.draw(values))
    decision = evaluator.evaluate(facts, officer, NOON)
    assert decision.outcome != PERMITTED
    assert any(v.faults for v in decision.verdicts)
    assert is_conjunction(decision)


@pytest.mark.promise(3)
@given(facts=known_searches(), officer=st.sampled_from(sorted(registry().officers)))
@examples(1)
def test_the_shipped_directives_decide_by_conjunction_and_say_why_they_refuse(
    facts: SearchFacts, officer: str
) -> None:
    decision = shipped().evaluate(facts, officer, NOON)
    assert is_conjunction(decision)
    for verdict in decision.verdicts:
        if verdict.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT:
            assert verdict.rules or verdict.unmet or verdict.faults
    if decision.outcome == PERMITTED:
        assert facts.system == "lacris"
        assert facts.case_number
        assert facts.beneficiary_agency in (facts.origin_agency, BURBANK)
