"""What the ledger asks of the store that keeps it, whichever engine that is.

Invariants that every engine keeps:
- one transaction holds a batch's entries, openings, index rows, full tiles and the new head, so that
  a crash leaves all of it or none of it;
- one writer at a time: two would be two histories;
- entries and tiles are only ever inserted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ledger.entry import CompletedEntry
from ledger.last_signed import LastSigned
from ledger.reading import Head, Reading, StorageFailed
from tlog.tiles import FullTile

__all__ = ["Database", "Head", "Storage", "StorageFailed", "StorageInDoubt"]


class StorageInDoubt(StorageFailed):
    """The batch may be kept or not, or another writes: this writer must write nothing more."""


class Storage(Protocol):
    """The writer's hand on the store. Used by one thread at a time.

    Every method raises StorageFailed when the store fails, and StorageInDoubt as said above.
    """

    def close(self) -> None:
        """Give up the store, for another writer to take."""

    def head(self) -> Head:
        """Read the head."""

    def reading(self) -> Reading:
        """Give a reader on the writer's own connection, which sees the batch under way.

        It is the writer's and closes with it.
        """

    def open_reading(self) -> Reading:
        """Open a reader of its own, which sees what is committed."""

    def open_last_signed(self) -> LastSigned:
        """Open the record of the last signature, where it is unless the configuration says otherwise."""

    def confirm(self, reading: Reading) -> None:
        """Raise Unavailable unless this is still the writer; asked of another connection."""

    def when_lost(self, told: Callable[[], object]) -> None:
        """Have it said, on any thread, when the right to write is lost while nothing is written."""

    # One batch: begin, then what follows in this order, then commit or roll back.

    def begin(self) -> None:
        """Begin a batch."""

    def indexes_of(self, keys: Sequence[str]) -> dict[str, int]:
        """Find the entries that bear these idempotency keys."""

    def add_entries(self, start: int, entries: Sequence[CompletedEntry]) -> None:
        """Insert entries from an index on, with their openings, and what they open and close."""

    def read_back(self, start: int) -> list[bytes]:
        """Read the leaves from an index on, as the database has them."""

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        """Insert tiles that have become full."""

    def set_head(self, old_size: int, head: Head) -> None:
        """Replace the head of this size; StorageInDoubt when it is not of this size any more."""

    def commit(self) -> None:
        """Make the batch durable. After StorageInDoubt, it may be on disk nevertheless."""

    def roll_back(self) -> None:
        """Forget the batch."""


class Database(Protocol):
    """Where a log is kept, before it is opened."""

    def has_log(self) -> bool:
        """Whether a log was begun here; raises NotReady when that cannot be found out."""

    def begin(self, head: Head) -> None:
        """Begin a log with this head; raises NotReady when there is one already."""

    def open_last_signed(self) -> LastSigned:
        """Open the record of the last signature, where it is unless the configuration says otherwise.

        Raises SigningRefused.
        """

    def open_for_writing(self) -> Storage:
        """Open the log for writing, and be its only writer; raises NotReady."""

    def open_for_reading(self) -> Reading:
        """Open the log for reading; raises NotReady or StorageFailed."""
