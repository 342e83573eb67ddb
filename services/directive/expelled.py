"""What becomes of rules that rest on the word of an owner whom the registrars expelled.

Nearly all that a rule can ask of it makes the owner itself a party, or an officer unknown, and that refuses.
A party cannot tell, though, whose rules

- name its offences, or ask of offences in general which sets have them;
- name a union that it is: who is a member is its word, and it may never have ordered anything;
- read what it registered by its name (an agency's agreements), whoever is a party.
"""

from collections.abc import Iterator
from typing import Final

from cedarpy import pst

from directive.book import Slice
from directive.nearby import named_and_read
from directive.rules import walk
from shared.registry import Registry

_SET: Final = "OffenceSet"
_SETS_TOLD: Final = frozenset({"offenceSets", "equivalentSets"})
_ASKED_BY_NAME: Final = frozenset({"contains", "contains_all", "contains_any"})


class Expelled:
    """The owners of one registry whom the registrars expelled."""

    def __init__(self, registry: Registry) -> None:
        self._theirs = frozenset(_registered(registry)) if registry.expelled else frozenset()
        self._has_offences = any(kind == _SET for kind, _ in self._theirs)
        self._known: dict[int, bool] = {}

    def bear(self, rules: Slice) -> bool:
        """Whether rules rest on their word. `rules` must live as long as this."""
        if not self._theirs:
            return False
        if id(rules) not in self._known:
            self._known[id(rules)] = self._bear(rules)
        return self._known[id(rules)]

    def _bear(self, rules: Slice) -> bool:
        every = rules.rules.values()
        nodes = [node for rule in every for node in walk(rule.template.clauses)]
        named = {
            (node.value.type.basename, node.value.id)
            for node in nodes
            if isinstance(node, pst.EntityLit)
        }
        asked = {uid for uid in named if uid[0] in (_SET, "Jurisdiction")} | named_and_read(every)
        if not self._theirs.isdisjoint(asked):
            return True
        if not self._has_offences or _SETS_TOLD.isdisjoint(rules.projection.facts):
            return False
        told = sum(isinstance(node, pst.GetAttr) and node.attr in _SETS_TOLD for node in nodes)
        return told == 0 or told != sum(map(_asks_by_name, nodes))


def _registered(registry: Registry) -> Iterator[tuple[str, str]]:
    """What they registered, by kind and name."""
    gone = registry.expelled
    yield from (("Agency", name) for name in gone & registry.agencies.keys())
    yield from (("Jurisdiction", name) for name in gone & registry.unions.keys())
    owners = (
        (_SET, {name: one.owner for name, one in registry.offence_sets.items()}),
        ("NamedList", {name: one.owner for name, one in registry.lists.items()}),
        ("System", {name: one.operator for name, one in registry.systems.items()}),
        ("Gallery", {name: one.owner for name, one in registry.galleries.items()}),
    )
    for kind, table in owners:
        yield from ((kind, name) for name, owner in table.items() if owner in gone)


def _asks_by_name(node: object) -> bool:
    """Whether it asks for sets that it names itself."""
    if not (isinstance(node, pst.BinaryOp) and node.op in _ASKED_BY_NAME):
        return False
    named = node.right.elements if isinstance(node.right, pst.Set) else (node.right,)
    return (
        isinstance(node.left, pst.GetAttr)
        and node.left.attr in _SETS_TOLD
        and all(isinstance(one, pst.EntityLit) for one in named)
    )
