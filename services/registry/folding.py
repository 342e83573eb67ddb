"""Folds what is published into the registry that decisions are made by.

Invariants:
- A publication counts all at once, from its last entry on, and only if its owner signed exactly what comes
  of it.
- What is on record counts or not by what is public alone: by the names, numbers, signatures and digests in
  its entries. What stands behind commitments decides which officers count, and may be destroyed.
- Nothing is put on record, though, whose openings would leave an officer in doubt (`check`, `apply`).
- What is refused changes nothing.
- A registry that was given out never changes. One officer's change copies a thousandth of the officers.
- The registry's digest is SHA-256 over "countersign/registry/v1", one zero byte and, for each owner in
  ascending order, the SHA-256 of the text of the statement that it signed last: whoever reads the entries
  can work it out, and the officers behind the commitments are part of it.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import (
    OfficersPublished,
    RegistryPublished,
    RegistryStatement,
)
from registry.commitments import COMMITMENT_BYTES, Commitments, Committed, opened
from registry.document import AGENCY_BYTES_MAX, AGENCY_FILE, PublicPart, parse_public
from registry.findings import RegistryRefused, refused
from registry.names import Names, check_provider, lists_changed
from registry.publication import ADDED_MAX, FIELDS, REMOVED_MAX, Previous
from registry.sections import OFFICERS, Sections, sections_of
from registry.signature import Signed, Statement, check_statement, parse_keys
from registry.standings import Standings
from shared.registry import Officer, Registry
from tlog.note import Verifier

PARTS_MAX: Final = 100_000
"""More than a million officers in one publication."""

_DIGEST_CONTEXT: Final = b"countersign/registry/v1\0"


@dataclass(frozen=True)
class Published:
    """What counts of one owner."""

    statement: Statement
    public: PublicPart
    commitments: Commitments
    keys_registered: frozenset[str]
    """For what it has ever registered keys: those of the trust roots count no more for that."""

    def has_registered(self, purpose: str) -> bool:
        """Whether its own keys count for this purpose, and nobody's where it has none any more."""
        return purpose in self.keys_registered

    @property
    def previous(self) -> Previous:
        """For what is to be published next."""
        return Previous(self.statement, self.commitments)


@dataclass(frozen=True)
class Applied:
    """What a publication changed."""

    owner: str
    serial: int
    public_changed: bool
    officers_changed: int
    unopened: int
    """Officers added whom nothing opens: they are unknown, and their searches refused."""
    doubtful: int
    """Officers whom it leaves in doubt (`Standings`): they are unknown too."""


@dataclass
class _Pending:
    """A publication that is not complete."""

    statement: RegistryStatement
    parts: int
    seen: int
    content: bytes
    removed: list[bytes]
    added: list[tuple[bytes, Committed | None]]


@dataclass(frozen=True)
class _Candidate:
    """A publication as a whole."""

    statement: Statement
    public: PublicPart | None
    """None where it stays as it is."""
    removed: Collection[bytes]
    added: Sequence[tuple[bytes, Committed | None]]


class Fold:
    """The registry as far as entries were applied, in their order."""

    def __init__(self, admitted: Mapping[str, Iterable[str]], log: str = "") -> None:
        """`admitted`: who may take part, and whose keys sign an owner's first document; raises TlogError.

        `log` is the origin of the log that is followed; without one, what was signed for any counts.
        """
        self._log = log
        self._admitted = {owner: parse_keys(vkeys) for owner, vkeys in admitted.items()}
        self._published: dict[str, Published] = {}
        self._pending: dict[str, _Pending] = {}
        self._names = Names()
        self._sections = Sections()
        self._standings = Standings()
        self._days: frozenset[date] = frozenset()
        self._registry: Registry | None = None

    def copy(self) -> "Fold":
        """The same, to try something on; what is applied to one is not in the other."""
        other = Fold({}, self._log)
        other._admitted = self._admitted
        other._published = dict(self._published)
        other._pending = {owner: copy.deepcopy(one) for owner, one in self._pending.items()}
        other._names = self._names.copy()
        other._sections = self._sections.copy()
        other._standings = self._standings.copy()
        other._days = self._days
        other._registry = self._registry
        return other

    @property
    def registry(self) -> Registry:
        """As of now; it stays as it is when more is applied."""
        if self._registry is None:
            tables = {**self._sections.give(), OFFICERS: self._standings.known}
            self._registry = Registry.assembled(tables, self.sha256, self._days)
        return self._registry

    @property
    def sha256(self) -> bytes:
        """The registry's digest (see above)."""
        digests = (self._published[owner].statement.sha256 for owner in sorted(self._published))
        return hashlib.sha256(_DIGEST_CONTEXT + b"".join(digests)).digest()

    @property
    def owners(self) -> Mapping[str, Published]:
        """What counts of each."""
        return dict(self._published)

    @property
    def unopened(self) -> Mapping[str, int]:
        """Agencies with officers of whom nothing was opened, and with how many."""
        opened, published = self._standings.opened, self._published.items()
        return +Counter({who: len(its.commitments) - opened[who] for who, its in published})

    def published(self, owner: str) -> Published | None:
        """What counts of one owner."""
        return self._published.get(owner)

    def is_under_way(self, owner: str) -> bool:
        """Whether a publication of the owner has begun and is not complete."""
        return owner in self._pending

    def signers(self, owner: str) -> tuple[Verifier, ...]:
        """The keys with which the owner's next document is signed."""
        found = self._published.get(owner)
        if found is None:
            return self._admitted.get(owner, ())
        return parse_keys(found.public.keys.registry)

    def check(self, signed: Signed) -> None:
        """Raises RegistryRefused when a document would be refused after it was published. Changes nothing."""
        owner = signed.statement.owner
        check_statement(signed.as_proto, self.signers(owner))
        before = self._published.get(owner)
        known = before.commitments if before else Commitments()
        after = {one.commitment: one for one in signed.officers}
        self._judge(
            _Candidate(
                signed.statement,
                signed.document.public,
                [one for one in known if one not in after],
                [(one, said) for one, said in after.items() if one not in known],
            ),
            on_record=False,
        )

    def apply(self, entry: Entry, openings: Mapping[str, str]) -> Applied | None:
        """Tries an entry before it is put on record, with what its commitments open to, by field.

        None for an entry of another kind, and while a publication is not complete. Raises RegistryRefused,
        and nothing has changed; also for what only its openings show, such as another agency's officer.
        """
        return self._next(entry, openings, on_record=False)

    def follow(self, entry: Entry, openings: Mapping[str, str]) -> Applied | None:
        """Applies an entry that is on record; an opening that is not there is one that was destroyed.

        As `apply`, but whether it is refused follows from the entries alone. An opening that opens nothing is
        as good as none, and officers of whom two things are said, or who are on a list on which their agency
        may not enter them, are unknown.
        """
        return self._next(entry, openings, on_record=True)

    def _next(
        self, entry: Entry, openings: Mapping[str, str], *, on_record: bool
    ) -> Applied | None:
        content = b""
        removed: tuple[bytes, ...] = ()
        added: tuple[tuple[bytes, Committed | None], ...] = ()
        if entry.HasField("registry_published"):
            event = entry.registry_published
            said, part, parts = event.statement, event.part, event.parts
            content = _content(event)
        elif entry.HasField("officers_published"):
            changed = entry.officers_published
            said, part, parts = changed.statement, changed.part, changed.parts
            _check_officers(changed)
            removed = tuple(changed.removed)
            added = tuple(_opened(changed, openings, on_record=on_record))
        else:
            return None
        pending = self._begun(said, part, parts)
        if len(pending.content) + len(content) > AGENCY_BYTES_MAX:
            raise _refused("FILE_TOO_LARGE", said, "has too long a public part")
        pending.seen = part
        pending.content += content
        pending.removed += removed
        pending.added += added
        if part < parts:
            self._pending[said.owner] = pending
            return None
        # Complete, or refused as a whole: then its owner signs another, under the next serial number.
        self._pending.pop(said.owner, None)
        candidate = self._whole(pending)
        return self._take(self._judge(candidate, on_record=on_record), candidate)

    def _begun(self, said: RegistryStatement, part: int, parts: int) -> _Pending:
        """What is there of the publication that this entry is the next part of."""
        if not 1 <= part <= parts <= PARTS_MAX:
            raise _refused("PART", said, f"cannot have part {part} of {parts}")
        if part == 1:
            check_statement(said, self.signers(said.owner))
            return _Pending(said, parts, 0, b"", [], [])
        begun = self._pending.get(said.owner)
        if (
            begun is None
            or begun.statement != said
            or (begun.parts, begun.seen) != (parts, part - 1)
        ):
            raise _refused("PART", said, f"part {part} of {parts} does not follow what came before")
        return begun

    def _whole(self, pending: _Pending) -> _Candidate:
        said = check_statement(pending.statement, self.signers(pending.statement.owner))
        public = None
        if pending.content:
            if hashlib.sha256(pending.content).digest() != said.document_sha256:
                raise _refused("SIGNATURE_OF_OTHER_BYTES", pending.statement, "is not of this text")
            public = parse_public(f"{said.owner}/{AGENCY_FILE}", pending.content)
        return _Candidate(said, public, pending.removed, pending.added)

    def _judge(self, candidate: _Candidate, *, on_record: bool) -> Published:
        """What would count; raises RegistryRefused. Changes nothing."""
        said = candidate.statement
        before = self._published.get(said.owner)
        file = f"{said.owner}: serial {said.serial}"
        if self._log and said.log != self._log and (said.log or not on_record):
            # Version 1 named none: what is on record of it stays, and nothing is added.
            what = f"was signed for {said.log or 'no log in particular'}, and this is {self._log}"
            raise refused("SIGNED_FOR_OTHER_LOG", file, what)
        if before is not None and said.serial <= before.statement.serial:
            message = f"is past: {before.statement.serial} is published"
            raise refused("SERIAL_OLD", file, message)
        public = candidate.public or (before.public if before else None)
        if public is None:
            raise refused("DOCUMENT", file, "has no public part, and none was published before")
        if public.owner != said.owner:
            raise refused("STATEMENT", file, f"has the public part of {public.owner}")
        if candidate.public is None:
            assert before is not None, "there is a public part, and it is not a new one"
            if said.document_sha256 != before.statement.document_sha256:
                raise refused("SIGNATURE_OF_OTHER_BYTES", file, "is not of the public part")
        commitments = before.commitments if before else Commitments()
        commitments = commitments.changed(candidate.removed, [one for one, _ in candidate.added])
        if (len(commitments), commitments.sha256) != (said.officers, said.officers_sha256):
            raise refused("SIGNATURE_OF_OTHER_BYTES", file, "is not of these officers")
        if not public.is_agency and commitments:
            raise refused("OFFICERS_OF_NO_AGENCY", file, f"{said.owner} is no agency")
        findings = list(self._names.check_public(public)) if candidate.public else []
        if not on_record:
            findings += check_provider(public)
            added = [its for _, its in candidate.added if its is not None]
            findings += self._standings.check(self._names, public, candidate.removed, added)
        if findings:
            raise RegistryRefused(findings)
        before_keys = before.keys_registered if before else frozenset[str]()
        return Published(said, public, commitments, before_keys | public.purposes)

    def _take(self, published: Published, candidate: _Candidate) -> Applied:
        """Makes it count. It was judged: from here on nothing is refused."""
        owner, before = published.public.owner, self._published.get(published.public.owner)
        lists: Collection[str] = ()
        if candidate.public is not None:
            lists = lists_changed(before.public if before else None, published.public)
            self._names.replace(published.public)
            self._replace(before.public if before else None, published.public)
        come = {one: self._entered(its) for one, its in candidate.added if its is not None}
        doubtful = self._standings.change(self._names, owner, candidate.removed, come, lists)
        self._published[owner] = published
        self._registry = None
        return Applied(
            owner,
            published.statement.serial,
            candidate.public is not None,
            max(len(candidate.removed), len(candidate.added)),
            sum(its is None for _, its in candidate.added),
            doubtful,
        )

    def _entered(self, its: Committed) -> tuple[str, Officer]:
        said = its.said
        self._name_days([said.certificates, said.certificates_issued])
        officer = Officer.model_construct(
            agency=said.agency,
            active=said.active,
            lists=said.lists,
            certificates=said.certificates,
            certificates_issued=said.certificates_issued,
        )
        return said.officer, officer

    def _replace(self, before: PublicPart | None, public: PublicPart) -> None:
        old = sections_of(before) if before is not None else {}
        for section, entries in sections_of(public).items():
            gone = old.get(section, {})
            if gone == entries:
                continue
            table = self._sections.writable(section)
            for name in gone:
                del table[name]
            table.update(entries)
        if public.agency is not None:
            self._name_days([public.agency.agreements])

    def _name_days(self, dated: Iterable[Mapping[str, date]]) -> None:
        named = {day for days in dated for day in days.values()}
        if not named <= self._days:
            self._days |= named


def _content(event: RegistryPublished) -> bytes:
    """The entry's part of the public part, which comes before all officers."""
    document, said = event.document, event.statement
    if document.sha256 != said.document_sha256 or document.part != event.part:
        raise _refused("PART", said, "has a part of another document, or another part of it")
    if not document.part <= document.parts <= event.parts:
        raise _refused("PART", said, f"cannot have {document.parts} parts of the document")
    return document.content


def _check_officers(changed: OfficersPublished) -> None:
    """What can be said of an entry without its openings; raises RegistryRefused."""
    said, commitments = changed.statement, (*changed.added, *changed.removed)
    if changed.origin_agency != said.owner:
        raise _refused("STATEMENT", said, "is of another agency than its entry")
    if len(changed.added) > ADDED_MAX or len(changed.removed) > REMOVED_MAX:
        raise _refused("PART", said, "changes too many officers in one entry")
    if any(len(one) != COMMITMENT_BYTES for one in commitments):
        raise _refused("PART", said, "has a commitment of another length")


def _opened(
    changed: OfficersPublished, openings: Mapping[str, str], *, on_record: bool
) -> Iterator[tuple[bytes, Committed | None]]:
    """Each commitment with what opens it; raises RegistryRefused unless that is on record."""
    for field, one in zip(FIELDS, changed.added, strict=False):
        its = None
        try:
            its = opened(openings[field]) if field in openings else None
            if its is not None and its.commitment != one:
                message = f"has an opening {field} that is of something else"
                raise _refused("OPENING", changed.statement, message)
        except RegistryRefused:
            if not on_record:
                raise
            its = None
        if on_record and its is not None and its.said.agency != changed.statement.owner:
            its = None  # Nobody speaks for another agency's officers.
        yield one, its


def _refused(guard: str, said: RegistryStatement, message: str) -> RegistryRefused:
    return refused(guard, f"{said.owner}: serial {said.serial}", message)
