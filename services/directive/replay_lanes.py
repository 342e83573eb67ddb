"""Where searches of the past are decided again: each kind of world by itself, with the proposal and without.

Invariants:
- Worlds share what was found where they have the same directives and differ in officers alone: what rules say
  of an officer follows from how that one stands.
- They share nothing where a rule names an officer: it may look at that one, whoever asks.
"""

import dataclasses
from collections.abc import Hashable, Iterable

from directive.book import Book, Directive
from directive.entities import but_officers
from directive.entities_asked import officers_named
from directive.evaluate import Evaluator
from directive.policy_set import Digests
from directive.proposed import AsOf, proposed_book
from directive.recorded import RecordedSearch
from directive.replay_likeness import Alike
from directive.sieve import Sieve
from directive.worlds import World


@dataclasses.dataclass(slots=True)
class Known:
    """What became of a search."""

    kind: int
    other_engine: str
    """Which engine decided it alike; empty when it was this one."""
    confirmed: bool = False
    """Whether the engine was asked, and said so."""


class Lanes:
    """Worlds that differ in officers alone, with and without the proposal: what sifts, and the engine."""

    def __init__(self, world: World, proposal: Directive, sieve: type[Sieve], as_of: AsOf) -> None:
        self.world = world
        new, self.replaced = proposed_book(world.book, proposal, as_of)
        self.new = new
        self.sieve = sieve(world.book, world.registry)
        self.sieve_new = sieve(new, world.registry)
        self.engine_new = Evaluator(new, world.registry)
        self.alike = Alike([(world.book, self.sieve), (new, self.sieve_new)], world.registry)
        self.known: dict[Hashable, Known] = {}
        """What became of searches that are alike, and were decided alike."""
        self.asked_anew = Evaluator(world.book, world.registry, keep=False)
        self.asked_anew_new = Evaluator(new, world.registry, keep=False)
        self._digests = Digests(world.book.vocabulary, world.registry)

    def to(self, world: World) -> None:
        """From now on by another of them. Searches follow each other in time, so that is seldom."""
        registry = world.registry
        if registry is not self.world.registry:
            self.sieve, self.sieve_new = self.sieve.over(registry), self.sieve_new.over(registry)
            self.engine_new = self.engine_new.over(registry)
            self.asked_anew = self.asked_anew.over(registry)
            self.asked_anew_new = self.asked_anew_new.over(registry)
            self.alike.over(registry)
            self._digests.over(registry)
        self.world = world

    def is_digest_right(self, search: RecordedSearch) -> bool:
        """Whether it was decided by this world, as far as its verdicts say which directives were applied."""
        said = search.decision
        digest = self._digests.of(search.content, said.engine, said.verdicts)
        return said.policy_set_sha256 == digest


class AllLanes:
    """Finds the lanes of a world; raises what an Evaluator and a Book raise."""

    def __init__(self, proposal: Directive, sieve: type[Sieve], as_of: AsOf) -> None:
        self._proposal = proposal
        self._sieve = sieve
        self._as_of = as_of
        self._lanes: dict[Hashable, Lanes] = {}
        self._last: Lanes | None = None
        self._apart: dict[int, bool] = {}
        """Directives of which some rule names an officer."""

    @property
    def made(self) -> Iterable[Lanes]:
        """All of them."""
        return self._lanes.values()

    def of(self, world: World) -> Lanes:
        """Where searches of this world are decided again."""
        if self._last is not None and self._last.world is world:
            return self._last
        # Most worlds differ only in officers, or in a document that changed no directive.
        others = id(world.registry) if self._is_apart(world.book) else but_officers(world.registry)
        same = id(world.book), others
        lanes = self._lanes.get(same)
        if lanes is None:
            lanes = self._lanes[same] = Lanes(world, self._proposal, self._sieve, self._as_of)
        lanes.to(world)
        self._last = lanes
        return lanes

    def _is_apart(self, book: Book) -> bool:
        apart = self._apart.get(id(book))
        if apart is None:
            rules = [
                rule for one in (*book.directives.values(), self._proposal) for rule in one.rules
            ]
            apart = self._apart[id(book)] = bool(officers_named(rules))
        return apart
