"""What the ledger's documents come to: directives and, where it is not a file, the registry.

Whoever applies the same documents in the same order has the same. A directive that cannot be applied is an
error: what it forbids must not be passed over. A registration that does not pass counts for nobody, as every
follower finds alike, and what was registered before stays.
"""

import logging
from collections.abc import Mapping
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from directive import guards, holdings
from directive.entities import known_names
from directive.holdings import Holdings, World
from directive.signature import Signers
from directive.vocabulary import Vocabulary
from policy.applied import Applied, made
from registry.findings import RegistryRefused
from registry.folding import Fold
from shared.registry import Registry
from tlog.note import Verifier

log = logging.getLogger(__name__)

REGISTRATIONS: Final = frozenset({"registry_published", "officers_published"})


class Documents:
    """Directives and registry, document after document."""

    def __init__(
        self, vocabulary: Vocabulary, signers: Signers | None, registry: Registry | Fold
    ) -> None:
        """`registry` is the one of a file, or an empty fold for one that owners publish."""
        self._vocabulary = vocabulary
        self._signers = signers
        self._registry = registry
        self._world: World | None = None
        self._made: Applied | None = None
        self.holdings = Holdings()

    @property
    def fold(self) -> Fold | None:
        """What owners published; None when the registry is a file."""
        return self._registry if isinstance(self._registry, Fold) else None

    @property
    def registry(self) -> Registry:
        """As of now; it stays as it is when more is applied."""
        return self._registry.registry if isinstance(self._registry, Fold) else self._registry

    @property
    def world(self) -> World:
        """What a directive is read against now."""
        if self._world is None:
            known = known_names(self.registry)
            self._world = World(self._vocabulary, known, self._signers_now())
        return self._world

    def _signers_now(self) -> Signers | None:
        """The keys of the trust roots, and those that owners registered since."""
        if self._signers is None or self.fold is None:
            return self._signers
        by_party: dict[str, tuple[Verifier, ...]] = dict(self._signers.by_party)
        for owner, published in self.fold.owners.items():
            registered = map(Verifier.parse, published.public.keys.directives)
            by_party[owner] = (*by_party.get(owner, ()), *registered)
        return Signers(by_party)

    def copy(self) -> "Documents":
        """The same, to try something on."""
        fold = self.fold
        tried = Documents(
            self._vocabulary, self._signers, self._registry if fold is None else fold.copy()
        )
        tried.holdings, tried._world, tried._made = self.holdings, self._world, self._made
        return tried

    def apply(self, index: int, entry: Entry, openings: Mapping[str, str]) -> None:
        """Apply a document; raises DirectiveRefused, and RegistryRefused.

        In the second case a registration does not count; the document is passed, and the next may follow.
        """
        self.holdings = holdings.apply(self.holdings, index, entry, self.world)
        if self.fold is not None and entry.WhichOneof("event") in REGISTRATIONS:
            changed = self.fold.apply(entry, openings)
            if changed is not None:
                self._world = None

    def follow(self, index: int, entry: Entry, openings: Mapping[str, str]) -> None:
        """Apply a document that is on record; raises DirectiveRefused."""
        try:
            self.apply(index, entry, openings)
        except RegistryRefused as refused:
            fields = {"index": index, "why": str(refused)}
            log.warning("a registration does not count", extra={"fields": fields})

    def is_under_way(self, owner: str) -> bool:
        """Whether an owner's publication has begun and is not complete."""
        return self.fold is not None and self.fold.is_under_way(owner)

    def check_directives(self) -> None:
        """Raise DirectiveRefused when a directive names what the registry no longer has."""
        for held in self.holdings.held.values():
            guards.check(held.document, self._vocabulary, self.world.known)

    def made(self) -> Applied:
        """What to decide by; raises DirectiveRefused, EntitiesError, EngineUntrustworthy."""
        self._made = made(self.holdings, self.world, self.registry, self._made)
        return self._made
