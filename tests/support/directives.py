"""A small world for tests of directives: the shipped one, and directives written on the spot."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cedarpy

from countersign.type.v1.search_pb2 import (
    CaptureMode,
    Offence,
    OffenceSeverity,
    ProbeProvenance,
    Purpose,
    SearchFacts,
    SuspicionLevel,
)
from directive import document, guards
from directive.book import Book, Directive, Slice, load_book
from directive.entities import known_names
from directive.evaluate import Evaluator
from directive.findings import DirectiveRefused
from directive.question import Question
from directive.rules import read_rules
from directive.vocabulary import Vocabulary
from shared.registry import Registry

DIRECTIVES = Path(__file__).parents[2] / "directives"
SHIPPED = sorted(path.parent.name for path in DIRECTIVES.glob("*/directive.toml"))
"""Those of the demonstration. The library beside them has tests of its own."""

LAPD, LASD, BURBANK, FACEFIND = "CA0194200", "CA0190000", "CA0191200", "ZZ0000001"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
TRAINED = "lapd-40123"

HEAD = '@id("LAPD-9") @title("a title") @citation("a citation")\n'
FORBID = HEAD + 'forbid (principal, action in Countersign::Action::"search", resource)\n'
PERMIT = HEAD + 'permit (principal, action in Countersign::Action::"search", resource)\n'


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.load(DIRECTIVES)


@cache
def registry() -> Registry:
    return Registry.load(DIRECTIVES / "demo-registry.toml")


@cache
def shipped_book() -> Book:
    return load_book(DIRECTIVES, vocabulary(), registry())


def changed_registry(**sections: Mapping[str, Mapping[str, Any]]) -> Registry:
    """The demonstration's registry with some entries added or changed."""
    content = registry().model_dump()
    for section, entries in sections.items():
        for name, entry in entries.items():
            content[section][name] = {**content[section].get(name, {}), **entry}
    return Registry.model_validate(content)


def ordinary(**changes: Any) -> SearchFacts:
    """A detective's own case on LACRIS, which everybody permits. `beneficiary_agency=None` leaves it out."""
    facts: dict[str, Any] = {
        "search_id": "00000000-0000-4000-8000-000000000001",
        "origin_agency": LAPD,
        "beneficiary_agency": LAPD,
        "system": "lacris",
        "gallery": "lacris-booking",
        "purpose": Purpose.PURPOSE_CRIMINAL_INVESTIGATION,
        "suspicion": SuspicionLevel.SUSPICION_LEVEL_REASONABLE_SUSPICION,
        "offence": Offence(
            nibrs_code="120", severity=OffenceSeverity.OFFENCE_SEVERITY_VIOLENT_FELONY
        ),
        "provenance": ProbeProvenance.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
        "capture_mode": CaptureMode.CAPTURE_MODE_STORED_VIDEO_FRAME,
        "case_number": "26-0001",
    }
    facts.update(changes)
    return SearchFacts(**{name: value for name, value in facts.items() if value is not None})


def manifest(
    party: str = LAPD, prefix: str = "LAPD-", name: str = "a-directive", **more: str
) -> str:
    lines = {
        "name": f'"{name}"',
        "party": f'"{party}"',
        "title": '"a title"',
        "source": '"a source"',
        "author": '"an author"',
        "vocabulary": '"2"',
        "rule_prefix": f'"{prefix}"',
        "effective_from": "2020-01-01",
        **more,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def directive(rules: str, *, known: Registry | None = None, **how: str) -> Directive:
    """A directive through every guard."""
    parsed = document.parse("a-directive", manifest(**how).encode(), rules.encode())
    return Directive(parsed, guards.check(parsed, vocabulary(), known_names(known or registry())))


def findings(rules: str, **how: str) -> list[str]:
    """Which guards refuse the rules."""
    try:
        directive(rules, known=None, **how)
    except DirectiveRefused as refused:
        return [finding.guard for finding in refused.findings]
    return []


def unguarded(rules: str, **how: str) -> Directive:
    """A directive whose rules no guard has seen: what the evaluation must withstand by itself."""
    parsed = document.parse("a-directive", manifest(**how).encode(), rules.encode())
    return Directive(parsed, tuple(read_rules(rules)))


@cache
def permits_everything(party: str, prefix: str) -> Directive:
    """A party that permits whatever it is asked."""
    rules = PERMIT.replace("LAPD-9", f"{prefix}1") + ";"
    return directive(rules, party=party, prefix=prefix, name=f"{prefix.lower()}permits")


def book(*directives: Directive) -> Book:
    return Book(directives, vocabulary())


def book_where_others_permit(*directives: Directive) -> Book:
    """The directives given; LASD, Burbank, the service and California permit everything."""
    others = {
        LASD: "LASD-",
        BURBANK: "BURBANK-",
        FACEFIND: "FACEFIND-",
        LAPD: "LAPD-",
        "US-CA": "CA-",
    }
    taken = {given.document.manifest.party for given in directives}
    rest = [permits_everything(p, prefix) for p, prefix in others.items() if p not in taken]
    return Book([*directives, *rest], vocabulary())


def day(text: str) -> date:
    return date.fromisoformat(text)


class CountingEvaluator(Evaluator):
    """Counts the questions that reach the engine."""

    asked = 0

    def _engine(
        self,
        question: Question,
        request: dict[str, object],
        policies: cedarpy.PolicySet,
        rules: Slice,
    ) -> cedarpy.AuthzResult:
        self.asked += 1
        return super()._engine(question, request, policies, rules)
