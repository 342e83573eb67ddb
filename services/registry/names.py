"""Whose name is whose: who may use which, and which are still in use.

Invariants:
- A name belongs to the owner that published it first, for as long as that owner has it.
- Whatever is named is there: a gallery's system has an operator. What others still use is not taken away.
- All of it is public: who has published what counts, whatever is opened or was destroyed.
- An agency does not leave its jurisdiction, whose statutes bind it, by saying so.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from directive.findings import Finding
from registry.document import AGENCY_FILE, OFFICERS_FILE, PublicPart
from shared.registry import RegistryError
from shared.tokens import check_usable

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
    held: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many galleries of an owner are in a system, by system and owner."""
    expelled: set[str] = field(default_factory=set)
    """Owners whose word counts for nothing. Their names stay theirs: nobody steps into their place unseen."""

    def copy(self) -> "Names":
        """The same; what is changed in one is not in the other."""
        return Names(
            dict(self.publics),
            dict(self.owners),
            Counter(self.held),
            set(self.expelled),
        )

    def check_public(self, public: PublicPart) -> Iterator[Finding]:
        """What is wrong with an owner's new public part beside what the others have."""
        owner = public.owner
        for section in OWNED:
            for name in names_in(public, section):
                holder = self.owners.get((section, name), owner)
                if holder != owner:
                    yield agency_finding(
                        "NAME_TAKEN", owner, f"{section}.{name}", f"belongs to {holder}"
                    )
        for name, gallery in public.galleries.items():
            operator = self.owners.get(("systems", gallery.system), owner)
            # The owner's own systems are those of its new public part.
            if gallery.system not in public.systems and operator == owner:
                message = f"nobody operates its system {gallery.system!r}"
                yield agency_finding("SYSTEM_UNKNOWN", owner, f"galleries.{name}", message)
        before = self.publics.get(owner)
        if before is None:
            return
        if before.agency and public.agency:
            old, new = before.agency.jurisdiction, public.agency.jurisdiction
            if old != new:
                message = f"was {old}: an agency does not leave its jurisdiction by saying so"
                yield agency_finding("JURISDICTION_CHANGED", owner, "agency.jurisdiction", message)
        yield from self._still_used(before, public)

    def _still_used(self, before: PublicPart, public: PublicPart) -> Iterator[Finding]:
        owner = public.owner
        for (system, other), galleries in self.held.items():
            if galleries and other != owner and system in before.systems.keys() - public.systems:
                message = f"still holds galleries of {other}"
                yield agency_finding("SYSTEM_IN_USE", owner, f"systems.{system}", message)

    def check_lists(
        self, public: PublicPart, officer: str, lists: Iterable[str]
    ) -> Iterator[Finding]:
        """Lists on which an agency may not enter an officer."""
        owner = public.owner
        for name in lists:
            if name in public.lists:
                continue
            keeper = self.owners.get(("lists", name))
            # The owner's own lists are those of its new public part.
            if keeper is None or keeper == owner:
                message = f"nobody keeps the list {name!r}"
                yield officer_finding("LIST_UNKNOWN", owner, officer, message)
            elif not self.lets_enter(name, owner):
                message = (
                    f"{keeper} keeps the list {name!r}, and does not let {owner} enter officers"
                )
                yield officer_finding("LIST_OF_OTHERS", owner, officer, message)

    def lets_enter(self, name: str, agency: str) -> bool:
        """Whether somebody keeps a list, and lets an agency enter its officers."""
        keeper = self.owners.get(("lists", name))
        if keeper is None or keeper in self.expelled:
            return False
        return keeper == agency or agency in self.publics[keeper].lists[name].entered_by

    def replace(self, public: PublicPart) -> None:
        """Takes an owner's new public part, which was checked."""
        owner, before = public.owner, self.publics.get(public.owner)
        for section in OWNED:
            for name in names_in(before, section) if before else ():
                del self.owners[section, name]
            for name in names_in(public, section):
                self.owners[section, name] = owner
        for gallery in before.galleries.values() if before else ():
            count(self.held, (gallery.system, owner), -1)
        for gallery in public.galleries.values():
            count(self.held, (gallery.system, owner), 1)
        self.publics[owner] = public


def check_provider(public: PublicPart) -> Iterator[Finding]:
    """Whether its identity provider can vouch for anybody: else all its searches would be refused.

    Asked before it is put on record. It does not keep a publication from counting: which keys are usable
    may differ from one release to another.
    """
    provider = public.keys.identity_provider
    if provider is None:
        return
    try:
        check_usable(public.owner, provider)
    except RegistryError as error:
        yield agency_finding(
            "PROVIDER_UNUSABLE", public.owner, "keys.identity_provider", str(error)
        )


def lists_changed(before: PublicPart | None, public: PublicPart) -> frozenset[str]:
    """Lists that came, went, or that others may enter their officers on than before."""
    old, new = before.lists if before else {}, public.lists
    return frozenset(
        name
        for name in old.keys() | new.keys()
        if name not in old or name not in new or old[name].entered_by != new[name].entered_by
    )


def count(counter: Counter[tuple[str, str]], key: tuple[str, str], by: int) -> None:
    """Counts up or down; what has come to nothing is left out."""
    counter[key] += by
    if not counter[key]:
        del counter[key]


def agency_finding(guard: str, owner: str, about: str, message: str) -> Finding:
    """What is wrong in an owner's public part."""
    return Finding(guard, f"{owner}/{AGENCY_FILE}", about, message)


def officer_finding(guard: str, owner: str, officer: str, message: str) -> Finding:
    """What is wrong with what an agency says of an officer."""
    return Finding(guard, f"{owner}/{OFFICERS_FILE}", f"officers.{officer}", message)
