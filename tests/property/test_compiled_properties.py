"""Compiled rules mean what the engine means by them: for any rule, any question, errors included."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import cedarpy
from cedarpy import pst
from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1.search_pb2 import SearchFacts
from directive import entities
from directive.book import Book
from directive.cedar_values import (
    Asked,
    Entity,
    NotCompiled,
    Uid,
    Unsure,
    Value,
    action,
    known_entities,
    moment,
    value_of,
)
from directive.compiled import CompiledRules
from directive.evaluate import Evaluator
from directive.sieve import Sieve, sifted_of
from shared.registry import Registry
from support.directives import (
    LAPD,
    LASD,
    NOON,
    book_where_others_permit,
    changed_registry,
    ordinary,
    shipped_book,
    unguarded,
    vocabulary,
)
from support.drawn_searches import MOMENTS, OFFICERS, crowded, officer_for, rules, searches
from support.examples import examples

SUBMIT = action("submitSearch")
SPACE = ("Countersign",)


@cache
def world() -> Registry:
    """With lists, tags of every sort, and sets of offences."""
    return changed_registry(
        agencies={LASD: {"agreements": {"LACRIS-MOU": "2026-06-02"}}},
        officers={"of-lasd": {"agency": LASD, "active": False}},
        offence_sets={"robberies": {"title": "Robbery", "owner": "US-CA", "nibrs": ["120"]}},
    )


@cache
def engine() -> cedarpy.Entities:
    return entities.build(world(), vocabulary())


@cache
def known() -> dict[Uid, Entity]:
    own = {SUBMIT: Entity(ancestors=frozenset({action("search")}))}
    return known_entities(entities.records(world(), vocabulary())) | own


NAMES = [
    ("Agency", LAPD),
    ("Agency", LASD),
    ("Agency", "nobody"),
    ("Jurisdiction", "US-CA"),
    ("NamedList", "lapd-fr-users"),
    ("Officer", "lapd-40123"),
    ("Officer", "ghost"),
    ("System", "lacris"),
    ("Gallery", "lacris-booking"),
    ("Seat", "origin"),
    ("Purpose", "missingPerson"),
    ("OffenceSet", "robberies"),
    ("Action", "search"),
    ("Action", "submitSearch"),
]
UIDS = st.sampled_from(NAMES).map(lambda n: pst.EntityUid(pst.EntityType(n[0], SPACE), n[1]))
KINDS = st.sampled_from(sorted({kind for kind, _ in NAMES})).map(lambda k: pst.EntityType(k, SPACE))
TIMES = ["2026-06-01", "2026-06-01T12:00:00Z", "2026-06-01T13:00:00.000+0100", "0001-01-01", "soon"]
TEXT = st.sampled_from(["", "26-0001", "120", "LACRIS-FR", "LACRIS-MOU", "a*b", "é\n"])
LITERALS = st.one_of(
    st.booleans().map(pst.BoolLit),
    st.sampled_from([-1, 0, 1, 20]).map(pst.LongLit),
    TEXT.map(pst.StringLit),
    UIDS.map(pst.EntityLit),
    st.sampled_from(TIMES).map(lambda text: pst.UnaryOp("datetime", pst.StringLit(text))),
)
CONTEXT = pst.Var("context")
FACTS = st.sampled_from([*vocabulary().facts, "warrant"])
VARIABLES = st.sampled_from([pst.Var("principal"), pst.Var("action"), pst.Var("resource")])
ATTRIBUTES = st.sampled_from(
    ["agency", "active", "owner", "system", "class", "commercial", "operator", "none"]
)
LEAVES = st.one_of(LITERALS, VARIABLES, FACTS.map(lambda fact: pst.GetAttr(CONTEXT, fact)))
TWO = st.sampled_from(
    [
        *("eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "and", "or", "in"),
        *("contains", "contains_all", "contains_any", "has_tag", "get_tag", "add"),
    ]
)
PATTERN = st.lists(
    st.one_of(st.just(pst.Wildcard()), st.sampled_from("12a*.é\n").map(pst.Char)), max_size=4
)


def _larger(parts: st.SearchStrategy[pst.Expr]) -> st.SearchStrategy[pst.Expr]:
    several = st.lists(parts, max_size=3).map(tuple)
    return st.one_of(
        st.builds(pst.BinaryOp, TWO, parts, parts),
        st.builds(pst.BinaryOp, TWO, parts, parts),
        st.builds(pst.UnaryOp, st.sampled_from(["not", "is_empty", "neg"]), parts),
        st.builds(pst.GetAttr, parts, ATTRIBUTES),
        st.builds(pst.HasAttr, parts, st.lists(ATTRIBUTES, min_size=1, max_size=3).map(tuple)),
        st.builds(pst.HasAttr, st.just(CONTEXT), FACTS.map(lambda fact: (fact,))),
        st.builds(
            pst.HasAttr,
            st.just(CONTEXT),
            st.tuples(st.sampled_from(["beneficiary", "seat", "now"]), ATTRIBUTES),
        ),
        st.builds(pst.IfThenElse, parts, parts, parts),
        st.builds(pst.Set, several),
        st.builds(pst.Like, parts, PATTERN.map(tuple)),
        st.builds(pst.Is, parts, KINDS, st.one_of(st.none(), parts)),
    )


EXPRESSIONS = st.recursive(LEAVES, _larger, max_leaves=5)
CONDITIONS = st.one_of(
    EXPRESSIONS,
    st.builds(pst.BinaryOp, st.sampled_from(["eq", "not_eq"]), EXPRESSIONS, EXPRESSIONS),
    st.builds(pst.BinaryOp, TWO, EXPRESSIONS, EXPRESSIONS),
    st.builds(pst.Is, VARIABLES, KINDS, st.one_of(st.none(), EXPRESSIONS)),
)


def _mostly_any(other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    chosen = st.tuples(st.integers(0, 11), other)
    return chosen.map(lambda drawn: pst.ScopeAny() if drawn[0] < 10 else drawn[1])


SCOPES = _mostly_any(
    st.one_of(
        UIDS.map(pst.ScopeEq),
        UIDS.map(pst.ScopeIn),
        KINDS.map(pst.ScopeIs),
        st.builds(pst.ScopeIsIn, KINDS, UIDS),
    )
)
_ACTIONS = st.sampled_from(["search", "submitSearch", "other"]).map(
    lambda name: pst.EntityUid(pst.EntityType("Action", SPACE), name)
)
ACTION_SCOPES = _mostly_any(
    st.one_of(
        _ACTIONS.map(pst.ActionEq),
        st.lists(_ACTIONS, max_size=2).map(lambda some: pst.ActionIn(tuple(some))),
    )
)
CLAUSES = st.lists(st.one_of(CONDITIONS.map(pst.When), CONDITIONS.map(pst.Unless)), max_size=3).map(
    tuple
)
RULES = st.builds(
    lambda p, a, r, clauses: pst.Template("one", "permit", p, a, r, clauses, {}),
    *(SCOPES, ACTION_SCOPES, SCOPES, CLAUSES),
)


RULES_A_SEARCH = 32
"""To draw a search costs more than to draw a rule."""


@cache
def asking() -> Evaluator:
    return Evaluator(shipped_book(), world())


def told(facts: SearchFacts, officer: str, at: datetime, left_out: Sequence[str]) -> dict[str, Any]:
    """A question as the engine is asked, some facts left out."""
    question = asking().ask(facts, officer, at)
    kept = [fact for fact in vocabulary().facts if fact not in left_out]
    return question.request(question.seats[0].seat, kept)


def value_in_python(fact: str, value: Any) -> Value:
    if fact in ("now", "yearAgo"):
        read = moment(value)
        assert read is not None
        return read
    return value_of(value)


def in_python(request: dict[str, Any]) -> Asked:
    context = {
        fact: value_in_python(fact, value) for fact, value in json.loads(request["context"]).items()
    }
    principal, resource = (
        Uid(request[name]["type"], request[name]["id"]) for name in ("principal", "resource")
    )
    return Asked(principal, resource, context)


@given(
    rules=st.lists(RULES, min_size=RULES_A_SEARCH, max_size=RULES_A_SEARCH),
    facts=searches(),
    officer=st.sampled_from(["lapd-40123", "of-lasd", "ghost"]),
    at=MOMENTS,
    left_out=st.lists(FACTS, max_size=3),
)
@examples(1)
def test_a_compiled_rule_fires_and_fails_where_the_engine_says_so(
    rules: list[pst.Template], facts: SearchFacts, officer: str, at: datetime, left_out: list[str]
) -> None:
    request = told(facts, officer, at, left_out)
    for rule in rules:
        check_rule(rule, request)


def check_rule(rule: pst.Template, request: dict[str, Any]) -> None:
    try:
        compiled = CompiledRules([rule], SUBMIT, known())
    except NotCompiled:
        return
    policies = cedarpy.PolicySet.from_pst(pst.PolicySet({}, {"one": rule}, ()))
    said = cedarpy.is_authorized(request, policies, engine(), vocabulary().loose)
    if said.decision is cedarpy.Decision.NoDecision:
        return  # a seat or a word that is not in the vocabulary: nothing is compiled for it
    try:
        found = compiled.run(in_python(request))
    except Unsure:
        return
    expected = (said.decision is cedarpy.Decision.Allow, bool(said.diagnostics.errors))
    assert (bool(found.fired), bool(found.failed)) == expected


@given(
    lapd=rules("LAPD-"),
    lasd=rules("LASD-"),
    asked=st.lists(st.tuples(searches(), OFFICERS, st.booleans(), MOMENTS), min_size=8, max_size=8),
)
@examples(0.3)
def test_what_is_sifted_is_decided_as_the_engine_decides(
    lapd: str, lasd: str, asked: list[tuple[SearchFacts, str, bool, datetime]]
) -> None:
    written = (
        unguarded(lapd),
        unguarded(lasd, party=LASD, prefix="LASD-", name="another-directive"),
    )
    directives = tuple(book_where_others_permit(*written).directives.values())
    sieve = Sieve(Book(directives, vocabulary()), crowded())
    plain = Evaluator(Book(directives, vocabulary()), crowded(), keep=False)
    assert_the_same(sieve, plain, ordinary(), "lapd-40123", NOON)
    for facts, officer, own, at in asked:
        assert_the_same(sieve, plain, facts, officer_for(facts, officer, own=own), at)
    assert not sieve.disagreements


_SIEVE = Sieve(shipped_book(), crowded())
_PLAIN = Evaluator(shipped_book(), crowded(), keep=False)


@given(facts=searches(), officer=OFFICERS, own=st.booleans(), at=MOMENTS)
@examples(1)
def test_shipped_directives_are_sifted_as_the_engine_decides(
    facts: SearchFacts, officer: str, own: bool, at: datetime
) -> None:
    who = officer_for(facts, officer, own=own)
    assert_the_same(_SIEVE, _PLAIN, facts, who, at)
    assert not _SIEVE.disagreements


def assert_the_same(
    sieve: Sieve, plain: Evaluator, facts: SearchFacts, officer: str, at: datetime
) -> None:
    expected = sifted_of(plain.evaluate(facts, officer, at))
    assert sieve.sift(sieve.ask(facts, officer, at)) == expected
