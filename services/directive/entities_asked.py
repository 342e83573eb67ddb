"""The entities of a registry as compiled rules read them, with officers put in as they are asked about.

Invariant: an officer is there as the registry that the question is asked by has them, so that questions by
registries in which other officers stand otherwise can follow each other.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cedarpy import pst

from directive import entities
from directive.cedar_values import Entity, Uid, action, known_entities
from directive.rules import Rule
from directive.vocabulary import NAMESPACE, Vocabulary
from shared.registry import Officer, Registry

OFFICER: Final = f"{NAMESPACE}::Officer"
SUBMIT: Final = action("submitSearch")
_ACTIONS: Final = {SUBMIT: Entity(ancestors=frozenset({action("search")}))}
"""As the vocabulary has them."""


class EntitiesAsked:
    """Of registries that say the same of all but officers."""

    def __init__(self, registry: Registry, vocabulary: Vocabulary) -> None:
        """Raises NotCompiled."""
        others = entities.records_but_officers(registry, vocabulary)
        self.known = known_entities(others) | _ACTIONS
        """Those that rules read. Compiled rules keep it, so it is always the same table."""
        self._vocabulary = vocabulary
        self._entered: dict[str, Officer] = {}

    def enter(self, registry: Registry, officers: Iterable[str]) -> None:
        """Have these officers stand as this registry says; raises NotCompiled."""
        for name in officers:
            officer = registry.officers.get(name)
            if self._entered.get(name) is not officer:
                self._enter(registry, name, officer)

    def _enter(self, registry: Registry, name: str, officer: Officer | None) -> None:
        uid = Uid(OFFICER, name)
        self._entered.pop(name, None)
        self.known.pop(uid, None)
        record = entities.record_of(registry, self._vocabulary, "Officer", name)
        if officer is None or record is None:
            return
        (entity,) = known_entities([record]).values()
        above = (self.known[one].ancestors for one in entity.ancestors if one in self.known)
        self.known[uid] = replace(entity, ancestors=entity.ancestors.union(*above))
        self._entered[name] = officer


def officers_named(rules: Iterable[Rule]) -> frozenset[str]:
    """Officers whom rules name."""
    uids = (uid for rule in rules for uid in pst.entity_uids(rule.template))
    return frozenset(uid.id for uid in uids if str(uid.type) == OFFICER)
