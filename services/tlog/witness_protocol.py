"""C2SP tlog-witness: what a log and a witness send each other, without the sending.

A log posts the newest checkpoint with a proof that it extends the one the witness cosigned last; the
witness answers with its signature lines.
"""

import base64
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

from tlog.checkpoint import Checkpoint, parse_decimal
from tlog.cosignature import CosignatureVerifier
from tlog.errors import TlogError
from tlog.merkle import HASH_BYTES, PROOF_HASHES_MAX
from tlog.note import (
    NOTE_BYTES_MAX,
    UnverifiedNote,
    check_key_name,
    decode_base64,
    decode_text,
    parse_signatures,
)

SIZE_CONTENT_TYPE: Final = "text/x.tlog.size"
"""Type of a 409 answer's body: the size that the witness cosigned last."""

HASH_LINE_BYTES: Final = 45
OLD_LINE_BYTES_MAX: Final = 32
REQUEST_BYTES_MAX: Final = (
    OLD_LINE_BYTES_MAX + PROOF_HASHES_MAX * HASH_LINE_BYTES + 1 + NOTE_BYTES_MAX
)
"""The longest body of add-checkpoint that is read."""

SIZE_BODY_BYTES_MAX: Final = 32
"""Nineteen digits and a line feed, with room for those who end lines otherwise."""


def monitoring_path(origin: str) -> str:
    """Say where, below its monitoring prefix, a witness shows the newest checkpoint it cosigned."""
    check_key_name(origin)
    return f"{sha256(origin.encode()).hexdigest()}/checkpoint"


@dataclass(frozen=True)
class AddCheckpoint:
    """The body of add-checkpoint. Neither its proof nor any signature is verified yet."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    def __post_init__(self) -> None:
        if len(self.proof) > PROOF_HASHES_MAX:
            raise TlogError(f"the consistency proof has more than {PROOF_HASHES_MAX} hashes")
        if any(len(one) != HASH_BYTES for one in self.proof):
            raise TlogError(f"a hash of the consistency proof is not {HASH_BYTES} bytes long")
        if not 0 <= self.old_size <= self.unverified_checkpoint.size:
            raise TlogError("the old size is larger than the checkpoint's")

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        """Read a body, refusing everything that is not exactly one."""
        if len(body) > REQUEST_BYTES_MAX:
            raise TlogError(f"the request is longer than {REQUEST_BYTES_MAX} bytes")
        head, separator, note = body.partition(b"\n\n")
        if not separator:
            raise TlogError("the request has no empty line before its checkpoint")
        old, *proof = decode_text(head).split("\n")
        if not old.startswith("old "):
            raise TlogError("the request does not start with the old size")
        old_size = parse_decimal(old.removeprefix("old "), "the old size")
        if len(proof) > PROOF_HASHES_MAX:
            raise TlogError(f"the consistency proof has more than {PROOF_HASHES_MAX} hashes")
        hashes = tuple(decode_base64(line, "a hash of the consistency proof") for line in proof)
        return cls(old_size, hashes, decode_text(note))

    @cached_property
    def unverified_note(self) -> UnverifiedNote:
        """The note, taken apart."""
        return UnverifiedNote.parse(self.note)

    @cached_property
    def unverified_checkpoint(self) -> Checkpoint:
        """The checkpoint, before any signature was looked at: tells which log's keys to take."""
        return Checkpoint.parse(self.unverified_note.text)

    @property
    def encoded(self) -> bytes:
        """The body, as `parse` reads it."""
        hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.proof)
        return f"old {self.old_size}\n{hashes}\n{self.note}".encode()


def write_size(size: int) -> bytes:
    """Write the body of a 409 answer."""
    return f"{size}\n".encode()


def read_size(body: bytes) -> int:
    """Read the body of a 409 answer, with or without its line feed."""
    if len(body) > SIZE_BODY_BYTES_MAX:
        raise TlogError("the witness's size is too long")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise TlogError("the witness's size is not a number") from None
    return parse_decimal(text.removesuffix("\n").removesuffix("\r"), "the witness's size")


def read_cosignature(
    answer: bytes, checkpoint_text: str, verifier: CosignatureVerifier
) -> tuple[str, int]:
    """Find a witness's line in its answer to add-checkpoint; give the line and its time.

    Lines of other keys are ignored. Raises TlogError when there is no line of this key, when it does
    not verify, or when it has no time.
    """
    found: tuple[str, int] | None = None
    for line in parse_signatures(decode_text(answer)):
        if (line.name, line.key_id) != (verifier.name, verifier.key_id):
            continue
        time_s = verifier.verify(checkpoint_text, line.signature)
        if time_s and (found is None or time_s > found[1]):
            found = line.line, time_s
    if found is None:
        raise TlogError(f"the answer has no cosignature by {verifier.name}")
    return found
