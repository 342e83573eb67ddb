"""The newest checkpoint that witnesses have cosigned, kept in a file beside the ledger.

The file is the note itself, so that a person can read it and any software can verify it; it is replaced
whole and is on disk before the note is shown to anybody. What it says is judged anew when it is read.
"""

from dataclasses import dataclass
from pathlib import Path

from shared import whole_files
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import Policy


@dataclass(frozen=True)
class CosignedNote:
    """A checkpoint with the log's lines and those of witnesses."""

    note: str
    checkpoint: Checkpoint
    cosigned: dict[str, int]
    """Policy name of each witness that cosigned it, and when (POSIX seconds)."""
    lacking: str
    """What the quorum lacks; empty when it is there."""

    @property
    def size(self) -> int:
        """How many entries its tree has."""
        return self.checkpoint.size

    @property
    def quorum(self) -> bool:
        """Whether the witnesses are those that the policy wants."""
        return not self.lacking

    @classmethod
    def judged(cls, note: str, policy: Policy) -> "CosignedNote":
        """Verify every line; raises TlogError."""
        judged = policy.judge(note)
        return cls(note, judged.checkpoint, dict(judged.cosigned), judged.shortfall)


class CosignedFile:
    """Keeps one note."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, policy: Policy) -> CosignedNote | None:
        """Read what is kept; None when there is nothing. Raises TlogError and OSError."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(NOTE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        try:
            return CosignedNote.judged(raw.decode(), policy)
        except UnicodeDecodeError:
            raise TlogError("the kept checkpoint is not UTF-8") from None

    def save(self, note: str) -> None:
        """Replace what is kept, durably; raises OSError."""
        whole_files.put(self.path, note.encode(), sync=True)
