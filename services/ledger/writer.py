"""What the rest of the ledger asks of whoever holds the newest tree, the writer or one that follows it."""

from collections.abc import Sequence
from typing import Protocol

from ledger.entry import CompletedEntry
from ledger.sequencer import Placed
from ledger.tree import Published


class Writer(Protocol):
    """The sequencer, or a standby."""

    @property
    def published(self) -> Published:
        """The newest tree that is durable and signed."""

    async def grown(self, size: int) -> Published:
        """Wait until the tree is larger than `size`."""

    async def append(self, entries: Sequence[CompletedEntry]) -> list[Placed]:
        """Make entries durable together; see `Sequencer.append`."""
