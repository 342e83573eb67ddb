"""Who takes part, as this ledger's own entries have it: what owners published.

Invariants:
- Who was told that a registration is on record is judged by it: it is applied before its publisher hears.
- What cannot be applied lets nobody read an opening until a release that can: it may take a right away.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.archive import Archive
from registry.public import PublicDocuments
from shared.errors import NotReady, ServiceError, Unavailable
from shared.registry import Registry
from shared.tokens import OfficerTokens

log = logging.getLogger(__name__)

PAGE_DOCUMENTS_MAX: Final = 256
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 30.0


@dataclass(frozen=True)
class Known:
    """One state of it. Replaced as a whole, never changed."""

    registry: Registry
    """Of published documents, without officers: who they are is for the policy service."""
    tokens: OfficerTokens | None
    """None when no identity provider of an agency is known."""


class OwnRegistry:
    """Follows the documents of the ledger whose writer this process is."""

    def __init__(
        self,
        documents: PublicDocuments,
        tokens: OfficerTokens,
        archive: Archive,
        key_after: Callable[[int | None], str],
        retry_first_s: float = RETRY_FIRST_S,
    ) -> None:
        """`documents` without any, and `tokens` of the trust roots."""
        self._retry_first_s = retry_first_s
        self._unread = asyncio.Event()
        self._documents = documents
        self._tokens = tokens
        self._archive = archive
        self._key_after = key_after
        self._busy = asyncio.Lock()
        self._known: Known | None = None
        self._failed = False

    def current(self) -> Known:
        """What counts now. Raises Unavailable while it is being read, and NotReady when it cannot be told."""
        if self._failed:
            raise NotReady(
                "REGISTRY_NOT_APPLIED",
                "a document on record cannot be applied: who may read openings is not known",
            )
        if self._known is None:
            raise Unavailable("REGISTRY_STALE", "what is registered is being read", retry_after_s=1)
        return self._known

    async def keep_read(self) -> None:
        """Read at once and after each failure, until cancelled: the next document may be weeks away."""
        await self.catch_up()
        pause_s = self._retry_first_s
        while True:
            await self._unread.wait()
            await asyncio.sleep(pause_s)
            await self.catch_up()
            pause_s = (
                min(2 * pause_s, RETRY_MAX_S) if self._unread.is_set() else self._retry_first_s
            )

    async def catch_up(self) -> None:
        """Apply what is on record by now. Raises nothing: `current` says what has come of it."""
        async with self._busy:
            try:
                await self._apply_new()
                self._unread.clear()
            except ServiceError as error:
                # Not read, so not known until `keep_read`, or the next document, has read it.
                self._known = None
                self._unread.set()
                log.warning("the registry was not read", extra={"fields": {"why": error.reason}})
            except Exception:
                log.exception("a document cannot be applied; nobody reads openings")
                self._failed = True
                self._unread.clear()

    async def _apply_new(self) -> None:
        before = self._documents.head
        while not self._failed:
            head = self._documents.head
            found = await self._archive.chain(self._key_after, head, PAGE_DOCUMENTS_MAX)
            if not found:
                break
            for one in found:
                self._documents.follow(one.index, Entry.FromString(one.leaf), {})
        if self._known is None or self._documents.head != before:
            made = self._documents.made()
            self._tokens = self._tokens.with_registered(made.registry, made.providers)
            self._known = Known(made.registry, self._tokens)
