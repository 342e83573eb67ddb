"""Receipts with witnesses: the best that there is, and what it lacks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.archive import Archive, Receipt
from ledger.cosigned import CosignedNote
from ledger.tree import Published
from ledger.witnessing import Witnessing

WAITS_MAX: Final = 128
"""Appends that wait for witnesses at once: far fewer than may be under way, so that witnesses that are
away never hold up the appends of others."""

NO_WITNESSES: Final = "this ledger is configured with no witnesses"
ASK_THE_WRITER: Final = "this replica does not know what witnesses have cosigned; ask the writer"


@dataclass(frozen=True)
class Best:
    """Receipts against one checkpoint, and who cosigned it."""

    receipts: list[Receipt]
    size: int
    cosigned: dict[str, int]
    lacking: str
    """What the quorum lacks; empty when it is there."""


class WitnessedReceipts:
    """Finds the best checkpoint for entries, waiting for it if asked to."""

    def __init__(
        self, archive: Archive, witnessing: Witnessing | None, without: str = NO_WITNESSES
    ) -> None:
        """`without` is what receipts lack where there is nobody who asks witnesses."""
        self._archive = archive
        self._witnessing = witnessing
        self._without = without
        self._waits = asyncio.Semaphore(WAITS_MAX)

    async def best(self, indexes: Sequence[int], published: Published, wait_s: float) -> Best:
        """Give receipts of entries of the published tree; `wait_s` 0 does not wait."""
        last = max(indexes)
        # What is not on record yet is told so at once: it may never come.
        note = await self._note(last + 1, published, wait_s if last < published.size else 0)
        receipts = await self._archive.receipts_under(indexes, note.checkpoint, note.note)
        return Best(receipts, note.size, note.cosigned, note.lacking)

    async def _note(self, size: int, published: Published, wait_s: float) -> CosignedNote:
        witnessing = self._witnessing
        if witnessing is None:
            return CosignedNote(published.note, published.checkpoint, {}, self._without)
        if wait_s > 0 and not self._waits.locked():
            async with self._waits:
                await witnessing.wait_for(size, wait_s)
        if witnessing.cosigned is not None and witnessing.cosigned.size >= size:
            return witnessing.cosigned
        gathered = witnessing.gathered
        if gathered is not None and gathered.size >= size:
            return gathered
        lacking = witnessing.policy.shortfall(())
        return CosignedNote(published.note, published.checkpoint, {}, lacking)
