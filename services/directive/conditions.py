"""Finds conditions that can never hold, or always hold: almost always a slip of the pen.

Cedar accepts `resource == Countersign::System::"lacris"` (a gallery is never a system), `context has
warrant` without such a fact, and types of different kinds compared; it warns only when a whole rule
is impossible, and the warning does not reach Python. In a prohibition such a condition silently
forbids nothing.

So the engine's own type checker is asked, once per directive: under `if C then <ill-typed> else true`
the ill-typed part goes unnoticed exactly when C is typed as false.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from directive.rules import Rule, walk
from directive.vocabulary import Vocabulary

_COMPARISONS: Final = frozenset(
    {"eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "in", "has_tag"}
    | {"contains", "contains_all", "contains_any"}
)
_ILL_TYPED: Final = pst.BinaryOp("less", pst.LongLit(1), pst.StringLit("one"))


@dataclass(frozen=True)
class Suspect:
    """A condition of a rule that says nothing."""

    rule: str
    text: str
    kind: str
    """"undeclared" or "required" for `has`; "never" or "always" for the rest."""


@dataclass(frozen=True)
class _Probe:
    suspect: Suspect
    template: pst.Template


def suspects(rules: Sequence[Rule], vocabulary: Vocabulary) -> list[Suspect]:
    """Every condition without meaning, in the order of the rules."""
    probes = [probe for rule in rules for probe in _probes(rule)]
    if not probes:
        return []
    named = {f"probe{number}": probe for number, probe in enumerate(probes)}
    policies = cedarpy.PolicySet.from_pst(
        pst.PolicySet(
            {},
            {
                key: dataclasses.replace(probe.template, id=key, annotations={"id": key})
                for key, probe in named.items()
            },
            (),
        )
    )
    result = cedarpy.validate_policies(str(policies), vocabulary.schema)
    ids = result.id_annotations_by_policy_id
    typed = {ids.get(error.policy_id, "") for error in result.errors}
    assert typed <= set(named), "the type checker speaks of conditions that it was not asked about"
    found = [probe.suspect for key, probe in named.items() if key not in typed]
    return list(dict.fromkeys(found))


def _probes(rule: Rule) -> list[_Probe]:
    """What the type checker is asked about one rule; a probe that passes is a suspect."""
    conditions = dict.fromkeys(
        node
        for node in walk(rule.template.clauses)
        if isinstance(node, pst.HasAttr | pst.Is)
        or (isinstance(node, pst.BinaryOp) and node.op in _COMPARISONS)
    )
    presence = _presence(conditions)
    probes = []
    for condition in conditions:
        guards = _guards(condition, presence)
        asked: dict[str, pst.Expr] = {}
        if isinstance(condition, pst.HasAttr):
            read = pst.GetAttr(condition.base, condition.attrs[0])
            # Reading it without asking first is well typed only when it is always there.
            asked["required"] = _all([*guards, pst.BinaryOp("eq", read, read)])
            asked["undeclared"] = _hidden_when_false([*guards, condition])
        else:
            asked["never"] = _hidden_when_false([*guards, condition])
            asked["always"] = _hidden_when_false([*guards, pst.UnaryOp("not", condition)])
        text = _as_text(condition)
        probes += [
            _Probe(Suspect(rule.id, text, kind), _policy(expression))
            for kind, expression in asked.items()
        ]
    return probes


def _presence(conditions: Iterable[pst.Expr]) -> dict[pst.Expr, pst.Expr]:
    """The presence checks among the conditions, by the reading that each makes well typed."""
    checks: dict[pst.Expr, pst.Expr] = {}
    for one in conditions:
        if isinstance(one, pst.HasAttr):
            checks[pst.GetAttr(one.base, one.attrs[0])] = one
        elif isinstance(one, pst.BinaryOp) and one.op == "has_tag":
            checks[pst.BinaryOp("get_tag", one.left, one.right)] = one
    return checks


def _guards(condition: pst.Expr, presence: Mapping[pst.Expr, pst.Expr]) -> list[pst.Expr]:
    """The presence checks of the same rule that make reading what the condition reads well typed."""
    reads = (node for node in walk(condition) if isinstance(node, pst.GetAttr | pst.BinaryOp))
    guards = dict.fromkeys(presence[node] for node in reads if node in presence)
    guards.pop(condition, None)
    # `context has a` comes before `context.a has b`.
    return sorted(guards, key=lambda guard: sum(1 for _ in walk(guard)))


def _hidden_when_false(expressions: Sequence[pst.Expr]) -> pst.Expr:
    return pst.IfThenElse(_all(expressions), _ILL_TYPED, pst.BoolLit(True))


def _policy(expression: pst.Expr) -> pst.Template:
    anything = pst.ScopeAny()
    return pst.Template("", "permit", anything, anything, anything, (pst.When(expression),), {})


def _all(expressions: Sequence[pst.Expr]) -> pst.Expr:
    first, *rest = expressions
    for expression in rest:
        first = pst.BinaryOp("and", first, expression)
    return first


def _as_text(expression: pst.Expr) -> str:
    """The condition as a directive would write it."""
    policies = cedarpy.PolicySet.from_pst(pst.PolicySet({}, {"": _policy(expression)}, ()))
    text = str(policies)
    return text[text.index("{") + 1 : text.rindex("}")].strip()
