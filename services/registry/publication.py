"""What must be appended to the ledger so that a signed document counts.

Only what has changed is published: a single officer's change is one small entry.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, TypeVar

from countersign.ledger.v1.append_pb2 import PendingEntry, SensitiveField
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DocumentPart, OfficersPublished, RegistryPublished
from registry import document, secret, signature
from registry.commitments import COMMITMENT_BYTES, Commitments
from registry.findings import refused
from registry.signature import SIGNATURE_FILE, Signed, Statement
from tlog.note import NOTE_BYTES_MAX, Verifier

CONTENT_BYTES_MAX: Final = 60_000
"""An entry has at most 65,535 bytes (tiles of C2SP)."""
ADDED_MAX: Final = 16
"""The ledger takes as many sensitive values with one entry."""
REMOVED_MAX: Final = 1_000
"""34 kilobytes."""
FIELDS: Final = tuple(f"standing_{letter}" for letter in "abcdefghijklmnop")
"""The sensitive fields that open the commitments added, in their order."""
assert len(FIELDS) == ADDED_MAX
assert REMOVED_MAX * (COMMITMENT_BYTES + 2) < CONTENT_BYTES_MAX


_One = TypeVar("_One")


@dataclass(frozen=True)
class Previous:
    """What is published of an owner."""

    statement: Statement
    commitments: Commitments


def load(
    folder: Path,
    keys: Iterable[Verifier],
    others: Mapping[str, tuple[Verifier, ...]] | None = None,
) -> Signed:
    """A signed folder; raises RegistryRefused. `others` are named when one of them signed instead."""
    read = document.read(folder)
    if not (folder / SIGNATURE_FILE).exists():
        message = f"{read.owner} has not signed this document"
        raise refused("SIGNATURE_MISSING", f"{folder.name}/{SIGNATURE_FILE}", message)
    note = document.read_file(folder / SIGNATURE_FILE, NOTE_BYTES_MAX)
    known = secret.of(folder, read)
    return signature.check(folder.name, note, read, known, keys, others)


def pending_entries(signed: Signed, previous: Previous | None) -> list[PendingEntry]:
    """The entries, to be appended in this order; raises RegistryRefused for a serial number that is past.

    After a crash half-way the same entries are made again: with their keys, each is appended once. What is
    to be appended is best asked of the fold before (`Fold.check`).
    """
    said = signed.statement
    if previous is not None and said.serial <= previous.statement.serial:
        message = f"has the serial number {said.serial}; {previous.statement.serial} is published"
        raise refused("SERIAL_OLD", f"{said.owner}/{SIGNATURE_FILE}", message)
    entries = [*_of_public(signed, previous), *_of_officers(signed, previous)]
    if not entries:
        # The same again, under a new serial number: the public part bears the signature.
        entries = list(_of_public(signed, None))
    key = f"registry/{said.owner}/{said.serial}/{said.sha256.hex()[:16]}"
    for part, pending in enumerate(entries, 1):
        event = pending.entry.registry_published
        if pending.entry.HasField("officers_published"):
            published = pending.entry.officers_published
            published.part, published.parts = part, len(entries)
        else:
            event.part, event.parts = part, len(entries)
        pending.idempotency_key = f"{key}/{part}"
    return entries


def _of_public(signed: Signed, previous: Previous | None) -> Iterator[PendingEntry]:
    digest, content = signed.statement.document_sha256, signed.document.public_bytes
    if previous is not None and previous.statement.document_sha256 == digest:
        return
    starts = range(0, len(content), CONTENT_BYTES_MAX)
    for part, at in enumerate(starts, 1):
        document_part = DocumentPart(
            sha256=digest,
            part=part,
            parts=len(starts),
            content=content[at : at + CONTENT_BYTES_MAX],
        )
        event = RegistryPublished(document=document_part, statement=signed.as_proto)
        yield PendingEntry(entry=Entry(registry_published=event))


def _of_officers(signed: Signed, previous: Previous | None) -> Iterator[PendingEntry]:
    before = previous.commitments if previous is not None else Commitments()
    after = {one.commitment: one for one in signed.officers}
    removed = sorted(one for one in before if one not in after)
    # By their commitments: in any other order, neighbours would tell of each other.
    added = [after[one] for one in sorted(after) if one not in before]
    for gone, come in zip_longest(
        _chunks(removed, REMOVED_MAX), _chunks(added, ADDED_MAX), fillvalue=()
    ):
        event = OfficersPublished(
            origin_agency=signed.statement.owner,
            statement=signed.as_proto,
            removed=gone,
            added=[one.commitment for one in come],
        )
        sensitive = [
            SensitiveField(field=field, value=one.opening)
            for field, one in zip(FIELDS, come, strict=False)
        ]
        yield PendingEntry(entry=Entry(officers_published=event), sensitive=sensitive)


def _chunks(whole: Sequence[_One], size: int) -> list[Sequence[_One]]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]
