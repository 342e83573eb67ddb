"""One state of the rules: what a request is decided by, from its beginning to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from directive.book import Book
from directive.evaluate import Evaluator
from directive.holdings import Holdings, World
from shared.registry import Registry


@dataclass(frozen=True)
class Applied:
    """Directives and registry, and what applies them. Replaced as a whole, never changed."""

    book: Book
    evaluator: Evaluator
    registry: Registry
    holdings: Holdings | None = None
    """What the ledger holds; None when directives are files."""

    @property
    def documents_index(self) -> int | None:
        """The newest document in it; None when directives are files, or none is published."""
        return None if self.holdings is None else self.holdings.head


Current: TypeAlias = Callable[[], Applied]
"""Gives the state by which to decide now; raises Unavailable when it may be out of date."""


def made(holdings: Holdings, world: World, registry: Registry) -> Applied:
    """The state that these documents make; raises DirectiveRefused, EntitiesError, EngineUntrustworthy."""
    book = holdings.book(world.vocabulary)
    return Applied(book, Evaluator(book, registry), registry, holdings)
