"""A question is answered from the part of the registry that it can reach, as from all of it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import cedarpy
import pytest

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome
from directive import entities
from directive.book import Book, Slice
from directive.evaluate import Evaluator
from directive.nearby import Nearby, named_and_read
from directive.question import Question
from directive.rules import read_rules
from registry.findings import RegistryRefused
from registry.folding import Fold
from shared.registry import Registry
from support import registrations as r
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
    changed_registry,
    ordinary,
    registry,
    shipped_book,
    unguarded,
    vocabulary,
)

ALL_OF_IT = changed_registry(
    agencies={BURBANK: {"agreements": {"MOU": "2099-01-01"}}},
    officers={"lasd-1": {"agency": LASD, "active": False}},
)


class WholeEvaluator(Evaluator):
    """Asks with all of the registry in one handle."""

    def __init__(self, book: Book, known: Registry) -> None:
        super().__init__(book, known)
        self._whole = entities.build(known, vocabulary())

    def _engine(
        self,
        question: Question,
        request: dict[str, object],
        policies: cedarpy.PolicySet,
        rules: Slice,
    ) -> cedarpy.AuthzResult:
        return cedarpy.is_authorized(request, policies, self._whole, rules.projection.schema)


CONDITIONS = [
    'Countersign::Agency::"CA0191200".hasTag("MOU")',
    'Countersign::Agency::"CA0191200".getTag("MOU") > context.now',
    'Countersign::Agency::"CA0194200".hasTag("MOU")',
    'Countersign::Agency::"CA0191200" in Countersign::Jurisdiction::"US-CA"',
    'Countersign::System::"facefind".commercial',
    'Countersign::System::"facefind".operator in Countersign::Jurisdiction::"US-CA"',
    'Countersign::Gallery::"facefind-web".system.operator.hasTag("MOU")',
    'Countersign::Gallery::"facefind-web" in Countersign::System::"facefind"',
    'Countersign::NamedList::"lapd-fr-users".owner == principal.agency',
    'Countersign::NamedList::"lapd-fr-users".owner in Countersign::Jurisdiction::"US-CA"',
    'Countersign::Officer::"lasd-1".active',
    'Countersign::Officer::"lapd-40123" in Countersign::NamedList::"lapd-fr-users"',
    'Countersign::Officer::"lasd-1".agency.hasTag("MOU")',
    '(if principal.active then Countersign::Agency::"CA0191200" else principal.agency).hasTag("MOU")',
    'principal in Countersign::NamedList::"lapd-fr-users"',
    "principal.agency == resource.system.operator",
    'resource.owner in Countersign::Jurisdiction::"US-CA"',
    'resource in Countersign::System::"lacris"',
    'resource.system.operator in [Countersign::Agency::"CA0190000"]',
    '[Countersign::Agency::"CA0190000"].contains(resource.owner)',
    '[resource.owner].containsAll([Countersign::Agency::"CA0190000"])',
    'context has beneficiary && context.beneficiary in Countersign::Jurisdiction::"US-CA"',
    'context has beneficiary && context.beneficiary.hasTag("MOU")',
    'principal.agency in Countersign::Jurisdiction::"US-NV"',
]


@pytest.mark.promise(3)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("beneficiary", [LAPD, BURBANK, None])
@pytest.mark.parametrize("head", [PERMIT, FORBID])
def test_what_a_rule_reads_is_there(condition: str, beneficiary: str | None, head: str) -> None:
    book = book_where_others_permit(unguarded(f"{head} when {{ {condition} }};"))
    facts = ordinary(beneficiary_agency=beneficiary)
    part = Evaluator(book, ALL_OF_IT).evaluate(facts, TRAINED, NOON)
    assert part == WholeEvaluator(book, ALL_OF_IT).evaluate(facts, TRAINED, NOON)


@pytest.mark.parametrize(
    ("condition", "read"),
    [
        ('principal in Countersign::NamedList::"a"', set()),
        ('principal.agency == Countersign::Agency::"A"', set()),
        ('[Countersign::Agency::"A"].contains(resource.owner)', set()),
        ('context.purpose == Countersign::Purpose::"missingPerson"', set()),
        ('Countersign::Agency::"A" in Countersign::Jurisdiction::"J"', {("Agency", "A")}),
        ('Countersign::NamedList::"a".owner == Countersign::Agency::"A"', {("NamedList", "a")}),
        ('Countersign::Agency::"A".hasTag("MOU")', {("Agency", "A")}),
        (
            '(if true then Countersign::Agency::"A" else Countersign::Agency::"B").hasTag("MOU")',
            {("Agency", "A"), ("Agency", "B")},
        ),
    ],
)
def test_only_what_is_read_is_wanted(condition: str, read: set[tuple[str, str]]) -> None:
    assert named_and_read(read_rules(f"{PERMIT} when {{ {condition} }};")) == read


def test_a_set_is_as_large_as_what_can_be_reached() -> None:
    """Officer, gallery, system and two agencies, besides the schema's actions."""
    actions = len(cedarpy.Entities.from_json_str("[]", vocabulary().schema))
    few = Nearby(registry(), vocabulary()).of(TRAINED, "lacris-booking", "", frozenset())
    assert len(few) == actions + 5
    many = {f"lapd-{number}": {"agency": LAPD, "active": True} for number in range(500)}
    known = changed_registry(officers=many)
    nearby = Nearby(known, vocabulary())
    assert len(nearby.of(TRAINED, "lacris-booking", LAPD, frozenset())) == len(few)


# Officers who change while searches are decided.

LAPD_LISTED = r.agency(LAPD, r.kept_list("lapd-fr-users"))
OFFICER = """
[officers.lapd-40123]
active = true
lists = ["lapd-fr-users"]
certificates = { LACRIS-FR = 2099-01-01 }
"""


def followed() -> Fold:
    """The demonstration's world, as far as these searches need it, as it would be published."""
    fold = r.admitting(LAPD, LASD)
    lacris = r.system("lacris") + r.gallery("lacris-booking", "lacris")
    r.publish(fold, r.signed(r.document(r.agency(LASD, lacris)), 1))
    r.publish(fold, r.signed(r.document(LAPD_LISTED, OFFICER), 1))
    return fold


def changed(fold: Fold, serial: int, **written: str) -> Registry:
    """The registry after LAPD has published its officer with something else."""
    officers = OFFICER
    for old, new in written.items():
        officers = officers.replace({"active": "true", "lapse": "2099-01-01"}[old], new)
    r.publish(fold, r.signed(r.document(LAPD_LISTED, officers), serial))
    return fold.registry


def said(decision: Decision) -> Mapping[str, Any]:
    return {verdict.party: verdict.outcome for verdict in decision.verdicts}


@pytest.mark.promise(3)
def test_an_officers_revocation_acts_on_the_next_request_and_on_none_before() -> None:
    fold = followed()
    before = Evaluator(shipped_book(), fold.registry)
    permitted = before.evaluate(ordinary(), TRAINED, NOON)
    assert permitted.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
    after = before.over(changed(fold, 2, active="false"))
    refused = after.evaluate(ordinary(), TRAINED, NOON)
    assert said(refused) != said(permitted)
    assert refused == Evaluator(shipped_book(), fold.registry).evaluate(ordinary(), TRAINED, NOON)
    assert refused.policy_set_sha256 != permitted.policy_set_sha256
    assert before.evaluate(ordinary(), TRAINED, NOON) == permitted, "a decision in flight"


@pytest.mark.promise(3)
def test_a_certificate_that_lapses_earlier_is_seen_to_lapse() -> None:
    """What was answered before is answered again only for times that the new days do not part."""
    fold = followed()
    before = Evaluator(shipped_book(), fold.registry)
    permitted = before.evaluate(ordinary(), TRAINED, NOON)
    after = before.over(changed(fold, 2, lapse="2026-06-10"))
    assert said(after.evaluate(ordinary(), TRAINED, NOON)) == said(permitted)
    lapsed = after.evaluate(ordinary(), TRAINED, NOON + timedelta(days=10))
    assert said(lapsed) != said(permitted)


def test_who_left_is_unknown_and_who_came_is_known() -> None:
    fold = followed()
    before = Evaluator(shipped_book(), fold.registry)
    officers = OFFICER.replace("lapd-40123", "lapd-50000")
    r.publish(fold, r.signed(r.document(LAPD_LISTED, officers), 2))
    after = before.over(fold.registry)
    for verdict in after.evaluate(ordinary(), TRAINED, NOON).verdicts:
        assert verdict.faults == ["UNKNOWN_OFFICER"]
    assert said(after.evaluate(ordinary(), "lapd-50000", NOON)) == said(
        before.evaluate(ordinary(), TRAINED, NOON)
    )


def test_another_gallery_is_known_to_the_next_evaluator_too() -> None:
    fold = followed()
    before = Evaluator(shipped_book(), fold.registry)
    more = r.gallery("own", "lacris")
    r.publish(fold, r.signed(r.document(LAPD_LISTED + more, OFFICER), 2))
    decision = before.over(fold.registry).evaluate(ordinary(gallery="own"), TRAINED, NOON)
    assert not any(verdict.faults for verdict in decision.verdicts)


def test_an_evaluator_of_another_kind_is_made_anew() -> None:
    fold = followed()
    counting = CountingEvaluator(shipped_book(), fold.registry)
    counting.evaluate(ordinary(), TRAINED, NOON)
    after = counting.over(changed(fold, 2, active="false"))
    assert isinstance(after, CountingEvaluator)
    assert (counting.asked, after.asked) == (3, 0)


def test_a_refused_publication_leaves_the_evaluator_its_registry() -> None:
    fold = followed()
    evaluator = Evaluator(shipped_book(), fold.registry)
    with pytest.raises(RegistryRefused):
        changed(fold, 1, active="false")
    assert evaluator.over(fold.registry).evaluate(ordinary(), TRAINED, NOON) == evaluator.evaluate(
        ordinary(), TRAINED, NOON
    )
