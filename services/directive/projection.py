"""Which facts of a search a party is told, and for which of its seats one answer serves.

Most of what a question costs is the reading of its facts by the engine; most rules read few. Most do
not tell one seat of their party from another.

Invariants:
- The rules answer as if they had been told everything. A rule can read a fact only by its name, or by
  taking the facts as a whole; whoever does that is told everything.
- The engine knows exactly the facts that are told: one too many or one too few is no decision.
- The engine's own type checker, which does not know how the facts were chosen, finds nothing new
  in the rules when it is shown only these facts. Otherwise the directives are not loaded.
- One answer serves two seats only where every condition that reads the seat asks whether it is one of
  some written-out seats, and is as true of the one as of the other.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

import cedarpy
from cedarpy import pst

from directive import conditions
from directive.findings import DirectiveRefused, Finding
from directive.rules import Rule
from directive.vocabulary import NAMESPACE, Vocabulary

_CONTEXT: Final = pst.Var("context")
_SEAT: Final = "seat"
_SEAT_TYPE: Final = pst.EntityType("Seat", (NAMESPACE,))
_CONTEXT_SEAT: Final = pst.GetAttr(_CONTEXT, _SEAT)

SeatLists: TypeAlias = tuple[frozenset[str], ...]
"""The seats that each condition on the seat names."""


@dataclass(frozen=True)
class Projection:
    """The facts that are told, and the vocabulary cut down to them."""

    facts: tuple[str, ...]
    schema: cedarpy.Schema


class Projections:
    """Makes projections of one vocabulary; each is made once."""

    def __init__(self, vocabulary: Vocabulary, *, project: bool = True) -> None:
        """Without `project`, everybody is told all that is known: for comparing, never for deciding."""
        self._vocabulary = vocabulary
        self._project = project
        self._made: dict[tuple[str, ...], Projection] = {}

    @property
    def made(self) -> tuple[Projection, ...]:
        """All that were made."""
        return tuple(self._made.values())

    def seat_lists(self, rules: Sequence[Rule]) -> SeatLists | None:
        """How these rules tell seats apart; None when each must be asked by itself."""
        return seat_lists(rules) if self._project else None

    def of(self, rules: Sequence[Rule]) -> Projection:
        """What these rules are told; raises DirectiveRefused when the type checker sees a difference."""
        if not self._project:
            # What nobody knows cannot be told, and is not among what these rules read.
            return Projection(tuple(self._vocabulary.facts), self._vocabulary.loose)
        told = facts_read(rules, self._vocabulary.facts)
        facts = tuple(name for name in self._vocabulary.facts if name in told)
        projection = self._made.get(facts)
        if projection is None:
            projection = Projection(facts, self._vocabulary.cut(facts))
            self._made[facts] = projection
        check(rules, projection, self._vocabulary)
        return projection


def facts_read(rules: Iterable[Rule], facts: Collection[str]) -> frozenset[str]:
    """The facts that the rules, or parts of them, mention anywhere; all when in doubt.

    Which record an attribute belongs to is not asked: a name that is also a fact's counts.
    """
    read: set[str] = set()
    uses = reads = 0
    for node in _nodes(rules):
        if node == _CONTEXT:
            uses += 1
        elif isinstance(node, pst.GetAttr):
            reads += node.base == _CONTEXT
            read.add(node.attr)
        elif isinstance(node, pst.HasAttr):
            reads += node.base == _CONTEXT
            read.update(node.attrs)
    # Any other use hands the facts on as a whole.
    return frozenset(facts) if uses != reads else frozenset(facts) & read


def _nodes(rules: Iterable[Rule]) -> Iterator[Any]:
    return chain.from_iterable(rule.nodes for rule in rules)


def attributes_read(rules: Iterable[Rule]) -> frozenset[str]:
    """Every attribute that the rules mention, whatever it is an attribute of."""
    return frozenset(node.attr for node in _nodes(rules) if isinstance(node, pst.GetAttr))


def seat_lists(rules: Iterable[Rule]) -> SeatLists | None:
    """The seats named by each condition on the seat; None when the seat is read in any other way."""
    lists = []
    reads = uses = uses_for_one_fact = 0
    for node in _nodes(rules):
        if node == _CONTEXT:
            uses += 1
        elif isinstance(node, pst.GetAttr | pst.HasAttr):
            attrs = (node.attr,) if isinstance(node, pst.GetAttr) else node.attrs
            reads += _SEAT in attrs
            uses_for_one_fact += node.base == _CONTEXT
        elif (named := _seats_named(node)) is not None:
            lists.append(named)
    # Each list accounts for one reading of the seat; a reading that is left may be about anything.
    return tuple(lists) if reads == len(lists) and uses == uses_for_one_fact else None


def _seats_named(node: object) -> frozenset[str] | None:
    """The seats in `context.seat == S`, `!=` or `[S, T].contains(context.seat)`; None otherwise."""
    if not isinstance(node, pst.BinaryOp):
        return None
    if node.op in ("eq", "not_eq") and _CONTEXT_SEAT in (node.left, node.right):
        named: tuple[pst.Expr, ...] = (node.right if node.left == _CONTEXT_SEAT else node.left,)
    elif node.op == "contains" and node.right == _CONTEXT_SEAT and isinstance(node.left, pst.Set):
        named = node.left.elements
    else:
        return None
    literals = [element.value for element in named if isinstance(element, pst.EntityLit)]
    if len(literals) != len(named):
        return None
    return frozenset(uid.id for uid in literals if uid.type == _SEAT_TYPE)


def check(rules: Sequence[Rule], projection: Projection, vocabulary: Vocabulary) -> None:
    """Raises DirectiveRefused when a rule means something else with the facts that are left.

    `has` on a fact that is not declared passes the type checker and is silently false, so the
    conditions are examined as well.
    """
    if projection.schema is vocabulary.schema:
        return
    cut = dataclasses.replace(vocabulary, schema=projection.schema)
    found = _suspicions(rules, cut)
    if found:  # Compared only then: what was found before is for the guards to judge.
        found -= _suspicions(rules, vocabulary)
    if found:
        raise DirectiveRefused(
            [
                Finding("PROJECTION", "", rule, "reads a fact that it would not be told")
                for rule in sorted(found)
            ]
        )


def _suspicions(rules: Sequence[Rule], vocabulary: Vocabulary) -> set[str]:
    """The rules that the type checker objects to, or that have a condition without meaning."""
    policies = {rule.id: rule.template for rule in rules}
    text = str(cedarpy.PolicySet.from_pst(pst.PolicySet({}, policies, ())))
    result = cedarpy.validate_policies(text, vocabulary.schema)
    ids = result.id_annotations_by_policy_id
    found = {ids.get(error.policy_id, error.policy_id) for error in result.errors}
    if not result.validation_passed and not found:
        found.add("")
    return found | {suspect.rule for suspect in conditions.suspects(rules, vocabulary)}
