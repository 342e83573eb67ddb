"""Everything that a directive must pass before it is published, in one go and without a server."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from directive import cases, gates
from directive.book import Directive, load_directive
from directive.cases import CaseResult, Progress, silent
from directive.difference import VerdictChange
from directive.entities import known_names
from directive.findings import DirectiveRefused, Finding
from directive.gates import Mutant
from directive.signature import Signers
from directive.vocabulary import Vocabulary
from shared.registry import Registry

Bar = Callable[[str], AbstractContextManager[Progress]]
"""Shows how far a step has come."""


@dataclass(frozen=True)
class Review:
    """What was found. Nothing was changed."""

    name: str
    directive: Directive | None
    """None when a guard refuses it."""
    cases: tuple[CaseResult, ...]
    """Empty when they could not be judged."""
    mutants: int
    """How many changes of the rules were tried on the cases."""
    survivors: tuple[Mutant, ...]
    findings: tuple[Finding, ...]
    changes: tuple[VerdictChange, ...] = ()
    """What its party decides otherwise with it, if somebody asked beside what. Nothing is wrong with that."""

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return not self.findings


def with_findings(review: Review, findings: Sequence[Finding]) -> Review:
    """The same review, with these findings."""
    return replace(review, findings=tuple(findings))


def _no_bar(_: str) -> AbstractContextManager[Progress]:
    return nullcontext(silent)


def lint(
    folder: Path, vocabulary: Vocabulary, registry: Registry, signers: Signers | None = None
) -> Review:
    """The files and the rules, without their cases' answers; that cases can be read is part of it."""
    found: list[Finding] = []
    directive = None
    try:
        directive = load_directive(folder, vocabulary, known_names(registry), signers)
        found += gates.joined(directive)
        found += gates.mistimed(directive)
    except DirectiveRefused as refused:
        found += refused.findings
    try:
        cases.load(folder)
    except DirectiveRefused as refused:
        found += refused.findings
    return Review(folder.name, directive, (), 0, (), tuple(found))


def review(
    folder: Path,
    vocabulary: Vocabulary,
    registry: Registry,
    bar: Bar = _no_bar,
    signers: Signers | None = None,
) -> Review:
    """The files, the rules, the cases and the gates."""
    linted = lint(folder, vocabulary, registry, signers)
    directive = linted.directive
    if directive is None or linted.findings:
        return linted
    try:
        file = cases.load(folder)
        with bar(f"{folder.name}: cases") as progress:
            report = cases.run(directive, file, vocabulary, registry, progress)
    except DirectiveRefused as refused:
        return Review(folder.name, directive, (), 0, (), refused.findings)
    if report.findings:
        return Review(folder.name, directive, report.results, 0, (), report.findings)
    with bar(f"{folder.name}: changes") as progress:
        passed = gates.run(directive, file, report, vocabulary, registry, progress)
    return Review(
        folder.name, directive, report.results, passed.mutants, passed.survivors, passed.findings
    )
