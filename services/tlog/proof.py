"""C2SP tlog-proofs: receipts that an entry is in a log, verifiable offline."""

import base64
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass

from tlog.checkpoint import Checkpoint, open_checkpoint, parse_decimal
from tlog.errors import TlogError
from tlog.merkle import (
    HASH_BYTES,
    PROOF_HASHES_MAX,
    TREE_SIZE_MAX,
    TreeAtSize,
    leaf_hash,
    verify_inclusion,
)
from tlog.note import NoteVerifier, decode_base64, decode_text
from tlog.policy import Judged, Policy

HEADER = "c2sp.org/tlog-proof@v1"


def write_proof(index: int, hashes: Sequence[bytes], checkpoint: str) -> str:
    """Write a proof of what the caller knows to be right."""
    path = b"".join([b2a_base64(one) for one in hashes]).decode()
    return f"{HEADER}\nindex {index}\n{path}\n{checkpoint}"


class ProofWriter:
    """Writes the proofs of many entries of one tree: what neighbours share is encoded once."""

    def __init__(self, tree: TreeAtSize, checkpoint: str) -> None:
        self._tree = tree
        self._checkpoint = checkpoint
        self._height = tree.height
        self._above: dict[tuple[int, int], str] = {}

    def write(self, index: int) -> str:
        """Give the proof of an entry; raises TlogError when the tree does not have it."""
        if not 0 <= index < self._tree.size:
            raise TlogError(f"there is no entry {index} in a tree of size {self._tree.size}")
        return f"{HEADER}\nindex {index}\n{self._path(0, index)}\n{self._checkpoint}"

    def _path(self, level: int, node: int) -> str:
        """Give the lines of the hashes beside a node, and beside each node above it."""
        if level == self._height:
            return ""
        sibling = self._tree.sibling(level, node)
        at = (level + 1, node >> 1)
        above = self._above.get(at)
        if above is None:
            above = self._above[at] = self._path(*at)
        return above if sibling is None else b2a_base64(sibling).decode() + above


@dataclass(frozen=True)
class TlogProof:
    """An inclusion proof with the signed checkpoint that it leads to. Not yet verified."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    unauthenticated_extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= TREE_SIZE_MAX:
            raise TlogError("a proof's index is not negative")
        if len(self.hashes) > PROOF_HASHES_MAX:
            raise TlogError(f"a proof has at most {PROOF_HASHES_MAX} hashes")
        if any(len(one) != HASH_BYTES for one in self.hashes):
            raise TlogError(f"a hash of the proof is not {HASH_BYTES} bytes long")

    @classmethod
    def parse(cls, proof: str | bytes) -> "TlogProof":
        """Read a proof, refusing everything that is not exactly one."""
        head, separator, checkpoint = decode_text(proof).partition("\n\n")
        if not separator:
            raise TlogError("the proof has no empty line before its checkpoint")
        lines = head.split("\n")
        if lines.pop(0) != HEADER:
            raise TlogError(f"the proof does not start with {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "the proof's extra data")
        if not lines or not lines[0].startswith("index "):
            raise TlogError("the proof has no index")
        index = parse_decimal(lines.pop(0).removeprefix("index "), "the proof's index")
        hashes = tuple(decode_base64(line, "a hash of the proof") for line in lines)
        return cls(index, hashes, checkpoint, extra)

    @property
    def text(self) -> str:
        """The proof as `parse` reads it."""
        written = write_proof(self.index, self.hashes, self.checkpoint)
        if self.unauthenticated_extra is None:
            return written
        extra = base64.b64encode(self.unauthenticated_extra).decode()
        return written.replace("\n", f"\nextra {extra}\n", 1)

    def verify(self, leaf: bytes, verifier: NoteVerifier) -> Checkpoint:
        """Check that `leaf` is the entry at this index of the verifier's log.

        1. The checkpoint is signed by the log's key, under the log's name.
        2. The inclusion proof leads from the leaf's hash to the checkpoint's root.
        """
        checkpoint = open_checkpoint(self.checkpoint, verifier)
        verify_inclusion(leaf_hash(leaf), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint

    def judge(self, leaf: bytes, policy: Policy, log_origin: str | None = None) -> Judged:
        """Check that `leaf` is the entry at this index of a log that the policy trusts.

        As `verify`; whether enough witnesses cosigned the checkpoint is in the answer, for the
        caller to insist on.
        """
        judged = policy.judge(self.checkpoint, log_origin)
        size, root = judged.checkpoint.size, judged.checkpoint.root
        verify_inclusion(leaf_hash(leaf), self.index, size, self.hashes, root)
        return judged


def verify_receipt(
    leaf: bytes, proof: str | bytes, verifier: NoteVerifier
) -> tuple[int, Checkpoint]:
    """Read and verify a proof of an entry; give the entry's index and the checkpoint."""
    parsed = TlogProof.parse(proof)
    return parsed.index, parsed.verify(leaf, verifier)
