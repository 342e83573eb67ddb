"""What an entry that registers says, looked at by itself: its part of a publication, and what opens it."""

from collections.abc import Iterator, Mapping

from countersign.ledger.v1.event_pb2 import (
    OfficersPublished,
    RegistryPublished,
    RegistryStatement,
)
from registry.commitments import COMMITMENT_BYTES, Committed, opened
from registry.findings import RegistryRefused, refused
from registry.publication import ADDED_MAX, FIELDS, REMOVED_MAX


def content_of(event: RegistryPublished) -> bytes:
    """The entry's part of the public part, which comes before all officers."""
    document, said = event.document, event.statement
    if document.sha256 != said.document_sha256 or document.part != event.part:
        raise refused_of("PART", said, "has a part of another document, or another part of it")
    if not document.part <= document.parts <= event.parts:
        raise refused_of("PART", said, f"cannot have {document.parts} parts of the document")
    return document.content


def check_officers(changed: OfficersPublished) -> None:
    """What can be said of an entry without its openings; raises RegistryRefused."""
    said, commitments = changed.statement, (*changed.added, *changed.removed)
    if changed.origin_agency != said.owner:
        raise refused_of("STATEMENT", said, "is of another agency than its entry")
    if len(changed.added) > ADDED_MAX or len(changed.removed) > REMOVED_MAX:
        raise refused_of("PART", said, "changes too many officers in one entry")
    if any(len(one) != COMMITMENT_BYTES for one in commitments):
        raise refused_of("PART", said, "has a commitment of another length")


def what_opens(
    changed: OfficersPublished, openings: Mapping[str, str], *, on_record: bool
) -> Iterator[tuple[bytes, Committed | None]]:
    """Each commitment with what opens it; raises RegistryRefused unless that is on record."""
    for field, one in zip(FIELDS, changed.added, strict=False):
        its = None
        try:
            its = opened(openings[field]) if field in openings else None
            if its is not None and its.commitment != one:
                message = f"has an opening {field} that is of something else"
                raise refused_of("OPENING", changed.statement, message)
        except RegistryRefused:
            if not on_record:
                raise
            its = None
        if on_record and its is not None and its.said.agency != changed.statement.owner:
            its = None  # Nobody speaks for another agency's officers.
        yield one, its


def refused_of(guard: str, said: RegistryStatement, message: str) -> RegistryRefused:
    """A refusal of what an owner signed."""
    return refused(guard, f"{said.owner}: serial {said.serial}", message)
