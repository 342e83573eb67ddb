"""The directives of all parties, ready to be asked.

Each party has its own slice of rules for each stretch of time, and no two parties' rules ever meet in
one set: a merged set would let one agency's permit speak for another. All slices are built when the
book is loaded, so whatever is wrong with one is known before the first search.
"""

import dataclasses
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import cedarpy
from cedarpy import pst

from countersign.type.v1.decision_pb2 import DirectiveVersion
from directive import document, guards, signature
from directive.circumstances import CIRCUMSTANCES
from directive.document import MANIFEST_FILE, Document, manifest_place
from directive.entities import known_names
from directive.findings import DirectiveRefused, Finding
from directive.guards import KnownNames
from directive.projection import (
    Projection,
    Projections,
    SeatLists,
    attributes_read,
    facts_read,
)
from directive.question import CLOSED, in_words
from directive.rules import Rule, walk
from directive.signature import Signers
from directive.vocabulary import Vocabulary
from shared.registry import Registry

LIBRARY: Final = "library"
"""Folder of directives of other worlds, which no service loads."""


class BookError(Exception):
    """The directives are not loaded: not one of them. The message says why, for every one."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class Directive:
    """A directive that has passed every guard."""

    document: Document
    rules: tuple[Rule, ...]
    cut_off: date | None = None
    """First day without effect by what came later: a directive in its place, or its withdrawal."""

    @property
    def ends(self) -> date | None:
        """First day without effect, whatever ends it first; None while nothing does."""
        ends = [self.document.manifest.effective_until, self.cut_off]
        return min((day for day in ends if day is not None), default=None)

    def in_force(self, day: date) -> bool:
        """Whether it has effect on that day."""
        begins = self.document.manifest.effective_from
        return begins <= day and (self.ends is None or day < self.ends)


@dataclass(frozen=True)
class Requirement:
    """The head or one condition of a permitting rule, as a rule of its own."""

    key: str
    rule: Rule
    clause: int
    reads_seat: bool
    """Whether it says for which seat the rule is meant."""

    @property
    def words(self) -> str:
        """What is required, in the directive's words."""
        return self.rule.requirements[self.clause]


@dataclass(frozen=True)
class Slice:
    """One party's rules in force over one stretch of time."""

    party: str
    directives: tuple[Directive, ...]
    rules: Mapping[str, Rule]
    policies: cedarpy.PolicySet
    projection: Projection
    """What the rules are told of a search; the requirements are parts of the rules."""
    seat_lists: SeatLists | None
    circumstances: frozenset[str]
    """The circumstances that the rules read: if one is unknown, the party cannot tell."""
    lacking: Mapping[str, frozenset[str]]
    """For what a rule reads, what is told in words that the version that it was written against lacks."""
    versions: tuple[DirectiveVersion, ...]

    def seat_class(self, seat: str) -> tuple[bool, ...] | str:
        """The same for seats that the rules do not tell apart: the answer for one is that for all."""
        if self.seat_lists is None:
            return seat
        return tuple(seat in named for named in self.seat_lists)

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """What the permitting rules require, part by part."""
        return tuple(
            requirement
            for rule in self.rules.values()
            if rule.permits
            for requirement in _requirements(rule)
        )

    @cached_property
    def requirement_probes(self) -> cedarpy.PolicySet:
        """One permit for each requirement: those that do not fire were not met. It never decides."""
        return cedarpy.PolicySet.from_pst(pst.PolicySet({}, self.requirement_rules, ()))

    @cached_property
    def requirement_rules(self) -> Mapping[str, pst.Template]:
        """The permits of `requirement_probes`."""
        anything = pst.ScopeAny()
        probes = {}
        for requirement in self.requirements:
            template = requirement.rule.template
            if requirement.clause == 0:
                probe = dataclasses.replace(template, clauses=())
            else:
                clause = template.clauses[requirement.clause - 1]
                probe = pst.Template("", "permit", anything, anything, anything, (clause,), {})
            probes[requirement.key] = dataclasses.replace(probe, id=requirement.key, annotations={})
        return probes


@dataclass(frozen=True)
class _Calendar:
    """A party's slices: `slices[i]` holds from `starts[i]` until the next start."""

    starts: tuple[date, ...]
    slices: tuple[Slice | None, ...]


class Book:
    """Every party's directives. Immutable."""

    def __init__(
        self, directives: Iterable[Directive], vocabulary: Vocabulary, *, project: bool = True
    ) -> None:
        """Without `project`, every rule is told every fact. Raises DirectiveRefused."""
        self.vocabulary = vocabulary
        projections = Projections(vocabulary, project=project)
        ordered = sorted(directives, key=_name)
        _check_names(ordered)
        self.directives = {directive.document.name: directive for directive in ordered}
        by_party: dict[str, list[Directive]] = {}
        for directive in self.directives.values():
            by_party.setdefault(directive.document.manifest.party, []).append(directive)
        _check_prefixes(self.directives.values())
        self._calendars = {
            party: _calendar(party, own, projections, vocabulary) for party, own in by_party.items()
        }
        self.projections = projections.made

    @cached_property
    def _starts(self) -> tuple[date, ...]:
        return tuple(sorted({day for one in self._calendars.values() for day in one.starts}))

    def period(self, day: date) -> int:
        """The same for days on which the same rules of all parties are in force."""
        return bisect_right(self._starts, day)

    def has_ordered(self, party: str, day: date) -> bool:
        """Whether a directive of the party has come into force by that day, in force still or not."""
        calendar = self._calendars.get(party)
        return calendar is not None and calendar.starts[0] <= day

    def slice(self, party: str, day: date) -> Slice | None:
        """The party's rules in force on that day; None when none are."""
        calendar = self._calendars.get(party)
        if calendar is None:
            return None
        position = bisect_right(calendar.starts, day)
        return calendar.slices[position - 1] if position else None


def directive_folders(folder: Path) -> list[Path]:
    """Where each directive lies, sorted; raises OSError.

    The library is no directive: it has a registry of its own, and is tried by itself. Were a directive
    given its name, it would be read, and refused for it.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not (path.name == LIBRARY and not (path / MANIFEST_FILE).exists())
    )


def load_book(
    folder: Path, vocabulary: Vocabulary, registry: Registry, signers: Signers | None = None
) -> Book:
    """Loads every directive below the folder, or none: raises BookError.

    With `signers`, each must be signed by its party; without, nobody asks who wrote them. A directive is
    never skipped: if a department's prohibition cannot be read, loading the others would answer without it.
    """
    known = known_names(registry)
    loaded, reasons = [], []
    try:
        folders = directive_folders(folder)
    except OSError as error:
        raise BookError([f"{folder}: {error.strerror}"]) from error
    for path in folders:
        try:
            loaded.append(load_directive(path, vocabulary, known, signers))
        except DirectiveRefused as refused:
            reasons += [str(finding) for finding in refused.findings]
    if reasons:
        raise BookError(reasons)
    if not loaded:
        raise BookError([f"{folder}: holds no directive"])
    try:
        return Book(succeeding(loaded), vocabulary)
    except DirectiveRefused as refused:
        raise BookError([str(finding) for finding in refused.findings]) from refused


def load_directive(
    folder: Path, vocabulary: Vocabulary, known: KnownNames, signers: Signers | None = None
) -> Directive:
    """One directive through every guard; raises DirectiveRefused."""
    read = document.read(folder)
    if signers is not None:
        signature.check(folder, read, vocabulary, signers)
    return Directive(read, guards.check(read, vocabulary, known))


def succeeding(directives: Iterable[Directive]) -> list[Directive]:
    """The same directives, each ending when another takes its place; raises DirectiveRefused.

    Two of one party in force at the same time would both bind; whoever writes the later one says which it is
    meant to end.
    """
    by_name = {one.document.name: one for one in directives}
    findings = []
    for one in list(by_name.values()):
        manifest = one.document.manifest
        if manifest.replaces is None:
            continue
        refusal = ""
        ended = by_name.get(manifest.replaces)
        if ended is None:
            refusal = f"there is no directive {manifest.replaces!r} to take the place of"
        elif ended.document.manifest.party != manifest.party:
            refusal = f"{manifest.replaces} is a directive of {ended.document.manifest.party}"
        elif ended.document.manifest.effective_from > manifest.effective_from:
            begins = ended.document.manifest.effective_from
            refusal = f"{manifest.replaces} begins later, on {begins}: withdraw that one instead"
        if ended is None or refusal:
            place = manifest_place(one.document.manifest_text, "replaces")
            file = f"{manifest.name}/{MANIFEST_FILE}"
            findings.append(Finding("REPLACES", file, "", refusal, place))
            continue
        cut_off = manifest.effective_from
        if ended.cut_off is None or cut_off < ended.cut_off:
            by_name[manifest.replaces] = dataclasses.replace(ended, cut_off=cut_off)
    if findings:
        raise DirectiveRefused(findings)
    return list(by_name.values())


def _name(directive: Directive) -> str:
    return directive.document.name


def _check_names(ordered: Sequence[Directive]) -> None:
    """Of two with one name, one would be lost, and its prohibitions with it."""
    findings = [
        Finding("NAME_DUPLICATE", f"{one.document.name}/{MANIFEST_FILE}", "", "the name is taken")
        for one, other in pairwise(ordered)
        if one.document.name == other.document.name
    ]
    if findings:
        raise DirectiveRefused(findings)


def _check_prefixes(directives: Iterable[Directive]) -> None:
    owners: dict[str, str] = {}
    findings = []
    for directive in directives:
        manifest = directive.document.manifest
        owner = owners.setdefault(manifest.rule_prefix, manifest.party)
        if owner != manifest.party:
            findings.append(
                Finding(
                    "ID_PREFIX",
                    f"{manifest.name}/{MANIFEST_FILE}",
                    "",
                    f"the prefix {manifest.rule_prefix!r} belongs to party {owner}",
                    manifest_place(directive.document.manifest_text, "rule_prefix"),
                )
            )
    if findings:
        raise DirectiveRefused(findings)


def _calendar(
    party: str, directives: Sequence[Directive], projections: Projections, vocabulary: Vocabulary
) -> _Calendar:
    starts = sorted(
        {directive.document.manifest.effective_from for directive in directives}
        | {directive.ends for directive in directives if directive.ends is not None}
    )
    slices = [
        _slice(
            party,
            [d for d in directives if d.in_force(start)],
            projections,
            vocabulary,
        )
        for start in starts
    ]
    return _Calendar(tuple(starts), tuple(slices))


def _slice(
    party: str, directives: Sequence[Directive], projections: Projections, vocabulary: Vocabulary
) -> Slice | None:
    if not directives:
        return None
    rules: dict[str, Rule] = {}
    for directive in directives:
        for rule in directive.rules:
            if rule.id in rules:
                raise DirectiveRefused([_overlap(rule, directive, directives)])
            rules[rule.id] = rule
    policies = pst.PolicySet({}, {rule.id: rule.template for rule in rules.values()}, ())
    return Slice(
        party=party,
        directives=tuple(directives),
        rules=rules,
        policies=cedarpy.PolicySet.from_pst(policies),
        projection=projections.of(tuple(rules.values())),
        seat_lists=projections.seat_lists(tuple(rules.values())),
        circumstances=facts_read(rules.values(), vocabulary.facts) & CIRCUMSTANCES,
        lacking=_lacking(directives, vocabulary),
        versions=tuple(
            DirectiveVersion(name=d.document.name, sha256=d.document.sha256) for d in directives
        ),
    )


def _overlap(rule: Rule, directive: Directive, directives: Sequence[Directive]) -> Finding:
    other = next(d for d in directives if any(one.id == rule.id for one in d.rules))
    manifest = other.document.manifest
    until = f" until {other.ends}" if other.ends else ""
    return Finding(
        "VERSIONS_OVERLAP",
        directive.document.rules_file,
        rule.id,
        f"is also a rule of {other.document.name}, in force at the same time (from "
        f"{manifest.effective_from}{until}): say that this one replaces it, or end that one when this one "
        "begins",
    )


def _lacking(
    directives: Sequence[Directive], vocabulary: Vocabulary
) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for directive in directives:
        version = directive.document.manifest.vocabulary
        read = facts_read(directive.rules, vocabulary.facts) | attributes_read(directive.rules)
        for fact in read & CLOSED.keys():
            told = in_words(vocabulary, fact)
            lacking = {told[value] for value in vocabulary.lacking(version, CLOSED[fact])}
            if lacking:
                found[fact] = found.get(fact, frozenset()) | lacking
    return found


def _requirements(rule: Rule) -> Iterator[Requirement]:
    for number in sorted(rule.requirements):
        clause = rule.template.clauses[number - 1] if number else None
        yield Requirement(f"{rule.id}#{number}", rule, number, _reads_seat(clause))


def _reads_seat(clause: pst.Clause | None) -> bool:
    return any(isinstance(node, pst.GetAttr) and node.attr == "seat" for node in walk(clause))
