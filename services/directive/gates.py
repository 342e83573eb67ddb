"""Whether a directive's cases would notice if the directive said something else.

Three gates: every rule is at work in some case; every requirement of a permit is the only one missing
in some case; and whoever left out a rule or a condition, widened a head or turned a condition round
would make some case fail. What passes them has been tried word by word by its author.

They are asked when every case holds: one that does not would hide what it shows. A changed rule is tried
by the engine itself, all of them in one question for each case: each stands alone and as a permit, so
that the engine names those that fire.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from countersign.type.v1.decision_pb2 import Verdict
from directive import entities, places
from directive.book import Directive
from directive.cases import OUTCOMES, CaseFile, CaseResult, CasesReport, Progress, silent
from directive.findings import Finding
from directive.places import NOWHERE, RulePlaces
from directive.question import Asking
from directive.rules import Rule
from directive.vocabulary import Vocabulary
from shared.obligations import term_us
from shared.registry import Registry

_ANYTHING: Final = pst.ScopeAny()
_ALWAYS: Final = pst.When(pst.BoolLit(True))
_ERRED: Final = re.compile(r"policy `([^`]+)`")


@dataclass(frozen=True)
class Mutant:
    """A rule with one change that some case must notice."""

    rule: Rule
    clause: int | None
    """Which condition is changed; 0 is the head, None the whole rule."""
    change: str
    """What was done, as a condition: "condition 2 were left out"."""
    template: pst.Template | None
    """The changed rule; None when it is left out."""


@dataclass(frozen=True)
class GatesReport:
    """What the gates found."""

    findings: tuple[Finding, ...]
    mutants: int
    """How many changes were tried."""
    survivors: tuple[Mutant, ...]
    """Changes that no case notices."""


def mutants_of(rule: Rule) -> Iterator[Mutant]:
    """Every change that the cases must notice."""
    template = rule.template
    yield Mutant(rule, None, "this rule were left out", None)
    if rule.has_conditional_head:
        widened = dataclasses.replace(template, principal=_ANYTHING, resource=_ANYTHING)
        yield Mutant(rule, 0, "its head named nobody and no gallery", widened)
    for number, clause in enumerate(template.clauses, 1):
        kept, rest = template.clauses[: number - 1], template.clauses[number:]
        without = dataclasses.replace(template, clauses=(*kept, _ALWAYS, *rest))
        yield Mutant(rule, number, f"condition {number} were left out", without)
        if not rule.permits:
            turned = pst.Unless if isinstance(clause, pst.When) else pst.When
            opposite = dataclasses.replace(template, clauses=(*kept, turned(clause.expr), *rest))
            yield Mutant(rule, number, f"condition {number} were turned round", opposite)


def run(
    directive: Directive,
    cases: CaseFile,
    report: CasesReport,
    vocabulary: Vocabulary,
    registry: Registry,
    progress: Progress = silent,
) -> GatesReport:
    """Puts a directive, of which the cases were judged with this registry, through the gates."""
    document = directive.document
    found = places.rules(document.rules_text)
    where = found if len(found) == len(directive.rules) else [NOWHERE] * len(directive.rules)
    showing = [result for result in report.results if result.shows is not None]
    idle = {rule.id for rule in directive.rules} - _determining(showing)
    alone = _missing_alone(showing)
    untried = {
        (rule.id, number)
        for rule in directive.rules
        for number in rule.requirements
        if (rule.id, number) not in alone
    }
    mutants = [mutant for rule in directive.rules for mutant in mutants_of(rule)]
    trial = _Trial(directive.rules, mutants, vocabulary, cases.with_own_registry(registry))
    alive = dict(enumerate(mutants))
    for done, result in enumerate(showing, 1):
        for number in trial.noticed(result, alive):
            del alive[number]
        progress(done, len(showing))
    findings = [
        *_idle_rules(document.rules_file, directive.rules, where, idle),
        *_untried(document.rules_file, directive.rules, where, untried, idle),
        *_surviving(document.rules_file, alive.values(), where, idle, untried),
    ]
    return GatesReport(tuple(findings), len(mutants), tuple(alive.values()))


def joined(directive: Directive) -> Iterator[Finding]:
    """Conditions of permits that ask for several things: no case can show one of them missing alone.

    Asked when a directive is written and handed in, not of what is on record.
    """
    document = directive.document
    found = places.rules(document.rules_text)
    where = found if len(found) == len(directive.rules) else [NOWHERE] * len(directive.rules)
    for rule, parts in zip(directive.rules, where, strict=True):
        for number, clause in enumerate(rule.template.clauses, 1):
            # `unless` one or the other asks that neither is so.
            sign, operation = ("&&", "and") if isinstance(clause, pst.When) else ("||", "or")
            if rule.permits and len(list(_asked_for(clause.expr, operation))) > 1:
                word = "when" if isinstance(clause, pst.When) else "unless"
                message = (
                    f"condition {number} asks for several things with {sign}: write each in a `{word}` "
                    "of its own, with its own @requirement, so that a refusal can say which was missing"
                )
                place = parts.clause(number)
                yield Finding("REQUIREMENTS_JOINED", document.rules_file, rule.id, message, place)


def mistimed(directive: Directive) -> Iterator[Finding]:
    """Duties that look as if they had a term, and have none: nobody would notice that it passes.

    Asked when a directive is written and handed in, not of what is on record.
    """
    document = directive.document
    found = places.rules(document.rules_text)
    where = found if len(found) == len(directive.rules) else [NOWHERE] * len(directive.rules)
    for rule, parts in zip(directive.rules, where, strict=True):
        for kind, parameters in rule.obligations:
            last = parameters.rpartition(":")[2]
            if ":" in parameters and last[:1].isdecimal() and not term_us(parameters):
                message = (
                    f'"{last}" is no term: write hours as ":24h" or days as ":30d", at the end'
                )
                place = parts.annotation(f"obligation_{kind}")
                yield Finding("OBLIGATION_TERM", document.rules_file, rule.id, message, place)


def _asked_for(expression: pst.Expr, operation: str) -> Iterator[pst.Expr]:
    """What a condition asks for, without what must be asked before something can be read."""
    if isinstance(expression, pst.BinaryOp) and expression.op == operation:
        yield from _asked_for(expression.left, operation)
        yield from _asked_for(expression.right, operation)
        return
    asked = expression
    while isinstance(asked, pst.UnaryOp) and asked.op == "not":
        asked = asked.arg
    if isinstance(asked, pst.HasAttr) or (
        isinstance(asked, pst.BinaryOp) and asked.op == "has_tag"
    ):
        return
    yield expression


def _determining(showing: Sequence[CaseResult]) -> set[str]:
    return {rule.id for result in showing for rule in _verdict(result).rules}


def _verdict(result: CaseResult) -> Verdict:
    assert result.shows is not None
    return result.shows.verdict


def _missing_alone(showing: Sequence[CaseResult]) -> set[tuple[str, int]]:
    """The requirements that are the only missing one of their rule in some case."""
    alone = set()
    for result in showing:
        missing: dict[str, list[int]] = {}
        for part in _verdict(result).unmet:
            missing.setdefault(part.rule_id, []).append(part.clause)
        alone |= {(rule, parts[0]) for rule, parts in missing.items() if len(parts) == 1}
    return alone


class _Trial:
    """All changed rules, ready to be tried on each case."""

    def __init__(
        self,
        rules: Sequence[Rule],
        mutants: Sequence[Mutant],
        vocabulary: Vocabulary,
        registry: Registry,
    ) -> None:
        self._vocabulary = vocabulary
        # Which seats are held does not matter here: a case says which is asked.
        self._asking = Asking(registry, vocabulary, lambda party, day: False)
        self._entities = entities.build(registry, vocabulary)
        self._base = {rule.id: f"rule{number}" for number, rule in enumerate(rules)}
        templates = {self._base[rule.id]: rule.template for rule in rules}
        templates |= {
            f"mutant{number}": mutant.template
            for number, mutant in enumerate(mutants)
            if mutant.template is not None
        }
        self._policies = cedarpy.PolicySet.from_pst(
            pst.PolicySet(
                {},
                {
                    key: dataclasses.replace(template, id=key, effect="permit", annotations={})
                    for key, template in templates.items()
                },
                (),
            )
        )

    def noticed(self, result: CaseResult, mutants: dict[int, Mutant]) -> list[int]:
        """Which of the changes make this case come out otherwise."""
        asked = result.asked
        question = self._asking.ask(asked.facts, asked.officer, asked.at)
        answer = cedarpy.is_authorized(
            question.request(asked.seat, self._vocabulary.facts),
            self._policies,
            self._entities,
            # What the rules read is known, or the case would show nothing; the rest may be absent.
            self._vocabulary.loose,
        )
        fired = set(answer.diagnostics.reasons)
        erred = {name for error in answer.diagnostics.errors for name in _ERRED.findall(error)}
        verdict = _verdict(result)
        # A prohibition that applies hides what the permits say.
        forbidden = verdict.outcome == OUTCOMES["forbid"] and bool(verdict.rules)
        return [
            number
            for number, mutant in mutants.items()
            if f"mutant{number}" in erred
            or (
                (f"mutant{number}" in fired) != (self._base[mutant.rule.id] in fired)
                and not (mutant.rule.permits and forbidden)
            )
        ]


def _idle_rules(
    file: str, rules: Sequence[Rule], where: Sequence[RulePlaces], idle: set[str]
) -> Iterator[Finding]:
    for rule, parts in zip(rules, where, strict=True):
        if rule.id in idle:
            verdict = "permit" if rule.permits else "forbid"
            message = (
                f"no case shows it at work: add one with `expect: {verdict}` and "
                f"`rules: [{rule.id}]`"
            )
            yield Finding("RULE_NOT_SHOWN", file, rule.id, message, parts.start)


def _untried(
    file: str,
    rules: Sequence[Rule],
    where: Sequence[RulePlaces],
    untried: set[tuple[str, int]],
    idle: set[str],
) -> Iterator[Finding]:
    for rule, parts in zip(rules, where, strict=True):
        for number, words in sorted(rule.requirements.items()):
            if (rule.id, number) in untried and rule.id not in idle:
                what = f"condition {number}" if number else "the head"
                message = (
                    f"in no case is {what} ({words}) the only requirement of this rule that is missing: "
                    f'add one with `expect: forbid` and `unmet: ["{rule.id}#{number}"]`; if there can '
                    "be none, the requirement changes nothing and can be struck out"
                )
                yield Finding("REQUIREMENT_NOT_SHOWN", file, rule.id, message, parts.clause(number))


def _surviving(
    file: str,
    survivors: Iterable[Mutant],
    where: Sequence[RulePlaces],
    idle: set[str],
    untried: set[tuple[str, int]],
) -> Iterator[Finding]:
    """Changes that no case notices, but for those that follow from what was said before."""
    by_number = sorted(survivors, key=lambda mutant: mutant.rule.number)
    for mutant in by_number:
        rule, clause = mutant.rule, mutant.clause
        if rule.id in idle or (clause is not None and (rule.id, clause) in untried):
            continue
        place = where[rule.number].start if clause is None else where[rule.number].clause(clause)
        message = (
            f"no case would notice if {mutant.change}: add a case whose answer depends on it, or strike "
            "it out"
        )
        yield Finding("MUTANT_SURVIVES", file, rule.id, message, place)
