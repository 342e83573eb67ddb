"""Two signed checkpoints of one log that contradict each other: what shows it, kept for whoever must know.

The evidence needs no trust in who found it. It has both checkpoints as they were signed, and, unless they
are of the same size, the root that the newer one's tree had at the older one's size, with the consistency
proof from there to the newer root. That root is not the one that was signed at that size.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from countersign.mirror.sources import CannotFollow
from countersign.mirror.tree import VerifiedTree
from shared.whole_files import put
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.merkle import verify_consistency
from tlog.note import decode_base64
from tlog.policy import Judged, Policy

FORMAT: Final = "countersign.evidence/v1"
EVIDENCE_BYTES_MAX: Final = 1024 * 1024
"""Two notes and 63 hashes, with room."""


@dataclass(frozen=True)
class Seen:
    """A checkpoint that a trusted log signed, and where it was seen."""

    note: str
    judged: Judged
    source: str

    @property
    def checkpoint(self) -> Checkpoint:
        """What it says."""
        return self.judged.checkpoint


@dataclass(frozen=True)
class Evidence:
    """Two checkpoints, and what shows that they cannot both be true; nothing does if `root` is None."""

    older: str
    newer: str
    older_from: str
    newer_from: str
    found_at: str
    why: str
    root: bytes | None = None
    """What the newer tree has at the older size; the older's own root if they are of one size."""
    proof: tuple[bytes, ...] = ()

    def document(self) -> dict[str, Any]:
        """As it is written down."""
        return {
            "format": FORMAT,
            "why": self.why,
            "proven": self.root is not None,
            "found_at": self.found_at,
            "older": {"from": self.older_from, "checkpoint": self.older},
            "newer": {"from": self.newer_from, "checkpoint": self.newer},
            "root_of_newer_at_older_size": None if self.root is None else _text(self.root),
            "consistency_proof": [_text(one) for one in self.proof],
        }

    def save(self, folder: Path) -> Path:
        """Write it durably; gives the file. The same contradiction found again is the same file."""
        same = sha256(f"{self.older}\0{self.newer}".encode()).hexdigest()[:16]
        kind = "contradiction" if self.root is not None else "not-verified"
        path = folder / f"{kind}-{same}.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            content = json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"
            put(path, content.encode(), sync=True)
        return path


async def contradiction(
    one: Seen, other: Seen, tree_of_newer: VerifiedTree | None, now: datetime
) -> Evidence | None:
    """Evidence that two checkpoints of one log cannot both be true, None when they agree.

    The tree is needed when both are of different sizes and not empty. Raises CannotFollow or Unavailable
    when that cannot be told.
    """
    older, newer = sorted((one, other), key=lambda seen: seen.checkpoint.size)
    first, second = older.checkpoint, newer.checkpoint
    proof: tuple[bytes, ...] = ()
    if first.origin != second.origin:
        raise CannotFollow(
            "OTHER_LOG",
            f"{older.source} shows {first.origin}, and {newer.source} "
            f"{second.origin}: these are two logs",
        )
    if first.size == second.size:
        if first.root == second.root:
            return None
        why, root = f"two trees of {first.size} entries", second.root
    elif first.size == 0:
        return None
    else:
        if tree_of_newer is None or tree_of_newer.checkpoint != second:
            raise CannotFollow("NOT_SERVED", f"nothing shows the tree of {second.size} entries")
        root, hashes = await tree_of_newer.consistency(first.size)
        proof = tuple(hashes)
        if root == first.root:
            # The tiles are verified; this says that the proof from them is what it should be.
            verify_consistency(first.size, second.size, first.root, second.root, proof)
            return None
        why = f"the tree of {second.size} entries did not grow from the one of {first.size}"
    return Evidence(
        older.note,
        newer.note,
        older.source,
        newer.source,
        now.isoformat(timespec="seconds"),
        why,
        root,
        proof,
    )


def verify_evidence(document: object, policy: Policy) -> str:
    """Judge evidence by the log's keys; say what it shows. Raises TlogError when it shows nothing."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise TlogError(f"not evidence of the form {FORMAT}")
    try:
        notes = [str(document[which]["checkpoint"]) for which in ("older", "newer")]
        root, hashes = document["root_of_newer_at_older_size"], document["consistency_proof"]
    except (KeyError, TypeError):
        raise TlogError("the evidence lacks a checkpoint or the proof") from None
    older, newer = (policy.judge(note).checkpoint for note in notes)
    if older.origin != newer.origin:
        raise TlogError("the checkpoints are of two logs")
    if root is None:
        raise TlogError("the evidence has two checkpoints, and nothing that shows a contradiction")
    if not isinstance(hashes, list):
        raise TlogError("the consistency proof is not a list")
    other = decode_base64(str(root), "the root")
    if other == older.root:
        raise TlogError("the newer tree grew from the older: there is no contradiction")
    proof = [decode_base64(str(one), "a hash of the proof") for one in hashes]
    verify_consistency(older.size, newer.size, other, newer.root, proof)
    return (
        f"{older.origin} signed two histories: of {older.size} and of {newer.size} entries, which do not "
        "agree"
    )


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
