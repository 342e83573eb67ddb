"""What directives, vocabulary and registry were in force when something was decided."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from countersign.type.v1.decision_pb2 import Decision
from directive.book import Book, load_book
from directive.vocabulary import Vocabulary
from shared.registry import Registry


@dataclass(frozen=True, eq=False)
class World:
    """What a decision was made by. The same for all decisions of one world."""

    book: Book
    registry: Registry

    @cached_property
    def facts(self) -> frozenset[str]:
        """The facts of the vocabulary that some directive reads."""
        return frozenset(fact for one in self.book.projections for fact in one.facts)


class Worlds(Protocol):
    """Finds what a decision was made by."""

    def of(self, decision: Decision) -> World:
        """The world in which it was decided, as far as it is known here."""

    @property
    def newest(self) -> World:
        """The world of today, by which a proposal is judged."""

    @property
    def facts(self) -> frozenset[str]:
        """The facts of the vocabulary that some directive of some world reads."""


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


def folders(directives: Path, vocabulary: Vocabulary, registry: Registry) -> OneWorld:
    """The world of a folder of directives; raises BookError."""
    return OneWorld(World(load_book(directives, vocabulary, registry), registry))
