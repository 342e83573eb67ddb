"""Whether a database is of the history that was signed for, and how far it has come in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ledger.last_signed import RecordDamaged, Signed, SigningRefused
from tlog.merkle import EMPTY_ROOT

LEAVES_AT_ONCE: Final = 1024
"""Read at once when the log has grown past its last record."""


Leaves = Callable[[int, int], Sequence[bytes]]
"""Reads entries' bytes: from an index on, at most so many."""


@dataclass(frozen=True)
class Peaks:
    """A tree of its own kind: the roots of its complete subtrees, largest first. Never changes."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def grown(self, leaves: Sequence[bytes]) -> "Peaks":
        """Add entries, from their bytes."""
        size, peaks = self.size, list(self.hashes)
        for leaf in leaves:
            node = sha256(b"\0" + leaf).digest()
            rest = size
            while rest & 1:
                node = sha256(b"\1" + peaks.pop() + node).digest()
                rest >>= 1
            peaks.append(node)
            size += 1
        return Peaks(size, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        if not self.hashes:
            return EMPTY_ROOT
        *left, root = self.hashes
        for peak in reversed(left):
            root = sha256(b"\1" + peak + root).digest()
        return root

    def grown_to(self, size: int, leaves: Leaves) -> "Peaks":
        """Add entries up to a size, or to where the first one is missing."""
        peaks = self
        while peaks.size < size:
            more = leaves(peaks.size, min(LEAVES_AT_ONCE, size - peaks.size))
            if not more:
                break
            peaks = peaks.grown(more)
        return peaks


def followed(last: Signed, size: int, root: bytes, leaves: Leaves, where: str) -> Peaks:
    """Give the peaks of a database's tree, once it is known to follow from what was signed last.

    `where` names the record in messages. Raises SigningRefused.
    """
    if size < last.size:
        raise SigningRefused(
            "LEDGER_BEHIND_LAST_SIGNED",
            f"the database has {size} entries, and a checkpoint of {last.size} was signed: "
            f"{last.size - size} entries that were vouched for are gone (an old backup, or a "
            "replica that had not everything). Nothing is signed, or there would be two "
            "histories. Put the newest database in place; see the ledger's runbook, 'The "
            "database is behind'",
        )
    peaks = Peaks(last.size, last.peaks)
    if peaks.root != last.root:
        raise RecordDamaged(where, "its hashes do not come to its root", None)
    peaks = peaks.grown_to(size, leaves)
    if peaks.root != root:
        raise SigningRefused(
            "LEDGER_FORKED",
            f"the database's {size} entries do not follow from the {last.size} that were "
            "signed for last: they are of another history. Nothing of it may be signed or "
            "served; keep it as evidence, and put the right database in place",
        )
    return peaks
