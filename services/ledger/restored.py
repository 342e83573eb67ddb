"""Puts on record that a log came back into service by an operator's decision, at its first start afterwards.

The command that restores or adopts runs without the service and appends nothing. It leaves a note
(`ledger.restored_notes`); the writer that finds it records it, and removes it.
"""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from typing import Final
from uuid import uuid4

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import LogRestored, RestoreCause
from ledger.entry import Completer
from ledger.log import OpenLog
from ledger.restored_notes import Notes
from shared.errors import NotFound, NotReady

log = logging.getLogger(__name__)

AUTHORITY_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True)
class Restored:
    """What was brought back."""

    cause: str
    """Name of a RestoreCause."""
    size: int
    root: str
    """In hexadecimal digits."""
    checkpoint: str
    authority: str
    request_id: str = ""
    """Different for each time that a log is brought back."""


def note(notes: Notes, restored: Restored) -> None:
    """Leave word for the writer, durably.

    Before what it speaks of is done: a note of what was not done says nothing that is not so of the log,
    while without one it would never be on record.
    """
    document = asdict(restored) | {"request_id": str(uuid4())}
    notes.put(json.dumps(document).encode())


async def announce_restored(opened: OpenLog, notes: Notes, completer: Completer) -> None:
    """Record what a note says, if there is one and the log is the one that it speaks of.

    Raises NotReady for a note that is damaged, OSError or Unavailable where there is no looking for one.

    A crash after the append leaves the note; its key lets the next start find the entry.
    """
    restored = await asyncio.to_thread(_read, notes)
    if restored is None or opened.guard.refused is not None:
        return
    try:
        same = (await opened.archive.root(restored.size)).hex() == restored.root
    except NotFound:
        same = False
    if same:
        event = LogRestored(
            restored_size=restored.size,
            restored_root=bytes.fromhex(restored.root),
            lost_size=restored.size,
            lost_checkpoint=restored.checkpoint,
            authority=restored.authority,
            cause=RestoreCause.Value(restored.cause),
        )
        pending = PendingEntry(
            entry=Entry(log_restored=event), idempotency_key=f"restored/{restored.request_id}"
        )
        await opened.sequencer.append([completer.complete(pending, "entry")])
    fields = {"cause": restored.cause, "size": restored.size, "recorded": same}
    log.warning("the log was brought back", extra={"fields": fields})
    await asyncio.to_thread(notes.remove)


def _read(notes: Notes) -> Restored | None:
    raw = notes.read()
    if raw is None:
        return None
    try:
        restored = Restored(**json.loads(raw))
        RestoreCause.Value(restored.cause)
        bytes.fromhex(restored.root)
    except (ValueError, TypeError) as error:
        raise NotReady(
            "RESTORED_NOTE_DAMAGED",
            f"{notes.where} is not what `restore` or `adopt` wrote; it says what is to be put on record of "
            "it. Look at it, and remove it",
        ) from error
    return restored
