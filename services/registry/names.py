"""Whose name is whose: who may use which, and which are still in use.

Invariants:
- A name belongs to the owner that published it first, for as long as that owner has it.
- Whatever is named is there: a gallery's system has an operator, an officer's list a keeper that lets the
  officer's agency enter its own. What others still use is not taken away.
- An agency does not leave its jurisdiction, whose statutes bind it, by saying so.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from directive.findings import Finding
from registry.document import AGENCY_FILE, OFFICERS_FILE, PublicPart
from shared.registry import Standing

OWNED: Final = ("systems", "galleries", "lists", "offence_sets", "oversight")
"""The sections of `agency.toml` whose names belong to its owner."""


def names_in(public: PublicPart, section: str) -> Mapping[str, object]:
    """The names of one section with what is said of them."""
    found = getattr(public, section)
    assert isinstance(found, Mapping), "each section is a table"
    return found


@dataclass
class Names:
    """The names of all owners, as they are published."""

    publics: dict[str, PublicPart] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    """Section and name to the owner."""
    officers: dict[str, str] = field(default_factory=dict)
    """Officer to the agency."""
    listed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many officers of an agency are on a list, by list and agency."""
    held: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many galleries of an owner are in a system, by system and owner."""

    def copy(self) -> "Names":
        """The same; what is changed in one is not in the other."""
        return Names(
            dict(self.publics),
            dict(self.owners),
            dict(self.officers),
            Counter(self.listed),
            Counter(self.held),
        )

    def check_public(self, public: PublicPart) -> Iterator[Finding]:
        """What is wrong with an owner's new public part beside what the others have."""
        owner = public.owner
        for section in OWNED:
            for name in names_in(public, section):
                holder = self.owners.get((section, name), owner)
                if holder != owner:
                    yield _finding("NAME_TAKEN", owner, f"{section}.{name}", f"belongs to {holder}")
        for name, gallery in public.galleries.items():
            operator = self.owners.get(("systems", gallery.system), owner)
            # The owner's own systems are those of its new public part.
            if gallery.system not in public.systems and operator == owner:
                message = f"nobody operates its system {gallery.system!r}"
                yield _finding("SYSTEM_UNKNOWN", owner, f"galleries.{name}", message)
        before = self.publics.get(owner)
        if before is None:
            return
        if before.agency and public.agency:
            old, new = before.agency.jurisdiction, public.agency.jurisdiction
            if old != new:
                message = f"was {old}: an agency does not leave its jurisdiction by saying so"
                yield _finding("JURISDICTION_CHANGED", owner, "agency.jurisdiction", message)
        yield from self._still_used(before, public)

    def _still_used(self, before: PublicPart, public: PublicPart) -> Iterator[Finding]:
        owner = public.owner
        for (system, other), galleries in self.held.items():
            if galleries and other != owner and system in before.systems.keys() - public.systems:
                message = f"still holds galleries of {other}"
                yield _finding("SYSTEM_IN_USE", owner, f"systems.{system}", message)
        for (name, other), count in self.listed.items():
            if not count or other == owner or name not in before.lists:
                continue
            kept = public.lists.get(name)
            if kept is None or other not in kept.entered_by:
                message = f"has officers of {other}, who must be taken off first"
                yield _finding("LIST_IN_USE", owner, f"lists.{name}", message)

    def check_standing(self, public: PublicPart, officer: str, said: Standing) -> Iterator[Finding]:
        """What is wrong with what an agency says of an officer. Whether it is known already is not asked."""
        owner = public.owner
        holder = self.officers.get(officer, owner)
        if holder != owner:
            yield _officer("NAME_TAKEN", owner, officer, "is an officer of another agency")
        for name in said.lists:
            if name in public.lists:
                continue
            keeper = self.owners.get(("lists", name))
            # The owner's own lists are those of its new public part.
            if keeper is None or keeper == owner:
                yield _officer("LIST_UNKNOWN", owner, officer, f"nobody keeps the list {name!r}")
            elif owner not in self.publics[keeper].lists[name].entered_by:
                message = (
                    f"{keeper} keeps the list {name!r}, and does not let {owner} enter officers"
                )
                yield _officer("LIST_OF_OTHERS", owner, officer, message)

    def left_on(self, public: PublicPart, taken_off: Counter[str]) -> Iterator[Finding]:
        """Own lists that are no more, though own officers stay on them."""
        owner = public.owner
        before = self.publics.get(owner)
        for name in before.lists.keys() - public.lists if before else ():
            if self.listed[name, owner] > taken_off[name]:
                yield _finding("LIST_IN_USE", owner, f"lists.{name}", "has officers of its keeper")

    def replace(self, public: PublicPart) -> None:
        """Takes an owner's new public part, which was checked."""
        owner, before = public.owner, self.publics.get(public.owner)
        for section in OWNED:
            for name in names_in(before, section) if before else ():
                del self.owners[section, name]
            for name in names_in(public, section):
                self.owners[section, name] = owner
        for gallery in before.galleries.values() if before else ():
            _count(self.held, (gallery.system, owner), -1)
        for gallery in public.galleries.values():
            _count(self.held, (gallery.system, owner), 1)
        self.publics[owner] = public

    def enter(self, owner: str, officer: str, lists: Iterable[str]) -> None:
        """Takes an officer, who was checked."""
        self.officers[officer] = owner
        for name in lists:
            _count(self.listed, (name, owner), 1)

    def remove(self, owner: str, officer: str, lists: Iterable[str]) -> None:
        """Takes an officer away."""
        del self.officers[officer]
        for name in lists:
            _count(self.listed, (name, owner), -1)


def _count(counter: Counter[tuple[str, str]], key: tuple[str, str], by: int) -> None:
    counter[key] += by
    if not counter[key]:
        del counter[key]


def _finding(guard: str, owner: str, about: str, message: str) -> Finding:
    return Finding(guard, f"{owner}/{AGENCY_FILE}", about, message)


def _officer(guard: str, owner: str, officer: str, message: str) -> Finding:
    return Finding(guard, f"{owner}/{OFFICERS_FILE}", f"officers.{officer}", message)
