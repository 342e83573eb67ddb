"""The registry as it stood after each document of the ledger: what decisions of the past were made by.

Invariants:
- What stood after a document is what everybody who had followed that far decided by: the same code folds it.
- Of an officer whose opening the reader was not given, or was destroyed, nothing is known; that there is one
  is (`Stood.unopened`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from countersign.ledger.v1.entry_pb2 import Entry
from directive.worlds import Stood
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.orders import OrderNotProved


class History:
    """Every state that the registry has had."""

    def __init__(
        self,
        documents: Iterable[tuple[int, Entry]],
        openings: Mapping[int, Mapping[str, str]],
        fold: Fold,
    ) -> None:
        """`documents` in their order, `openings` by index and field; the fold is changed here alone.

        Raises OrderNotProved for an order of registrars whom the fold does not know.
        """
        self._indexes = [-1]
        self._states = [Stood(fold.registry)]
        for index, entry in documents:
            try:
                changed = fold.follow(entry, openings.get(index, {}))
            except OrderNotProved:
                raise
            except RegistryRefused:
                continue  # It counts for nobody.
            if changed is not None:
                self._indexes.append(index)
                self._states.append(Stood(fold.registry, fold.unopened, registered=True))

    def after(self, index: int) -> Stood:
        """What counted once a document was known, be it a registration or another."""
        return self._states[bisect_right(self._indexes, index) - 1]
