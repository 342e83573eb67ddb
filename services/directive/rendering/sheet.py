"""What is on a directive's page, without how it looks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from directive import places
from directive.book import Directive
from directive.cases import Case, CaseFile
from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE
from directive.places import NOWHERE, RulePlaces
from directive.rules import Rule


@dataclass(frozen=True)
class Fact:
    """A line of the head: what, and its value."""

    what: str
    value: str


@dataclass(frozen=True)
class RuleOnPage:
    """A rule with what a lawyer compares it with."""

    id: str
    effect: str
    title: str
    citation: str
    source_sentence: str
    """The sentence of the source, word for word; empty when the directive does not give it."""
    requirements: tuple[Fact, ...]
    duties: tuple[Fact, ...]
    text: str
    """The rule as it is applied, without its annotations."""


@dataclass(frozen=True)
class CaseOnPage:
    """A case and its answer."""

    name: str
    answer: str


@dataclass(frozen=True)
class Sheet:
    """The page."""

    name: str
    title: str
    caution: str
    effective_from: str
    facts: tuple[Fact, ...]
    rules: tuple[RuleOnPage, ...]
    cases: tuple[CaseOnPage, ...]
    digests: tuple[Fact, ...]
    """SHA-256 of each file, so that the page names the exact bytes that are signed."""


def sheet(directive: Directive, cases: CaseFile, cases_bytes: bytes) -> Sheet:
    """The page of a directive that passed every guard."""
    document = directive.document
    manifest = document.manifest
    found = places.rules(document.rules_text)
    where = found if len(found) == len(directive.rules) else [NOWHERE] * len(directive.rules)
    files = {
        MANIFEST_FILE: document.manifest_text.encode(),
        RULES_FILE: document.rules_text.encode(),
        CASES_FILE: cases_bytes,
    }
    until = f" until {manifest.effective_until}" if manifest.effective_until else ", without an end"
    facts = {
        "Directive": manifest.name,
        "Party": manifest.party,
        "Legal effect": f"from {manifest.effective_from}{until}",
        "Source": manifest.source,
        "SHA-256 of the source on file": manifest.source_sha256 or "none on file",
        "Written down by": manifest.author,
        "Vocabulary": manifest.vocabulary,
    }
    return Sheet(
        name=manifest.name,
        title=manifest.title,
        caution=manifest.caution or "",
        effective_from=manifest.effective_from.isoformat(),
        facts=tuple(Fact(what, value) for what, value in facts.items()),
        rules=tuple(
            _rule(rule, document.rules_text, parts)
            for rule, parts in zip(directive.rules, where, strict=True)
        ),
        cases=tuple(CaseOnPage(case.label, ", ".join(_answer(case))) for case in cases.cases),
        digests=tuple(
            Fact(file, hashlib.sha256(content).hexdigest()) for file, content in files.items()
        ),
    )


def _rule(rule: Rule, text: str, parts: RulePlaces) -> RuleOnPage:
    written = text[parts.head[0].start : parts.tokens[-1].end] if parts.head else ""
    return RuleOnPage(
        id=rule.id,
        effect="permits" if rule.permits else "forbids",
        title=rule.title,
        citation=rule.citation,
        source_sentence=rule.source_sentence,
        requirements=tuple(
            Fact(f"condition {number}" if number else "head", words)
            for number, words in sorted(rule.requirements.items())
        ),
        duties=tuple(Fact(kind, parameters) for kind, parameters in rule.obligations),
        text=written,
    )


def _answer(case: Case) -> Iterator[str]:
    yield case.expect
    if case.rules:
        yield f"by {' and '.join(case.rules)}"
    if case.unmet:
        yield f"missing {' and '.join(case.unmet)}"
    if case.faults:
        yield f"because {' and '.join(case.faults)}"
