"""The registry as anybody can work it out from public entries: everything but who the officers are.

For who follows the documents without being shown an opening. Which publications count is the same for
everybody (`registry.folding`), and so are the agencies, systems, galleries and keys that come of them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from registry.findings import RegistryRefused, refused
from registry.folding import Fold
from registry.orders import OrderNotProved
from shared.kinds import DOCUMENTS, REGISTRY, kind_name, kind_number
from shared.registry import IdentityProvider, Registry, TrustRoots

log = logging.getLogger(__name__)

SUBJECT: Final = "ledger.list_public_documents"
"""Where the ledger tells of documents without an opening."""

_LEDGER: Final = "ledger"


@dataclass(frozen=True)
class PublicRegistry:
    """What counts of what owners registered. Replaced as a whole, never changed."""

    registry: Registry
    """Without officers."""
    providers: Mapping[str, IdentityProvider]
    """Who vouches for each agency's officers: as it registered, or, while it has not, by the trust roots."""
    head: int | None
    """The newest document in it."""


class PublicDocuments:
    """Registrations among the documents; directives are for others to apply."""

    def __init__(self, trust: TrustRoots, origin: str) -> None:
        """Of the log of this origin. Raises TlogError for a key that cannot be read."""
        self._trusted = trust.identity_providers
        self._fold = Fold(trust.registry_signers, origin, trust.registrars)
        self._head: int | None = None

    @property
    def head(self) -> int | None:
        """Index of the last document; None before the first."""
        return self._head

    @property
    def fold(self) -> Fold:
        """What counts of each owner. To be read only."""
        return self._fold

    def follow(self, index: int, entry: Entry, openings: Mapping[str, str]) -> None:
        """Apply a document that is on record; raises RegistryRefused where something is left out or new.

        Also for an order of registrars who are not known here: it may say who counts no more.
        """
        before = entry.previous_document if entry.HasField("previous_document") else None
        if before != self._head:
            message = f"entry {index} follows document {before}, and the last known is {self._head}"
            raise refused("CHAIN_BROKEN", _LEDGER, message)
        if kind_number(entry) not in DOCUMENTS:
            # It may say who counts no more.
            message = (
                f"entry {index} is a document that this program does not know: {kind_name(entry)}"
            )
            raise refused("DOCUMENT_UNKNOWN", _LEDGER, message)
        if entry.WhichOneof("event") in REGISTRY:
            self._fold_in(index, entry)
        self._head = index

    def _fold_in(self, index: int, entry: Entry) -> None:
        try:
            self._fold.follow(entry, {})  # whatever was told: who the officers are is not for here
        except OrderNotProved:
            raise
        except RegistryRefused as error:
            said = {"index": index, "guards": sorted({one.guard for one in error.findings})}
            log.warning("a registration does not count", extra={"fields": said})

    def made(self) -> PublicRegistry:
        """What they come to now."""
        providers = dict(self._trusted)
        for owner, published in self._fold.owners.items():
            if not published.has_registered("identity_provider"):
                continue
            # One that was taken out leaves none: the trust roots' may be the one that was retired.
            providers.pop(owner, None)
            if published.public.keys.identity_provider is not None:
                providers[owner] = published.public.keys.identity_provider
        for owner in self._fold.expelled:
            providers.pop(owner, None)
        return PublicRegistry(self._fold.registry, providers, self._head)
