"""What directives, vocabulary and registry were in force when something was decided.

Invariant: what a reader was not given of officers is never guessed. One thing is taken from the record: that
an officer is not another agency's too, for a decision says when its officer is unknown, or another's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Decision
from directive import holdings
from directive.book import Book, load_book
from directive.document import Document
from directive.entities import known_names
from directive.guards import KnownNames
from directive.holdings import Holdings
from directive.policy_set import policy_set_sha256
from directive.projection import facts_read
from directive.question import Fault
from directive.recorded import RecordedSearch
from directive.vocabulary import Vocabulary
from shared.registry import Registry


@dataclass(frozen=True)
class Stood:
    """What owners had registered by some document."""

    registry: Registry
    unopened: Mapping[str, int] = field(default_factory=dict)
    """Agencies with officers of whom the reader was given no opening, and how many."""
    registered: bool = False
    """Whether any registration counted."""


@dataclass(frozen=True, eq=False)
class World:
    """What a decision was made by. The same for all decisions of one world."""

    book: Book
    registry: Registry
    documents_index: int | None = None
    """The newest document of the ledger in it; None when nobody knows, or directives are files."""
    unopened: Mapping[str, int] = field(default_factory=dict)
    """Agencies with officers of whom nothing is known here, and how many."""

    @property
    def names(self) -> KnownNames:
        """What rules may name."""
        return known_names(self.registry, officers_known=not self.unopened)

    def untold(self, search: RecordedSearch) -> str:
        """Why nobody can say here how the officer of a search stood; empty when that can be said."""
        if not self.unopened:
            return ""
        origin = search.said.origin_agency
        if search.officer in self.registry.officers:
            # Registered twice, and by somebody who is not known here, an officer is unknown.
            doubt = _says(search, Fault.UNKNOWN_OFFICER)
        else:
            foreign = _says(search, Fault.OFFICER_OF_ANOTHER_AGENCY)
            doubt = foreign or origin in self.unopened
        if not doubt:
            return ""
        of = origin if origin in self.unopened else "other agencies"
        return f"how its officer stood is not known here: not all registrations of {of} were opened"

    @cached_property
    def facts(self) -> frozenset[str]:
        """The facts of the vocabulary that some directive reads."""
        return frozenset(fact for one in self.book.projections for fact in one.facts)


class Worlds(Protocol):
    """Finds what a decision was made by."""

    def of(self, decision: Decision) -> World:
        """The world in which it was decided; raises NoSuchWorld when it is not known here."""

    @property
    def newest(self) -> World:
        """The world of today, by which a proposal is judged."""

    @property
    def facts(self) -> frozenset[str]:
        """The facts of the vocabulary that some directive of some world reads."""

    def received(self, text: Document) -> datetime | None:
        """When the ledger took this text; None when it is not on record."""


@dataclass(frozen=True)
class OneWorld:
    """Folders of which nobody knows since when they are as they are: for every decision the same.

    Whether a decision was made by them is told from what it says of them.
    """

    world: World

    def of(self, decision: Decision) -> World:
        """The folders."""
        return self.world

    @property
    def newest(self) -> World:
        """The folders."""
        return self.world

    @property
    def facts(self) -> frozenset[str]:
        """Of the folders."""
        return self.world.facts

    def received(self, text: Document) -> datetime | None:
        """Nobody knows of a folder."""
        return None


class NoSuchWorld(Exception):
    """What a decision was made by is not known here; the message says why."""


class HeldWorlds:
    """What the ledger holds, as it was after each of its documents."""

    def __init__(
        self,
        documents: Iterable[tuple[int, Entry]],
        against: holdings.World,
        registry: Registry,
        files: Worlds | None = None,
        stood: Callable[[int], Stood] | None = None,
    ) -> None:
        """`files` for decisions of before directives were in the ledger. Raises DirectiveRefused.

        Where owners registered, `stood` gives the registry after a document, `registry` is that of before.
        """
        self._registry = registry
        self._stood = stood
        self._vocabulary = against.vocabulary
        self._files = files
        self._held: dict[int, Holdings] = {}
        # What a text names was there when it was taken in. It may be gone from the registry since.
        against = replace(against, known=None)
        now = Holdings()
        for index, entry in documents:
            now = holdings.apply(now, index, entry, against)
            self._held[index] = now
        self._worlds: dict[int, World] = {}
        self._by_file: dict[int, World] = {}
        """With the file, while nothing was registered."""
        self._books: dict[int, Book] = {}
        """By what was held: most documents change the registry and no directive."""

    def of(self, decision: Decision) -> World:
        """What the ledger held when it was decided; raises NoSuchWorld, or DirectiveRefused."""
        if not decision.HasField("documents_index"):
            if self._files is None:
                raise NoSuchWorld("it was decided by directives that were files: name their folder")
            return self._files.of(decision)
        index = decision.documents_index
        world = self._after(index)
        by_file = self._by_file.get(index)
        if by_file is None:
            return world
        # The file counted still, or nothing did any more: the decision says which.
        digest = policy_set_sha256(
            self._vocabulary, world.registry, decision.engine, decision.verdicts
        )
        return world if decision.policy_set_sha256 == digest else by_file

    def _after(self, index: int) -> World:
        held = self._held.get(index)
        if held is None:
            raise NoSuchWorld(f"entry {index} is no document that is known here")
        if index not in self._worlds:
            # Held as long as we live, so its identity is never another's.
            same = id(held.held)
            if same not in self._books:
                self._books[same] = held.book(self._vocabulary)
            world = self._worlds[index] = World(self._books[same], self._registry, index)
            if self._stood is not None:
                stood = self._stood(index)
                known = replace(world, registry=stood.registry, unopened=stood.unopened)
                self._worlds[index] = known
                if not stood.registered:
                    self._by_file[index] = world
        return self._worlds[index]

    @property
    def newest(self) -> World:
        """After the last document; raises NoSuchWorld when there is none."""
        if not self._held:
            if self._files is None:
                raise NoSuchWorld("the ledger holds no directive")
            return self._files.newest
        index = max(self._held)
        world = self._after(index)
        return self._by_file.get(index, world)

    def received(self, text: Document) -> datetime | None:
        """When the ledger took this text; None when it is not on record."""
        held = self._held[max(self._held)].held.get(text.name) if self._held else None
        return held.received if held is not None and held.document.sha256 == text.sha256 else None

    @property
    def facts(self) -> frozenset[str]:
        """Of all directives that the ledger ever held."""
        facts = self._files.facts if self._files is not None else frozenset()
        held = self._held[max(self._held)].held.values() if self._held else ()
        rules = [rule for one in held for rule in one.directive.rules]
        return facts | facts_read(rules, self._vocabulary.facts)


def _says(search: RecordedSearch, fault: Fault) -> bool:
    # Most do not, and bytes are looked through in no time.
    return fault.encode() in search.content and any(
        fault in said.faults for said in search.decision.verdicts if not said.asked_at
    )


def folders(directives: Path, vocabulary: Vocabulary, registry: Registry) -> OneWorld:
    """The world of a folder of directives; raises BookError."""
    return OneWorld(World(load_book(directives, vocabulary, registry), registry))
