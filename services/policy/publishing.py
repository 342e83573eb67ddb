"""Takes directives in and ends them: looks at them as strictly as can be, then puts them on record.

Invariants:
- Nothing is put on record that would not be applied: it is tried on what is held first.
- A party's signature is what counts, not who hands it in.
- Whoever is told that a directive is on record is decided by it from then on: by this service at once, by
  others as soon as they have heard of it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Final

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from directive import cases, document, holdings, publication
from directive.document import MANIFEST_FILE, Document
from directive.entities import EntitiesError
from directive.findings import DirectiveRefused, Finding
from directive.holdings import Held, Holdings
from directive.self_test import EngineUntrustworthy
from policy.documents import Documents, Following
from policy.recording import Recording
from policy.reviewing import Reviewer
from shared.clock import Clock
from shared.errors import (
    Broken,
    Conflict,
    FieldViolation,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from shared.registry import Registry
from tlog.tiles import ENTRY_BYTES_MAX

TRIES_MAX: Final = 5
"""Another policy service may publish meanwhile; what is handed in is looked at anew then."""
VIOLATIONS_MAX: Final = 50
"""Enough to work on; the status of a call has bounds."""

DOCUMENT_BYTES_MAX: Final = ENTRY_BYTES_MAX - 512
"""Of the entry before the ledger adds when and by whom it was recorded."""

_LABEL: Final = "directive"
"""How messages name what has no name yet."""
_UNRECORDED: Final = -1


@dataclass(frozen=True)
class OnRecord:
    """A directive, and the proof of the document by which it got there."""

    held: Held
    receipt: Receipt | None
    """None when it was on record before."""


class Publishing:
    """Publishes for whoever calls."""

    def __init__(
        self, following: Following, recording: Recording, reviewer: Reviewer, clock: Clock
    ) -> None:
        self._following = following
        self._recording = recording
        self._reviewer = reviewer
        self._clock = clock

    async def publish(self, request: pb.PublishDirectiveRequest) -> OnRecord:
        """Put a directive on record; raises ServiceError, and nothing is changed then."""
        try:
            # Nobody's signature was looked at yet: it must not keep decisions waiting.
            read = await asyncio.to_thread(
                document.parse, _LABEL, request.manifest.encode(), request.rules.encode()
            )
        except DirectiveRefused as refused:
            raise _refused(refused.findings) from refused
        reviewed = False
        for _ in range(TRIES_MAX):
            await self._following.catch_up()
            # Copied at once: a document that comes while it is tried must not be half in it.
            tried = self._following.documents.copy()
            now = tried.holdings
            held = now.held.get(read.name)
            if held is not None:
                return OnRecord(_same(held, read, request), None)
            entry = holdings.published(read, request.cases, request.note, now, now.head)
            await asyncio.to_thread(self._look_at, tried, entry, request, read)
            if not reviewed:
                registry = _as_seen_by(read.manifest.party, self._following.documents)
                found = await self._reviewer.findings(read, request.cases, registry)
                if found:
                    raise _refused(found)
                reviewed = True
            receipt = await self._recording.after(now.head, PendingEntry(entry=entry))
            if receipt is not None:
                applied = await self._following.catch_up()
                return OnRecord(_held(applied.holdings, read.name), receipt)
        raise Unavailable("DOCUMENTS_BUSY", "others published meanwhile", retry_after_s=1)

    async def withdraw(self, request: pb.WithdrawDirectiveRequest) -> OnRecord:
        """End a directive's effect; raises ServiceError, and nothing is changed then."""
        until = _day(request.effective_until)
        for _ in range(TRIES_MAX):
            await self._following.catch_up()
            tried = self._following.documents.copy()
            now = tried.holdings
            held = now.held.get(request.name)
            if held is None:
                raise NotFound("DIRECTIVE_UNKNOWN", f"there is no directive {request.name!r}")
            if held.withdrawn_index is not None and held.directive.cut_off == until:
                return OnRecord(held, None)
            today = self._clock.now().astimezone(UTC).date()
            if until < today:
                what = f"is past: what was decided stays; today, {today}, is the first that can be"
                raise _invalid("effective_until", what)
            entry = holdings.withdrawn(held, until, request.note, now.head)
            try:
                await asyncio.to_thread(_apply, tried, entry)
            except DirectiveRefused as refused:
                raise _refused(refused.findings, "WITHDRAWAL_REFUSED") from refused
            receipt = await self._recording.after(now.head, PendingEntry(entry=entry))
            if receipt is not None:
                applied = await self._following.catch_up()
                return OnRecord(_held(applied.holdings, request.name), receipt)
        raise Unavailable("DOCUMENTS_BUSY", "others published meanwhile", retry_after_s=1)

    def _look_at(
        self,
        tried: Documents,
        entry: Entry,
        request: pb.PublishDirectiveRequest,
        read: Document,
    ) -> None:
        today = self._clock.now().astimezone(UTC).date()
        found = publication.check_dates(read, today, received_late=request.received_late)
        if found:
            raise _refused(found)
        if entry.ByteSize() > DOCUMENT_BYTES_MAX:
            message = (
                f"its texts come to {entry.ByteSize()} bytes; a ledger entry holds {DOCUMENT_BYTES_MAX}: "
                "make two directives of it, or shorten its cases"
            )
            file = f"{read.name}/{MANIFEST_FILE}"
            raise _refused([Finding("TOO_LARGE", file, "", message)])
        try:
            # The signature first: who did not sign has nothing of theirs read.
            _apply(tried, entry)
            cases.parse(read.name, request.cases.encode())
        except DirectiveRefused as refused:
            raise _refused(refused.findings) from refused


def _as_seen_by(party: str, documents: Documents) -> Registry:
    """What its cases are judged by: of the officers that were registered, the party's own alone.

    Officers are private, and cases would tell of anybody's whether there is such a one, on which lists, with
    which certificates. A registry file is no secret of theirs: authors are handed it.
    """
    registry = documents.registry
    if documents.fold is None:
        return registry
    own = {name: one for name, one in registry.officers.items() if one.agency == party}
    return registry.model_copy(update={"officers": own})


def _apply(tried: Documents, entry: Entry) -> None:
    """Raise DirectiveRefused unless the document would be applied, alone and with the others."""
    try:
        tried.apply(_UNRECORDED, entry, {})
        tried.made()
    except (EntitiesError, EngineUntrustworthy) as error:
        raise Broken("ENGINE", f"the engine cannot be trusted with it: {error}") from error


def _same(held: Held, read: Document, request: pb.PublishDirectiveRequest) -> Held:
    if held.document.sha256 != read.sha256 or held.cases != request.cases:
        raise Conflict(
            "NAME_TAKEN",
            f"another text has the name {read.name!r} (ledger entry {held.index}): give this one a name of "
            f'its own, and say replaces = "{read.name}" if it is to take its place',
            metadata={"name": read.name, "published_index": str(held.index)},
        )
    return held


def _held(now: Holdings | None, name: str) -> Held:
    if now is None or name not in now.held:
        raise Broken("LEDGER_ANSWER", f"{name} was recorded and is not on record")
    return now.held[name]


def _refused(findings: Sequence[Finding], reason: str = "DIRECTIVE_REFUSED") -> InvalidRequest:
    shown = findings[:VIOLATIONS_MAX]
    return InvalidRequest(
        reason,
        f"{len(findings)} finding(s); nothing was put on record",
        violations=[FieldViolation(_where(one), _what(one)) for one in shown],
    )


def _where(finding: Finding) -> str:
    place = finding.place
    return f"{finding.file}:{place.line}:{place.column}" if place else finding.file


def _what(finding: Finding) -> str:
    return f"{f'{finding.rule}: ' if finding.rule else ''}{finding.message} [{finding.guard}]"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _invalid("effective_until", "is no day") from error


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(
        "INVALID_REQUEST",
        f"{field} {description}",
        violations=[FieldViolation(field, description)],
    )
