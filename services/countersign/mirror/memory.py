"""What a monitor remembers from one look to the next, also in a file from one run to the next."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from countersign.mirror.evidence import Seen
from countersign.mirror.sources import CannotFollow
from shared.whole_files import put
from tlog.errors import TlogError
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import Policy

FORMAT: Final = "countersign.monitor/v1"
BEFORE: Final = "the look before"


@dataclass
class Memory:
    """The newest checkpoint that was verified, and where to read on."""

    next_index: int = 0
    note: str | None = None
    size: int = 0
    grown_at: datetime | None = None
    """When the log was first seen at this size; None until it has been seen to grow."""
    begun_at: datetime | None = None
    """When it was looked at first: an empty log has no other sign of life."""
    file: Path | None = None

    @classmethod
    def load(cls, file: Path | None, start: int) -> "Memory":
        """Read the file, if there is one; raises CannotFollow when it is damaged."""
        if file is None or not file.exists():
            return cls(next_index=start, file=file)
        try:
            with file.open(encoding="utf-8") as opened:
                document = json.loads(opened.read(2 * NOTE_BYTES_MAX))
            if document["format"] != FORMAT:
                raise ValueError("of another form")
            grown = document["grown_at"]
            return cls(
                next_index=int(document["next_index"]),
                note=str(document["checkpoint"]),
                size=int(document["size"]),
                grown_at=None if grown is None else datetime.fromisoformat(grown),
                begun_at=datetime.fromisoformat(document["begun_at"]),
                file=file,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotFollow("MEMORY_DAMAGED", f"{file}: {error}") from error

    def seen(self, policy: Policy) -> Seen | None:
        """The checkpoint of the look before; raises CannotFollow if no trusted log signed it."""
        if self.note is None:
            return None
        try:
            judged = policy.judge(self.note)
        except TlogError as error:
            raise CannotFollow("MEMORY_DAMAGED", f"{BEFORE} ({self.file}): {error}") from error
        return Seen(self.note, judged, BEFORE)

    def keep(self, seen: Seen, read_up_to: int, now: datetime) -> None:
        """Remember a checkpoint that agreed with everything, durably; raises OSError."""
        if self.note is not None and seen.checkpoint.size != self.size:
            self.grown_at = now
        self.begun_at = self.begun_at or now
        self.note, self.size = seen.note, seen.checkpoint.size
        self.next_index = max(self.next_index, read_up_to)
        if self.file is not None:
            document = {
                "format": FORMAT,
                "next_index": self.next_index,
                "size": self.size,
                "grown_at": None if self.grown_at is None else self.grown_at.isoformat(),
                "begun_at": self.begun_at.isoformat(),
                "checkpoint": self.note,
            }
            put(self.file, (json.dumps(document, indent=2) + "\n").encode(), sync=True)
