"""Archives that fail."""

from collections.abc import Callable

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.archive import Receipt
from shared.errors import Unavailable


class ArchiveThatLeavesOneOut:
    """Gives a second document, and never the first. `silent` for one that cannot be read."""

    def __init__(self) -> None:
        self.silent = False
        self.asked = 0

    async def chain(
        self, key_after: Callable[[int | None], str], after: int | None, count_max: int
    ) -> list[Receipt]:
        """One document, which follows another."""
        assert key_after(after)
        assert count_max
        self.asked += 1
        if self.silent:
            raise Unavailable("LEDGER_UNREADABLE", "the disk does not answer")
        entry = Entry(previous_document=3)
        entry.registry_published.SetInParent()
        return [Receipt(7, entry.SerializeToString(), "")]
