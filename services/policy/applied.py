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


def made(
    holdings: Holdings, world: World, registry: Registry, last: Applied | None = None
) -> Applied:
    """The state that these documents make; raises DirectiveRefused, EntitiesError, EngineUntrustworthy.

    After `last`, of the same vocabulary, directives that are still the same are not made anew: an officer's
    suspension would wait for all of them.
    """
    if last is not None and last.holdings is not None and last.holdings.held is holdings.held:
        return Applied(last.book, last.evaluator.over(registry), registry, holdings)
    book = holdings.book(world.vocabulary)
    return Applied(book, Evaluator(book, registry), registry, holdings)
