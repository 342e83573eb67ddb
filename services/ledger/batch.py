"""Where each entry of a batch goes: at a new index, or where its idempotency key is on record already."""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.entry import CompletedEntry


@dataclass(frozen=True)
class Batch:
    """Where each entry of each request goes, and which entries are new."""

    places: list[list[tuple[int, bool]]]
    """Index, and whether it was on record before, for each entry of each request."""
    fresh: list[CompletedEntry]

    @classmethod
    def placed(
        cls, requests: Sequence[Sequence[CompletedEntry]], known: dict[str, int], start: int
    ) -> "Batch":
        """Place requests from an index on; `known` are the indexes of keys that are on record."""
        known = dict(known)
        fresh: list[CompletedEntry] = []
        places: list[list[tuple[int, bool]]] = []
        for entries in requests:
            placed: list[tuple[int, bool]] = []
            for entry in entries:
                key = entry.idempotency_key
                if key is not None and (index := known.get(key)) is not None:
                    placed.append((index, True))
                    continue
                index = start + len(fresh)
                if key is not None:
                    known[key] = index
                fresh.append(entry)
                placed.append((index, False))
            places.append(placed)
        return cls(places, fresh)
