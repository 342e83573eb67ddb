"""Merkle trees of RFC 6962 section 2.1 (the same as RFC 9162 section 2.1), SHA-256 only.

Invariants:
- a subtree is named by (level, index): the 2**level leaves from index * 2**level on;
- a subtree that is complete never changes, whatever is appended later, so its hash may be cached;
- verifying never trusts a length: every hash is 32 bytes and every proof is used up exactly.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import TypeAlias

from tlog.errors import TlogError

HASH_BYTES = 32

# Sizes are 64-bit in every protocol around us, and signed in several of them.
TREE_SIZE_MAX = 2**63 - 1

# A tree of at most 2**63 leaves has no longer path (tlog-witness refuses longer proofs as well).
PROOF_HASHES_MAX = 63

# Proofs of entries that differ only in this many low bits are alike above that level.
_SHARED_LEVELS = 6

EMPTY_ROOT = sha256(b"").digest()

SubtreeHash: TypeAlias = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree at (level, index)."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry. The prefix keeps an entry from passing for an inner node."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two sibling subtrees into their parent."""
    return sha256(b"\x01" + left + right).digest()


def complete_root(row: bytes) -> bytes:
    """Hash a power of two of nodes, one after the other, into the root above them."""
    while len(row) > HASH_BYTES:
        row = b"".join(
            [sha256(b"\x01" + row[at : at + 64]).digest() for at in range(0, len(row), 64)]
        )
    return row


def root_of_leaves(leaf_hashes: Sequence[bytes]) -> bytes:
    """Compute a root from all leaf hashes, straight from the definition: for audits and tests."""
    frontier = Frontier()
    for one in leaf_hashes:
        frontier.append(one)
    return frontier.root()


class Frontier:
    """The complete subtrees that make up a growing tree, largest first: enough to know its root."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    @classmethod
    def of(cls, size: int, peaks: Sequence[bytes]) -> "Frontier":
        """The frontier of a tree whose complete subtrees, largest first, were kept; raises TlogError."""
        _check_hashes(*peaks)
        if size < 0 or len(peaks) != size.bit_count():
            raise TlogError(f"{len(peaks)} hashes are not the complete subtrees of size {size}")
        frontier = cls()
        frontier.size = size
        frontier._peaks = list(peaks)
        return frontier

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The complete subtrees, largest first: all that it takes to go on later."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash at the right."""
        # Each trailing one-bit of the old size is a peak that the new leaf completes into a parent.
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Hash the peaks together, from the right."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


class TreeAtSize:
    """One tree at one size, able to give its root and proofs from subtree hashes.

    What does not depend on the entry (the hashes along the ragged right edge) is computed once
    here, so that the receipts of a whole batch cost look-ups only.
    """

    def __init__(self, size: int, subtree: SubtreeHash) -> None:
        _check_size(size)
        self.size = size
        self._subtree = subtree
        self._ragged = self._right_edge()
        self._upper: dict[int, list[bytes]] = {}

    def _right_edge(self) -> list[bytes | None]:
        """For each level, the hash of what lies right of the last complete subtree of that level."""
        ragged: list[bytes | None] = [None]
        tail: bytes | None = None
        for level in range(self.size.bit_length()):
            if self.size >> level & 1:
                peak = self._subtree(level, (self.size >> level) - 1)
                tail = peak if tail is None else node_hash(peak, tail)
            ragged.append(tail)
        return ragged

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        return self._ragged[-1] or EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Give the hash of a leaf."""
        if not 0 <= index < self.size:
            raise TlogError(f"there is no entry {index} in a tree of size {self.size}")
        return self._subtree(0, index)

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Give the siblings of a leaf from the bottom upward (RFC 6962 section 2.1.1)."""
        if not 0 <= index < self.size:
            raise TlogError(f"there is no entry {index} in a tree of size {self.size}")
        # Neighbours share the upper part of their proofs.
        neighbourhood = index >> _SHARED_LEVELS
        upper = self._upper.get(neighbourhood)
        if upper is None:
            upper = self._upper[neighbourhood] = self._siblings(index, _SHARED_LEVELS, 64)
        return self._siblings(index, 0, _SHARED_LEVELS) + upper

    def _siblings(self, index: int, low: int, high: int) -> list[bytes]:
        """Give the siblings on the path from a leaf, at the levels from `low` to below `high`."""
        levels = range(low, min(high, self.height))
        siblings = (self.sibling(level, index >> level) for level in levels)
        return [one for one in siblings if one is not None]

    @property
    def height(self) -> int:
        """How many levels of siblings lie below the root."""
        return (self.size - 1).bit_length()

    def sibling(self, level: int, node: int) -> bytes | None:
        """Give the hash beside a node of this tree; None for one that stands for its own parent."""
        sibling = node ^ 1
        complete = self.size >> level
        if sibling < complete:
            return self._subtree(level, sibling)
        return self._ragged[level] if sibling == complete else None

    def consistency_proof(self, first: int) -> list[bytes]:
        """Prove that the tree of size `first` is a prefix of this one (RFC 6962 section 2.1.2)."""
        if not 1 <= first <= self.size:
            raise TlogError(f"no consistency proof leads from size {first} to size {self.size}")
        proof: list[bytes] = []
        low, high = 0, self.size
        while first != high:
            split = low + _split(high - low)
            if first <= split:
                proof.append(self._range(split, high))
                high = split
            else:
                proof.append(self._range(low, split))
                low = split
        if low != 0:
            proof.append(self._range(low, high))
        proof.reverse()
        return proof

    def _range(self, low: int, high: int) -> bytes:
        """Hash the leaves of a range that starts where a subtree of its own size may start."""
        hashes: list[bytes] = []
        while low < high:
            level = (high - low).bit_length() - 1
            hashes.append(self._subtree(level, low >> level))
            low += 1 << level
        node = hashes[-1]
        for left in reversed(hashes[:-1]):
            node = node_hash(left, node)
        return node


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf hash is at `index` in the tree of `size` with `root`.

    Follows RFC 9162 section 2.1.3.2; raises TlogError when it is not so.
    """
    _check_size(size)
    _check_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise TlogError(f"there is no entry {index} in a tree of size {size}")
    # Steps 2 and 3: fn and sn are the positions of the leaf and of the last leaf at this level.
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise TlogError("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            node = node_hash(node, sibling)
        fn >>= 1
        sn >>= 1
    if sn != 0:
        raise TlogError("the inclusion proof is too short")
    if not compare_digest(node, root):
        raise TlogError(f"the inclusion proof of entry {index} does not lead to the root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of size `first` is a prefix of the tree of size `second`.

    Follows RFC 9162 section 2.1.4.2; raises TlogError when it is not so.
    """
    _check_size(first)
    _check_size(second)
    _check_hashes(first_root, second_root, *proof)
    if not 1 <= first <= second:
        raise TlogError(f"no consistency proof leads from size {first} to size {second}")
    if first == second:
        if proof or not compare_digest(first_root, second_root):
            raise TlogError(f"two different trees of size {first}")
        return
    path = list(proof)
    # Step 2: an old tree that is one complete subtree is not repeated in the proof.
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise TlogError("the consistency proof is empty")
    # Steps 3 and 4: skip the levels where the old tree ends in a right child.
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    old = new = path[0]
    for node in path[1:]:
        if sn == 0:
            raise TlogError("the consistency proof is too long")
        if fn & 1 or fn == sn:
            old = node_hash(node, old)
            new = node_hash(node, new)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            new = node_hash(new, node)
        fn >>= 1
        sn >>= 1
    if sn != 0:
        raise TlogError("the consistency proof is too short")
    if not compare_digest(old, first_root):
        raise TlogError(f"the consistency proof does not lead to the root at size {first}")
    if not compare_digest(new, second_root):
        raise TlogError(f"the consistency proof does not lead to the root at size {second}")


def _split(count: int) -> int:
    """Give the largest power of two below `count`, where a tree of `count` leaves divides."""
    return 1 << (count - 1).bit_length() - 1


def _check_size(size: int) -> None:
    if not 0 <= size <= TREE_SIZE_MAX:
        raise TlogError(f"{size} is not a tree size")


def _check_hashes(*hashes: bytes) -> None:
    # A hash of another length could carry part of the next node's bytes.
    if len(hashes) > PROOF_HASHES_MAX + 2:
        raise TlogError(f"the proof has more than {PROOF_HASHES_MAX} hashes")
    if any(len(one) != HASH_BYTES for one in hashes):
        raise TlogError(f"a hash is not {HASH_BYTES} bytes long")
