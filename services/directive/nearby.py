"""The part of the registry that one question can reach, as a handle of the engine.

What one question costs does not grow with the registry, and when an officer's standing changes, nothing is
made anew but what is said of that officer.

Invariants:
- The rules answer as if all of the registry had been there. Cedar reaches an entity's attributes, tags and
  ancestors from the officer, the gallery and the beneficiary, through the attributes of these, and from
  entities that a rule itself names and reads. All of them are there.
- Of an entity that is only compared with another, or asked to be among the ancestors of another, nothing is
  read.
- Always built with the schema, as in `directive.entities`.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import cedarpy
from cedarpy import pst

from directive.entities import Uid, record_of
from directive.rules import Rule, children
from directive.vocabulary import NAMESPACE, Vocabulary
from shared.registry import Registry

SETS_KEPT_MAX: Final = 1024
"""Some ten kilobytes each. The same officer asks several times of one search, and searches come in rows."""

_COMPARED: Final = frozenset({"eq", "not_eq", "contains", "contains_all", "contains_any"})
_OFFICER: Final = "Officer"
_REGISTERED: Final = frozenset({_OFFICER, "Agency", "NamedList", "System", "Gallery"})
"""The kinds of which there is anything to read."""


class _Base(NamedTuple):
    """What is around a gallery and the entities that rules name."""

    handle: cedarpy.Entities
    held: frozenset[Uid]


class Nearby:
    """Sets of entities of one registry, made as they are asked for."""

    def __init__(self, registry: Registry, vocabulary: Vocabulary) -> None:
        self._registry = registry
        self._vocabulary = vocabulary
        self._base = functools.lru_cache(SETS_KEPT_MAX)(self._made_base)
        self._set = functools.lru_cache(SETS_KEPT_MAX)(self._made)

    def of(
        self, officer: str, gallery: str, beneficiary: str, named: frozenset[Uid]
    ) -> cedarpy.Entities:
        """What a question by this officer about this gallery can reach; `beneficiary` is empty for none.

        `named` are the entities that the rules read by their names.
        """
        return self._set(officer, gallery, beneficiary, named)

    def with_officers(self, registry: Registry) -> "Nearby":
        """Of a registry in which officers, and nothing else, may have changed."""
        other = Nearby(registry, self._vocabulary)
        # No officer is in what is around a gallery.
        other._base = self._base
        return other

    def _made_base(self, gallery: str, named: frozenset[Uid]) -> _Base:
        found = self._around([("Gallery", gallery), *sorted(named)], frozenset())
        text = json.dumps(list(found.values()))
        handle = cedarpy.Entities.from_json_str(text, self._vocabulary.schema)
        return _Base(handle, frozenset(found))

    def _made(
        self, officer: str, gallery: str, beneficiary: str, named: frozenset[Uid]
    ) -> cedarpy.Entities:
        officers = frozenset(uid for uid in named if uid[0] == _OFFICER)
        base = self._base(gallery, named - officers)
        wanted = [(_OFFICER, officer), ("Agency", beneficiary), *sorted(officers)]
        added = list(self._around(wanted, base.held).values())
        if not added:
            return base.handle
        return base.handle.with_added_json_str(json.dumps(added), self._vocabulary.schema)

    def _around(self, uids: Iterable[Uid], held: frozenset[Uid]) -> dict[Uid, dict[str, Any]]:
        """The entities and all that is reached from them, but for those that are held already."""
        found: dict[Uid, dict[str, Any]] = {}
        left = list(uids)
        while left:
            uid = left.pop()
            if uid in found or uid in held:
                continue
            record = record_of(self._registry, self._vocabulary, *uid)
            if record is not None:
                found[uid] = record
                left += _reached(record)
                left += self._of_lineage(record)
        return found

    def _of_lineage(self, record: dict[str, Any]) -> Iterator[Uid]:
        """The parents that have parents. Of the others nothing is asked but whether they are parents."""
        for parent in record["parents"]:
            kind, name = parent["type"].removeprefix(f"{NAMESPACE}::"), parent["id"]
            above = record_of(self._registry, self._vocabulary, kind, name)
            if above is not None and above["parents"]:
                yield kind, name


def _reached(record: dict[str, Any]) -> Iterator[Uid]:
    """What can be read through an entity."""
    for value in record["attrs"].values():
        if isinstance(value, dict):
            yield value["type"].removeprefix(f"{NAMESPACE}::"), value["id"]


def named_and_read(rules: Iterable[Rule]) -> frozenset[Uid]:
    """The entities that rules name and may read; when in doubt, one is."""
    found = (uid for rule in rules for uid in _read(rule.template.clauses))
    return frozenset(uid for uid in found if uid[0] in _REGISTERED)


def _read(node: object) -> Iterator[Uid]:
    if isinstance(node, pst.EntityLit):
        yield node.value.type.basename, node.value.id
    elif isinstance(node, pst.BinaryOp):
        if not (node.op in _COMPARED and _written_out(node.left)):
            yield from _read(node.left)
        if not (node.op in {*_COMPARED, "in"} and _written_out(node.right)):
            yield from _read(node.right)
    else:
        for child in children(node):
            yield from _read(child)


def _written_out(node: object) -> bool:
    """Whether it is an entity, or a set of entities, by their names."""
    if isinstance(node, pst.Set):
        return all(isinstance(element, pst.EntityLit) for element in node.elements)
    return isinstance(node, pst.EntityLit)
