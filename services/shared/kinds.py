"""The kind of an entry: the number of its event's field, also of one that this program does not know.

entry.proto keeps the numbers 10 to 999 for events, so an entry that was written by a newer program can
be told by its number, listed and proved, though not understood.
"""

from collections.abc import Mapping
from typing import Final

from google.protobuf.unknown_fields import UnknownFieldSet

from countersign.ledger.v1.entry_pb2 import Entry

SCHEMA_EPOCH: Final = 1
"""The meaning of entries that this program knows."""

KIND_MIN: Final = 10
KIND_MAX: Final = 999

KINDS: Final[Mapping[str, int]] = {
    field.name: field.number for field in Entry.DESCRIPTOR.oneofs_by_name["event"].fields
}
"""Each kind that this program knows, with its number."""

DOCUMENTS: Final = frozenset(
    KINDS[name]
    for name in (
        "directive_published",
        "directive_withdrawn",
        "registry_published",
        "officers_published",
        "registrars_ordered",
    )
)
"""Kinds that put a document in force or end it: they form one chain (see Entry.previous_document)."""

REGISTRATIONS: Final = frozenset({"registry_published", "officers_published"})
"""Those of them by which owners register, by name."""

REGISTRY: Final = REGISTRATIONS | {"registrars_ordered"}
"""Those that change who takes part: registrations, and what the registrars order of an owner."""

_NAMES: Final = {number: name for name, number in KINDS.items()}


def kind_number(entry: Entry) -> int | None:
    """Give the number of an entry's kind; None when it has no event, or more than one."""
    fields = UnknownFieldSet(entry)
    numbers = {fields[at].field_number for at in range(len(fields))}
    events = {number for number in numbers if KIND_MIN <= number <= KIND_MAX}
    known = entry.WhichOneof("event")
    if known is not None:
        events.add(KINDS[known])
    return events.pop() if len(events) == 1 else None


def kind_name(entry: Entry) -> str:
    """Give the kind as it is shown: its name, or "unknown kind N"."""
    number = kind_number(entry)
    if number is None:
        return "unknown kind"
    return _NAMES.get(number, f"unknown kind {number}")


def kind_of(text: str) -> int | None:
    """Read the kind that a reader asks for, by name or by number; None when there is no such kind."""
    if text in KINDS:
        return KINDS[text]
    if text.isascii() and text.isdigit() and len(text) <= len(str(KIND_MAX)):
        number = int(text)
        return number if KIND_MIN <= number <= KIND_MAX else None
    return None
