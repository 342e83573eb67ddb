"""Which entries concern an agency, in whatever role: also those of kinds that this version does not know."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from countersign.ledger.v1.entry_pb2 import Entry

UNKNOWN: Final = "unknown"
"""Kind of an entry, and role in it, that only a newer version can tell."""


@dataclass(frozen=True)
class Concern:
    """An entry that names an agency."""

    index: int
    leaf: bytes
    entry: Entry
    """What this version understands of it."""
    kind: str
    agency: str
    roles: tuple[str, ...]
    """Names of the fields that have the agency: origin_agency, operator_agency, party, caller, ..."""


def read_entry(leaf: bytes) -> Entry:
    """What this version understands of an entry's bytes; nothing of those of another format."""
    try:
        return Entry.FromString(leaf)
    except DecodeError:
        return Entry()


def recorded_at(leaf: bytes) -> datetime | None:
    """When the ledger says that it took the entry."""
    entry = read_entry(leaf)
    if not entry.HasField("recorded_at"):
        return None
    try:
        return entry.recorded_at.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None


def next_promised(leaf: bytes) -> datetime | None:
    """Until when the log promised its next sign of life, if this entry is a heartbeat."""
    entry = read_entry(leaf)
    if not entry.heartbeat.HasField("next_before"):
        return None
    try:
        return entry.heartbeat.next_before.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None


def concerns(index: int, leaf: bytes, agencies: Sequence[str]) -> Iterator[Concern]:
    """Say which of the agencies an entry names, and as what."""
    entry: Entry | None = None
    for agency in agencies:
        # Most entries are of others: their bytes need not be understood.
        if agency.encode() not in leaf:
            continue
        entry = read_entry(leaf) if entry is None else entry
        kind = entry.WhichOneof("event") or UNKNOWN
        roles = tuple(dict.fromkeys(_roles(entry, agency)))
        if not roles:
            # As a string of its own, or at the end of its system's SPIFFE ID, in a field of a newer version;
            # not as part of a longer one.
            raw = re.escape(agency.encode())
            if not re.search(
                bytes([len(agency)]) + raw + b"|/agency/" + raw + b"(?![A-Z0-9])", leaf
            ):
                continue
            roles = (UNKNOWN,)
        yield Concern(index, leaf, entry, kind, agency, roles)


def _roles(message: Message, agency: str) -> Iterator[str]:
    for described, value in message.ListFields():
        if described.type == FieldDescriptor.TYPE_STRING:
            texts = value if described.is_repeated else [value]
            if any(_names(text, agency) for text in texts):
                yield described.name
        elif described.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if described.is_repeated else [value]:
                if isinstance(inner, Message):
                    yield from _roles(inner, agency)


def _names(text: str, agency: str) -> bool:
    """The agency's ORI, or the SPIFFE ID of its system."""
    return text == agency or (text.startswith("spiffe://") and text.endswith(f"/agency/{agency}"))
