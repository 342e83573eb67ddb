"""What changes from one text of a directive to another: its words, and what it decides.

What it decides is compared over the cases of both, under the rules of each alone, and without their dates:
when each is in force is compared by itself. What a directive changes beside others of its party that stay in
force is compared likewise, under the rules of all together: one permit of any of them is enough.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import cedarpy
from cedarpy import pst

from countersign.type.v1.decision_pb2 import VerdictOutcome
from directive import cases
from directive.book import Directive, succeeding
from directive.cases import OUTCOMES, CaseFile, CaseResult
from directive.rules import Rule
from directive.vocabulary import Vocabulary
from shared.registry import Registry

COMPARED = (
    "party",
    "title",
    "source",
    "source_sha256",
    "caution",
    "author",
    "vocabulary",
    "effective_from",
    "effective_until",
)
"""Of the manifest."""


@dataclass(frozen=True)
class Change:
    """One thing that is said otherwise; empty where it was not said."""

    what: str
    old: str
    new: str


@dataclass(frozen=True)
class RuleChange:
    """A rule that is in both, changed."""

    id: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class VerdictChange:
    """A case that comes out otherwise."""

    case: str
    file: str
    """Whose case it is."""
    old: str
    new: str

    @property
    def widens(self) -> bool:
        """Whether it becomes permitted."""
        return self.new.startswith("permit") and not self.old.startswith("permit")


@dataclass(frozen=True)
class Difference:
    """From the old directive to the new."""

    manifest: tuple[Change, ...]
    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[RuleChange, ...]
    verdicts: tuple[VerdictChange, ...]
    cases_asked: int


def compare(
    old: tuple[Directive, CaseFile],
    new: tuple[Directive, CaseFile],
    vocabulary: Vocabulary,
    registry: Registry,
) -> Difference:
    """Compares two directives that passed every guard; raises DocumentError for cases that ask nothing."""
    before = {rule.id: rule for rule in old[0].rules}
    after = {rule.id: rule for rule in new[0].rules}
    both = [
        RuleChange(name, changes)
        for name in before
        if name in after and (changes := _changes(_said(before[name]), _said(after[name])))
    ]
    verdicts, asked = [], 0
    for owner, file in (old, new):
        results = [
            cases.run(_timeless(directive), file, vocabulary, registry).results
            for directive in (old[0], new[0])
        ]
        for one, other in zip(*results, strict=True):
            asked += 1
            said, says = _outcome(one), _outcome(other)
            if said != says:
                label, name = one.case.label, owner.document.name
                verdicts.append(VerdictChange(label, name, said, says))
    manifests = [
        {name: str(getattr(d.document.manifest, name) or "") for name in COMPARED}
        for d in (old[0], new[0])
    ]
    # A case that both folders have, with the same answers, is told once.
    told = list({(v.case, v.old, v.new): v for v in verdicts}.values())
    return Difference(
        manifest=_changes(*manifests),
        added=tuple(rule for name, rule in after.items() if name not in before),
        removed=tuple(rule for name, rule in before.items() if name not in after),
        changed=tuple(both),
        verdicts=tuple(told),
        cases_asked=asked,
    )


def changed_beside(
    new: tuple[Directive, CaseFile],
    others: Sequence[tuple[Directive, CaseFile]],
    vocabulary: Vocabulary,
    registry: Registry,
) -> tuple[VerdictChange, ...]:
    """The cases that a party decides otherwise from the day on which one more directive of its has effect.

    None where the party has none in force on that day. Other reasons for the same verdict are left out.
    Raises DirectiveRefused where they do not go together.
    """
    directive, day = new[0], new[0].document.manifest.effective_from
    manifest = directive.document.manifest
    own = [
        (one, file)
        for one, file in others
        if one.document.manifest.party == manifest.party and one.document.name != manifest.name
    ]
    before = _in_force([one for one, _ in own], day)
    after = _in_force([*(one for one, _ in own), directive], day)
    if not before or not after:
        return ()
    files = [new, *((one, file) for one, file in own if one.in_force(day))]
    found = []
    for owner, file in files:
        results = [
            cases.run(first, file, vocabulary, registry, beside=rest).results
            for first, *rest in (before, after)
        ]
        for one, other in zip(*results, strict=True):
            if _verdict(one) != _verdict(other):
                label, name = one.case.label, owner.document.name
                found.append(VerdictChange(label, name, _outcome(one), _outcome(other)))
    # What becomes permitted is what counsel is asked about.
    return tuple(sorted(found, key=lambda one: not one.widens))


def _in_force(directives: Sequence[Directive], day: date) -> list[Directive]:
    """Those that have effect on a day, as if they had it always."""
    return [_timeless(one) for one in succeeding(directives) if one.in_force(day)]


def _timeless(directive: Directive) -> Directive:
    always = {"effective_from": date.min, "effective_until": None}
    manifest = directive.document.manifest.model_copy(update=always)
    document = replace(directive.document, manifest=manifest)
    return replace(directive, document=document, cut_off=None)


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change, ...]:
    return tuple(
        Change(what, old.get(what, ""), new.get(what, ""))
        for what in dict.fromkeys([*old, *new])
        if old.get(what, "") != new.get(what, "")
    )


def _said(rule: Rule) -> dict[str, str]:
    """A rule in its parts, each as Cedar writes it, so that spaces and comments do not count."""
    return dict(_parts(rule))


def _parts(rule: Rule) -> Iterator[tuple[str, str]]:
    template = rule.template
    yield "effect", template.effect
    yield "title", rule.title
    yield "citation", rule.citation
    for number, words in sorted(rule.requirements.items()):
        yield f"requirement {number}", words
    for kind, parameters in rule.obligations:
        yield f"duty {kind}", parameters or "(without parameters)"
    yield "head", _as_text(replace(template, clauses=(), annotations={}))
    for number, clause in enumerate(template.clauses, 1):
        yield f"condition {number}", condition_text(clause)


def condition_text(clause: pst.Clause) -> str:
    """A condition as Cedar writes it, on one line."""
    anything = pst.ScopeAny()
    whole = pst.Template("", "permit", anything, anything, anything, (clause,), {})
    return _as_text(whole).partition("resource) ")[2]


def _as_text(template: pst.Template) -> str:
    named = {"": replace(template, id="")}
    rendered = str(cedarpy.PolicySet.from_pst(pst.PolicySet({}, named, ())))
    return " ".join(rendered.rstrip().removesuffix(";").split())


def _verdict(result: CaseResult) -> VerdictOutcome.ValueType | None:
    return result.held.verdict.outcome if result.held is not None else None


def _outcome(result: CaseResult) -> str:
    if result.held is None:
        return "is not asked"
    verdict = result.held.verdict
    outcome = next(name for name, value in OUTCOMES.items() if value == verdict.outcome)
    parts = {
        "by": [rule.id for rule in verdict.rules],
        "unmet": [f"{part.rule_id}#{part.clause}" for part in verdict.unmet],
        "duties": [duty.kind for duty in result.held.obligations],
        "faults": list(verdict.faults),
        "not known:": list(verdict.unknown_facts),
    }
    return "; ".join([outcome, *(f"{what} {', '.join(v)}" for what, v in parts.items() if v)])
