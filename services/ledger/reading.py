"""What is read from the store, whichever engine keeps it. Nothing here writes.

A reader sees what is committed and asks only below a size that it was given, which is that of a
checkpoint already published.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ledger.entry import SealedOpening


@dataclass(frozen=True)
class Head:
    """What the log has come to: the tree's size and root, and the signed checkpoint of both."""

    size: int
    root: bytes
    checkpoint: str


class StorageFailed(Exception):
    """The store could not do it. If the batch can be rolled back, nothing of it is kept."""


Row = tuple[int, bytes, int, str | None, str | None, str | None]
"""An entry with its index columns: index, leaf, kind, search id, agency, idempotency key."""


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; None for no bound."""

    start_index: int = 0
    search_id: str | None = None
    kind: int | None = None
    origin_agency: str | None = None


class Reading(Protocol):
    """A hand on the store that only reads. Used by one thread at a time.

    Every method raises StorageFailed when the store cannot be read.
    """

    def close(self) -> None:
        """Close the connection."""

    def one_state(self) -> AbstractContextManager[None]:
        """See one state of the store throughout, whatever is written meanwhile."""

    def head(self) -> Head:
        """Read the head."""

    def last_index(self) -> int:
        """Give the highest index; -1 when there is no entry."""

    def leaf(self, index: int) -> bytes | None:
        """Read one entry's bytes."""

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Read the bytes of entries in order; stops at a gap."""

    def tile(self, level: int, number: int) -> bytes | None:
        """Read a full tile."""

    def find(
        self, wanted: Filter, size: int, entries_max: int, bytes_max: int
    ) -> tuple[list[tuple[int, bytes]], int | None]:
        """Find entries below `size`, by index, and say where to go on; None at the end.

        Gives at most `entries_max`, and ends early when they come to `bytes_max`.
        """

    def newest(self, kind: int, before: int, count: int) -> list[tuple[int, bytes]]:
        """Read the last entries of a kind below an index, newest first."""

    def bearing_keys(self, idempotency_keys: Sequence[str], size: int) -> list[tuple[int, bytes]]:
        """Read the entries below `size` that bear one of these idempotency keys, by index."""

    def of_search(self, search_id: str, size: int) -> tuple[int | None, int | None]:
        """Find the indexes of a search's decision and of its end."""

    def open_searches(self, start: int, size: int, count: int) -> list[int]:
        """List the decisions of permitted searches without an end, by index."""

    def decisions_of(self, origin_agency: str, before: int, count: int) -> list[tuple[int, str]]:
        """List an agency's decisions with their search ids, newest first."""

    def every_row(self) -> Iterator[Row]:
        """Read every entry with its index columns, by index."""

    def every_open_search(self) -> list[tuple[int, str]]:
        """Read every open search, by index."""

    def every_opening(self) -> Iterator[tuple[int, SealedOpening]]:
        """Read every opening with the index of its entry, by index."""

    def openings_of(self, index: int) -> list[SealedOpening]:
        """Read the openings of an entry, by field."""

    def openings_in(self, block: int) -> list[tuple[int, SealedOpening]]:
        """Read the openings that can be looked up and whose keys are in a block, by index."""

    def bearing(self, block: int, lookup_token: bytes) -> list[int]:
        """Find the entries with an opening that bears a token of a block, by index."""

    def clear_openings(self, count: int) -> list[tuple[int, str, bytes, str]]:
        """Read openings of release 0.1 that are not sealed yet: index, field, salt and value."""

    def of_kind(self, kind: int) -> Iterator[tuple[int, bytes]]:
        """Read every entry of a kind, by index."""

    def every_tile(self) -> Iterator[tuple[int, int, bytes]]:
        """Read every stored tile: level, number and hashes."""

    def count_tiles(self) -> int:
        """Count the stored tiles."""

    def broken_structure(self) -> str | None:
        """Have the engine compare its own structures with the rows; give the first fault."""
