"""The registry's tables, and what an owner's public part brings into them."""

from collections.abc import Mapping
from typing import Any, Final

from registry.document import PublicPart
from shared.registry import Gallery, NamedList, OffenceSet, Registry, System

OFFICERS: Final = "officers"
OVERSIGHT: Final = "oversight"
_SECTIONS: Final = tuple(name for name in Registry.model_fields if name != OFFICERS)


class Sections:
    """The registry's tables but for the officers. Those that were given out are copied before a change."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
        self._given: set[str] = set()

    def writable(self, section: str) -> dict[str, Any]:
        """A table to write to."""
        if section in self._given:
            self._held[section] = dict(self._held[section])
            self._given.discard(section)
        return self._held[section]

    def copy(self) -> "Sections":
        """The same tables, which whoever writes first copies."""
        other = Sections()
        other._held = dict(self._held)
        self._given.update(self._held)
        other._given.update(self._held)
        return other

    def give(self) -> Mapping[str, Mapping[str, Any]]:
        """All of them, to be kept by somebody else."""
        self._given.update(self._held)
        return dict(self._held)


def sections_of(public: PublicPart) -> Mapping[str, Mapping[str, Any]]:
    """What a public part brings into the registry."""
    owner = public.owner
    return {
        "agencies": {owner: public.agency} if public.agency is not None else {},
        "systems": {
            name: System(operator=owner, **one.model_dump()) for name, one in public.systems.items()
        },
        "galleries": {
            name: Gallery(owner=owner, **one.model_dump(exclude={"records", "as_of"}))
            for name, one in public.galleries.items()
        },
        "lists": {
            name: NamedList(owner=owner, title=one.title) for name, one in public.lists.items()
        },
        "offence_sets": {
            name: OffenceSet(owner=owner, **one.model_dump())
            for name, one in public.offence_sets.items()
        },
        "oversight": dict(public.oversight),
        "unions": {owner: public.members} if public.members else {},
    }
