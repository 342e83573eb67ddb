"""The rules of a directive, as Cedar's typed tree with what their annotations say.

Annotations that have a meaning: @id, @title, @citation, @source_sentence, @requirement_N and
@obligation_<kind>.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, cached_property
from typing import Any, Final

import cedarpy
from cedarpy import pst

from countersign.type.v1.decision_pb2 import DeterminingRule, RuleEffect
from directive.nesting import too_deep

REQUIREMENT: Final = re.compile(r"requirement_(0|[1-9][0-9]{0,2})")
OBLIGATION: Final = re.compile(r"obligation_([a-z_]+)")


@dataclass(frozen=True)
class Rule:
    """One rule of a party."""

    id: str
    title: str
    citation: str
    template: pst.Template
    """With our identifier in place of Cedar's positional one, which shifts when text is added."""
    number: int
    """Its place in the text, counted from zero."""

    @cached_property
    def permits(self) -> bool:
        """Whether it permits; otherwise it forbids."""
        return bool(self.template.effect == "permit")

    @property
    def source_sentence(self) -> str:
        """The sentence of the source that the rule encodes, word for word; empty when it is not given."""
        return str(self.template.annotations.get("source_sentence", ""))

    @property
    def has_conditional_head(self) -> bool:
        """Whether the head names who or which gallery."""
        return not (
            isinstance(self.template.principal, pst.ScopeAny)
            and isinstance(self.template.resource, pst.ScopeAny)
        )

    @cached_property
    def requirements(self) -> dict[int, str]:
        """Number of the requirement (0 is the head) to its words."""
        return {
            int(match[1]): words
            for key, words in self.template.annotations.items()
            if (match := REQUIREMENT.fullmatch(key))
        }

    @cached_property
    def obligations(self) -> tuple[tuple[str, str], ...]:
        """Kind and parameters of each duty that it imposes, sorted."""
        return tuple(
            sorted(
                (match[1], parameters)
                for key, parameters in self.template.annotations.items()
                if (match := OBLIGATION.fullmatch(key))
            )
        )

    @cached_property
    def nodes(self) -> tuple[Any, ...]:
        """Every node of it: each book that it is in asks several times what it reads."""
        return tuple(walk(self.template))

    @cached_property
    def names(self) -> frozenset[pst.EntityUid]:
        """The entities that are written out in it."""
        return frozenset(one for one in self.nodes if isinstance(one, pst.EntityUid))

    @cached_property
    def as_proto(self) -> DeterminingRule:
        """The rule as verdicts name it."""
        effect = RuleEffect.RULE_EFFECT_PERMIT if self.permits else RuleEffect.RULE_EFFECT_FORBID
        return DeterminingRule(id=self.id, title=self.title, citation=self.citation, effect=effect)


def identified(policies: Mapping[str, pst.Template]) -> list[Rule]:
    """Parsed rules in the order of the text; one without @id goes by its place ("rule 3")."""
    order = sorted(policies, key=lambda key: int(key.removeprefix("policy")))
    rules = []
    for number, key in enumerate(order, 1):
        template, notes = policies[key], policies[key].annotations
        label = notes.get("id") or f"rule {number}"
        rules.append(
            Rule(
                label,
                notes.get("title", ""),
                notes.get("citation", ""),
                dataclasses.replace(template, id=label),
                int(key.removeprefix("policy")),
            )
        )
    return rules


def read_rules(text: str) -> list[Rule]:
    """The rules of a text that no guard has seen, for reading only; raises ValueError."""
    if too_deep(text) is not None:
        raise ValueError("nested too deeply to be read")
    return identified(cedarpy.policies_to_pst(text).static_policies)


def walk(node: object) -> Iterator[Any]:
    """Every node of a typed tree, the node itself first. Cedar bounds the depth at 100."""
    left = [node]
    while left:
        one = left.pop()
        yield one
        left.extend(reversed(children(one)))


def children(node: object) -> tuple[object, ...]:
    """The nodes right below one."""
    if isinstance(node, dict):
        return tuple(node.values())
    if isinstance(node, tuple):
        return node
    kind: Any = type(node)
    return tuple([getattr(node, name) for name in _field_names(kind)])


@cache
def _field_names(kind: type[Any]) -> tuple[str, ...]:
    """Those of a kind of node, of which Cedar has a few dozen; none of a word or a number."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
