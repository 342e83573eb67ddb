"""The directives that the ledger holds: what follows from its documents, one after the other.

Whoever applies the same documents in the same order holds the same, so a service that lost everything, or an
auditor who never had anything, comes to the rules by which a search was decided.

Invariants:
- A document is applied whole or refused; a directive is never passed over, or its prohibitions would be gone.
- What is published stays: a name belongs to one text for ever, and an end is only ever brought forward.
- Each document names the one before it. One that names another is refused: something was left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DirectivePublished, DirectiveWithdrawn
from directive import document, guards, signature
from directive.book import Book, Directive, succeeding
from directive.document import MANIFEST_FILE, Document
from directive.findings import DocumentError
from directive.guards import KnownNames
from directive.signature import Signers
from directive.vocabulary import Vocabulary
from shared.kinds import REGISTRY

LEDGER: Final = "ledger"
"""How messages name where a document was found."""


@dataclass(frozen=True)
class World:
    """What a directive is read against."""

    vocabulary: Vocabulary
    known: KnownNames | None
    """What rules may name; None for a document on record, whose names were looked up before."""
    signers: Signers | None
    """Whose signature counts; None when nobody is asked who wrote a directive."""

    @property
    def is_new(self) -> bool:
        """Whether a document is tried that is not on record."""
        return self.known is not None


@dataclass(frozen=True)
class Held:
    """A directive on record."""

    directive: Directive
    index: int
    """Of the ledger entry that holds it."""
    received: datetime
    """When the ledger took it, which is not when it has legal effect."""
    cases: str
    note: str
    replaced_by: str = ""
    withdrawn_index: int | None = None

    @property
    def document(self) -> Document:
        """Its text."""
        return self.directive.document


@dataclass(frozen=True)
class Holdings:
    """All directives on record up to a document. Immutable."""

    head: int | None = None
    """Index of the last document that was applied; None before the first."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """By name."""

    def book(self, vocabulary: Vocabulary) -> Book:
        """The directives, ready to be asked; raises DirectiveRefused when they do not go together."""
        return Book([one.directive for one in self.held.values()], vocabulary)


def published(
    read: Document, cases: str, note: str, holdings: Holdings, recorded_after: int | None
) -> Entry:
    """The entry that puts a directive on record after this document."""
    manifest = read.manifest
    event = DirectivePublished(
        party=manifest.party,
        name=manifest.name,
        sha256=read.sha256,
        source_sha256=bytes.fromhex(manifest.source_sha256 or ""),
        effective_from=midnight(manifest.effective_from),
        manifest_text=read.manifest_text,
        rules_text=read.rules_text,
        cases_text=cases,
        note=note,
    )
    if manifest.effective_until is not None:
        event.effective_until.CopyFrom(midnight(manifest.effective_until))
    replaced = holdings.held.get(manifest.replaces or "")
    if replaced is not None:
        event.replaces_sha256 = replaced.document.sha256
    return Entry(directive_published=event, previous_document=recorded_after)


def withdrawn(held: Held, until: date, note: str, recorded_after: int | None) -> Entry:
    """The entry that ends a directive's effect."""
    event = DirectiveWithdrawn(
        party=held.document.manifest.party,
        name=held.document.name,
        sha256=held.document.sha256,
        effective_until=midnight(until),
        note=note,
    )
    return Entry(directive_withdrawn=event, previous_document=recorded_after)


def apply(holdings: Holdings, index: int, entry: Entry, world: World) -> Holdings:
    """What is held with one document more; raises DirectiveRefused and changes nothing."""
    before = entry.previous_document if entry.HasField("previous_document") else None
    if before != holdings.head:
        message = f"entry {index} follows document {before}, and the last known is {holdings.head}"
        raise DocumentError("CHAIN_BROKEN", LEDGER, message)
    match entry.WhichOneof("event"):
        case "directive_published":
            held = _publish(holdings, index, entry, world)
        case "directive_withdrawn":
            held = _withdraw(holdings, index, entry.directive_withdrawn, world)
        case kind if kind in REGISTRY:
            held = holdings.held
        case kind:
            message = f"entry {index} is a document that this program does not know ({kind})"
            raise DocumentError("DOCUMENT_UNKNOWN", LEDGER, message)
    return Holdings(index, held)


def _publish(holdings: Holdings, index: int, entry: Entry, world: World) -> Mapping[str, Held]:
    event = entry.directive_published
    read = document.parse(event.name, event.manifest_text.encode(), event.rules_text.encode())
    expected = published(read, event.cases_text, event.note, holdings, holdings.head)
    if expected.directive_published != event:
        message = f"entry {index} does not say what its own text says"
        raise DocumentError("ENTRY_CONTRADICTS", f"{event.name}/{MANIFEST_FILE}", message)
    if read.name in holdings.held:
        message = "another directive has had this name: give the new text a name of its own"
        raise DocumentError("NAME_TAKEN", f"{read.name}/{MANIFEST_FILE}", message)
    if world.signers is not None:

        def says(log: str) -> str:
            return signature.statement(read, event.cases_text.encode(), world.vocabulary, log)

        note, file = event.note.encode() or None, f"{read.name}/{signature.SIGNATURE_FILE}"
        signature.check_note(read, note, says, world.signers, new=world.is_new, file=file)
    rules = guards.check(read, world.vocabulary, world.known)
    received = entry.recorded_at.ToDatetime(UTC)
    new = Held(Directive(read, rules), index, received, event.cases_text, event.note)
    return _succeeded({**holdings.held, read.name: new}, read)


def _succeeded(held: Mapping[str, Held], latest: Document) -> Mapping[str, Held]:
    """With the end of what the latest directive takes the place of."""
    changed = dict(held)
    for directive in succeeding([one.directive for one in held.values()]):
        name = directive.document.name
        changed[name] = replace(held[name], directive=directive)
    replaced = latest.manifest.replaces
    if replaced is not None:
        if changed[replaced].replaced_by:
            message = f"{changed[replaced].replaced_by} has taken the place of {replaced} already"
            raise DocumentError("REPLACES", f"{latest.name}/{MANIFEST_FILE}", message)
        changed[replaced] = replace(changed[replaced], replaced_by=latest.name)
    return changed


def _withdraw(
    holdings: Holdings, index: int, event: DirectiveWithdrawn, world: World
) -> Mapping[str, Held]:
    held = holdings.held.get(event.name)
    if held is None:
        message = f"entry {index} withdraws {event.name!r}, which nobody published"
        raise DocumentError("DIRECTIVE_UNKNOWN", LEDGER, message)
    until = _day(event.effective_until)
    expected = withdrawn(held, until, event.note, holdings.head).directive_withdrawn
    if expected != event:
        message = f"entry {index} withdraws another text than the one on record"
        raise DocumentError("ENTRY_CONTRADICTS", LEDGER, message)
    if world.signers is not None:

        def says(log: str) -> str:
            return signature.withdrawal(held.document, until, log)

        # No file of the directive's folder: it was signed when the end was asked for.
        note, file = event.note.encode() or None, f"withdrawal of {event.name}"
        signature.check_note(held.document, note, says, world.signers, new=world.is_new, file=file)
    ends = held.directive.ends
    if ends is not None and ends <= until:
        raise DocumentError("ENDED", LEDGER, f"{event.name} has no effect from {ends} on already")
    cut_off = replace(held.directive, cut_off=until)
    ended = replace(held, directive=cut_off, withdrawn_index=index)
    return {**holdings.held, event.name: ended}


def midnight(day: date) -> Timestamp:
    """The first moment of a day (UTC)."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.combine(day, time(), UTC))
    return stamp


def _day(stamp: Timestamp) -> date:
    try:
        moment = stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise DocumentError("ENTRY_CONTRADICTS", LEDGER, "has a day out of range") from error
    return moment.date()
