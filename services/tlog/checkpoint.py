"""C2SP tlog-checkpoints: what a log signs of its tree."""

import base64
import functools
import re
from dataclasses import dataclass

from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT, HASH_BYTES, TREE_SIZE_MAX
from tlog.note import (
    NoteSigner,
    NoteVerifier,
    UnverifiedNote,
    check_key_name,
    decode_base64,
    sign_note,
)

CHECKPOINTS_AT_HAND = 64
"""Verified checkpoints that need not be verified again at once; with the note's bound, a few MB."""

# Nineteen digits hold every size up to TREE_SIZE_MAX; int() of a longer text is refused unread.
_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


def parse_decimal(text: str, what: str) -> int:
    """Read a size or index in its one spelling: ASCII digits without leading zeros."""
    if not _DECIMAL.fullmatch(text) or int(text) > TREE_SIZE_MAX:
        raise TlogError(f"{what} is not a decimal number without leading zeros")
    return int(text)


@dataclass(frozen=True)
class Checkpoint:
    """The log's name, the size of its tree and the root at that size."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if not 0 <= self.size <= TREE_SIZE_MAX or len(self.root) != HASH_BYTES:
            raise TlogError("a checkpoint has a size and a root of 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise TlogError("a checkpoint of size 0 has the root of the empty tree")
        if any(not line or "\n" in line for line in self.extensions):
            raise TlogError("an extension line of a checkpoint is one line and not empty")

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a checkpoint note."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "":
            raise TlogError("a checkpoint has an origin, a size and a root, each on its line")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            parse_decimal(size, "the checkpoint's size"),
            decode_base64(root, "the checkpoint's root"),
            tuple(extensions),
        )

    @property
    def text(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(
            f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions)
        )


def sign_checkpoint(checkpoint: Checkpoint, *signers: NoteSigner) -> str:
    """Give the signed note of a checkpoint. Each key of the log must bear the log's name."""
    if any(signer.name != checkpoint.origin for signer in signers):
        raise TlogError("a log signs its checkpoints under its own name")
    return sign_note(checkpoint.text, signers)


# Entries that were committed together have one checkpoint, so a reader meets each several times.
@functools.lru_cache(maxsize=CHECKPOINTS_AT_HAND)
def open_checkpoint(note: str | bytes, verifier: NoteVerifier) -> Checkpoint:
    """Verify a checkpoint note with the log's key and read it."""
    unverified = UnverifiedNote.parse(note)
    unverified.verify([verifier])
    checkpoint = Checkpoint.parse(unverified.text)
    # Otherwise one log's key could vouch for a tree under another log's name.
    if checkpoint.origin != verifier.name:
        raise TlogError(f"the checkpoint is of {checkpoint.origin}, not of {verifier.name}")
    return checkpoint
