"""What the ledger's documents come to: directives and, where it is not a file, the registry.

Whoever applies the same documents in the same order has the same. A directive that cannot be applied is an
error: what it forbids must not be passed over. A registration that does not pass counts for nobody, as every
follower finds alike, and what was registered before stays.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Final, TypeAlias

from countersign.ledger.v1.entry_pb2 import Entry
from directive import guards, holdings
from directive.entities import EntitiesError, known_names
from directive.findings import DirectiveRefused
from directive.guards import KnownNames
from directive.holdings import Holdings, World
from directive.self_test import EngineUntrustworthy
from directive.signature import Signers
from directive.vocabulary import Vocabulary
from policy.applied import Applied, made
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.orders import OrderNotProved
from registry.published import Applied as Changed
from shared import following
from shared.kinds import REGISTRY
from shared.registry import Registry
from tlog.note import Verifier

log = logging.getLogger(__name__)


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
    def head(self) -> int | None:
        """Index of the last document; None before the first."""
        return self.holdings.head

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
            # From the first that it registered on: a key of the trust roots that was retired signs nothing,
            # also not once the owner has taken out its own.
            if published.has_registered("directives"):
                by_party[owner] = tuple(map(Verifier.parse, published.public.keys.directives))
        # Somebody else may hold these: until the owner publishes anew, nobody signs for it.
        by_party |= dict.fromkeys(self.fold.silenced, ())
        return replace(self._signers, by_party=by_party)

    def copy(self) -> "Documents":
        """The same, to try something on."""
        fold = self.fold
        tried = Documents(
            self._vocabulary, self._signers, self._registry if fold is None else fold.copy()
        )
        tried.holdings, tried._world, tried._made = self.holdings, self._world, self._made
        return tried

    def apply(self, index: int, entry: Entry, openings: Mapping[str, str]) -> Changed | None:
        """Try a document; raises DirectiveRefused, and RegistryRefused. Gives what a registration changed."""
        held = holdings.apply(self.holdings, index, entry, self.world)
        changed = self._folded(entry, openings, on_record=False)
        self.holdings = held
        return changed

    def follow(self, index: int, entry: Entry, openings: Mapping[str, str]) -> None:
        """Apply a document that is on record; raises DirectiveRefused, and OrderNotProved.

        What it names was there when it was taken in. It may be gone since (an officer who left), and that
        must not keep the others from being applied.
        """
        held = holdings.apply(self.holdings, index, entry, replace(self.world, known=None))
        try:
            changed = self._folded(entry, openings, on_record=True)
            if changed is not None and changed.doubtful:
                # Nobody's name. It was not tried, or by somebody who could not see an opening.
                fields = {"index": index, "owner": changed.owner, "officers": changed.doubtful}
                log.warning("officers are in doubt and unknown", extra={"fields": fields})
        except OrderNotProved:
            raise
        except RegistryRefused as refused:
            guards_said = sorted({finding.guard for finding in refused.findings})
            said = {"index": index, "guards": guards_said}
            log.warning("a registration does not count", extra={"fields": said})
        self.holdings = held

    def _folded(
        self, entry: Entry, openings: Mapping[str, str], *, on_record: bool
    ) -> Changed | None:
        if self.fold is None or entry.WhichOneof("event") not in REGISTRY:
            return None
        step = self.fold.follow if on_record else self.fold.apply
        changed = step(entry, openings)
        if changed is not None:
            self._world = None
        return changed

    def is_under_way(self, owner: str) -> bool:
        """Whether an owner's publication has begun and is not complete."""
        return self.fold is not None and self.fold.is_under_way(owner)

    def check_directives(self, before: KnownNames, today: date) -> None:
        """Raise DirectiveRefused when a directive that is not over names what was there before and is gone.

        Officers and courses may go: whoever is unknown, or holds no certificate, is refused anyway.
        """
        now = self.world.known
        assert now is not None, "what is tried is read with the names that are known"
        if all(before.members[kind] <= names for kind, names in now.members.items()):
            return
        known = KnownNames(
            now.members, {**before.officers, **now.officers}, before.courses | now.courses
        )
        for held in self.holdings.held.values():
            ends = held.directive.ends
            if ends is None or ends > today:
                guards.check(held.document, self._vocabulary, known)

    def made(self) -> Applied:
        """What to decide by; raises DirectiveRefused, EntitiesError, EngineUntrustworthy."""
        self._made = made(self.holdings, self.world, self.registry, self._made)
        return self._made


Following: TypeAlias = following.Following[Documents, Applied]
READER: Final = following.Reader[Documents, Applied](
    subject="ledger.list_documents",
    stale="DIRECTIVES_STALE",
    make=Documents.made,
    refusals=(DirectiveRefused, OrderNotProved, EntitiesError, EngineUntrustworthy),
)
