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
  ascending order, the SHA-256 of the text of the statement that it signed last, and then that of the order
  about it that counted last, if there is one: whoever reads the entries can work it out, and the officers
  behind the commitments are part of it.
- What is ordered of an owner (`registry.rulings`) takes nothing away that a rule may name: it is told of as
  expelled, and its officers and overseers are unknown.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RegistryStatement
from registry.commitments import Commitments, Committed
from registry.document import AGENCY_BYTES_MAX, AGENCY_FILE, PublicPart, parse_public
from registry.entries import check_officers, content_of, refused_of, what_opens
from registry.findings import RegistryRefused, refused
from registry.names import Names, check_provider, lists_changed
from registry.publication import Previous
from registry.published import Applied, Candidate, Pending, Published
from registry.rulings import OwnKeys, Ruled, Rulings
from registry.sections import OFFICERS, OVERSIGHT, Sections, sections_of
from registry.signature import Signed, Statement, check_statement, key_name, parse_keys
from registry.standings import Standings
from shared.registrars import Registrars
from shared.registry import Officer, Registry
from tlog.note import Verifier

PARTS_MAX: Final = 100_000
"""More than a million officers in one publication."""

_DIGEST_CONTEXT: Final = b"countersign/registry/v1\0"


class Fold:
    """The registry as far as entries were applied, in their order."""

    def __init__(
        self,
        admitted: Mapping[str, Iterable[str]],
        log: str = "",
        registrars: Sequence[Registrars] = (),
    ) -> None:
        """`admitted`: who may take part, and whose keys sign an owner's first document; raises TlogError.

        `log` is the origin of the log that is followed; without one, what was signed for any counts.
        """
        self._log = log
        self._admitted = {owner: parse_keys(vkeys) for owner, vkeys in admitted.items()}
        self._own = {owner: OwnKeys().with_keys(k, k) for owner, k in self._admitted.items()}
        self._rulings = Rulings(log, registrars)
        self._published: dict[str, Published] = {}
        self._pending: dict[str, Pending] = {}
        self._names = Names()
        self._sections = Sections()
        self._standings = Standings()
        self._days: frozenset[date] = frozenset()
        self._registry: Registry | None = None

    def copy(self) -> "Fold":
        """The same, to try something on; what is applied to one is not in the other."""
        other = Fold({}, self._log)
        other._admitted = self._admitted
        other._own, other._rulings = dict(self._own), self._rulings.copy()
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
            self._registry = Registry.assembled(tables, self.sha256, self._days, self.expelled)
        return self._registry

    @property
    def sha256(self) -> bytes:
        """The registry's digest (see above)."""
        digests = b""
        for owner in sorted(self._published.keys() | self._rulings.owners):
            published, ruled = self._published.get(owner), self._rulings.get(owner)
            digests += published.statement.sha256 if published else b""
            digests += ruled.order.sha256 if ruled else b""
        return hashlib.sha256(_DIGEST_CONTEXT + digests).digest()

    @property
    def owners(self) -> Mapping[str, Published]:
        """What counts of each."""
        return dict(self._published)

    @property
    def unopened(self) -> Mapping[str, int]:
        """Agencies with officers of whom nothing was opened, and with how many."""
        opened, published = self._standings.opened, self._published.items()
        return +Counter({who: len(its.commitments) - opened[who] for who, its in published})

    @property
    def expelled(self) -> frozenset[str]:
        """Owners whose word counts for nothing."""
        return frozenset(self._names.expelled)

    @property
    def silenced(self) -> frozenset[str]:
        """Owners who have not published since something was ordered of them: their own keys sign nothing."""
        return self._rulings.silenced

    def ruled(self, owner: str) -> Ruled | None:
        """What the registrars ordered of an owner last."""
        return self._rulings.get(owner)

    def published(self, owner: str) -> Published | None:
        """What one owner published."""
        return self._published.get(owner)

    def previous(self, owner: str) -> Previous | None:
        """What the next publication of an owner is made beside."""
        found = self._published.get(owner)
        if found is None:
            return None
        return Previous(replace(found.statement, serial=self._serial(owner)), found.commitments)

    def _serial(self, owner: str) -> int:
        """What the owner's next must exceed. New keys begin anew: a thief may have used the last number."""
        found = self._published.get(owner)
        return found.statement.serial if found and owner not in self.silenced else 0

    def is_under_way(self, owner: str) -> bool:
        """Whether a publication of the owner has begun and is not complete."""
        return owner in self._pending

    def signers(self, owner: str) -> tuple[Verifier, ...]:
        """The keys with which the owner's next document is signed."""
        found, ruled = self._published.get(owner), self._rulings.get(owner)
        if ruled is not None and not ruled.answered:
            return ruled.order.verifiers
        if found is None:
            return self._admitted.get(owner, ())
        return parse_keys(found.public.keys.registry)

    def check(self, signed: Signed) -> None:
        """Raises RegistryRefused when a document would be refused after it was published. Changes nothing."""
        owner = signed.statement.owner
        self._signed(signed.as_proto)
        before = self._published.get(owner)
        known = before.commitments if before else Commitments()
        after = {one.commitment: one for one in signed.officers}
        self._judge(
            Candidate(
                signed.statement,
                signed.key_id,
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
            content = content_of(event)
        elif entry.HasField("officers_published"):
            changed = entry.officers_published
            said, part, parts = changed.statement, changed.part, changed.parts
            check_officers(changed)
            removed = tuple(changed.removed)
            added = tuple(what_opens(changed, openings, on_record=on_record))
        elif entry.HasField("registrars_ordered"):
            return self._order(entry, on_record=on_record)
        else:
            return None
        pending = self._begun(said, part, parts)
        if len(pending.content) + len(content) > AGENCY_BYTES_MAX:
            raise refused_of("FILE_TOO_LARGE", said, "has too long a public part")
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

    def _begun(self, said: RegistryStatement, part: int, parts: int) -> Pending:
        """What is there of the publication that this entry is the next part of."""
        if not 1 <= part <= parts <= PARTS_MAX:
            raise refused_of("PART", said, f"cannot have part {part} of {parts}")
        if part == 1:
            self._signed(said)
            return Pending(said, parts, 0, b"", [], [])
        begun = self._pending.get(said.owner)
        if (
            begun is None
            or begun.statement != said
            or (begun.parts, begun.seen) != (parts, part - 1)
        ):
            raise refused_of(
                "PART", said, f"part {part} of {parts} does not follow what came before"
            )
        return begun

    def _signed(self, said: RegistryStatement) -> Statement:
        """What its owner says, if it signed that; raises RegistryRefused."""
        keys = self.signers(said.owner)
        if not keys and self._rulings.get(said.owner) is not None:
            raise refused_of("EXPELLED", said, f"{said.owner} was expelled, and has no key")
        return check_statement(said, keys)

    def _whole(self, pending: Pending) -> Candidate:
        said = self._signed(pending.statement)
        public = None
        if pending.content:
            if hashlib.sha256(pending.content).digest() != said.document_sha256:
                raise refused_of(
                    "SIGNATURE_OF_OTHER_BYTES", pending.statement, "is not of this text"
                )
            public = parse_public(f"{said.owner}/{AGENCY_FILE}", pending.content)
        key_id = pending.statement.key_id
        return Candidate(said, key_id, public, pending.removed, pending.added)

    def _judge(self, candidate: Candidate, *, on_record: bool) -> Published:
        """What would count; raises RegistryRefused. Changes nothing."""
        said = candidate.statement
        before = self._published.get(said.owner)
        file = f"{said.owner}: serial {said.serial}"
        if self._log and said.log != self._log and (said.log or not on_record):
            # Version 1 named none: what is on record of it stays, and nothing is added.
            what = f"was signed for {said.log or 'no log in particular'}, and this is {self._log}"
            raise refused("SIGNED_FOR_OTHER_LOG", file, what)
        if said.serial <= self._serial(said.owner):
            message = f"is past: {self._serial(said.owner)} is published"
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
        named = {one.public_key for one in parse_keys(public.keys.registry)}
        if named & self._own[said.owner].given_up:
            message = f"names a key in [keys] that the registrars took from {said.owner}"
            raise refused("KEY_GIVEN_UP", file, message)
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

    def _take(self, published: Published, candidate: Candidate) -> Applied:
        """Makes it count. It was judged: from here on nothing is refused."""
        owner, before = published.public.owner, self._published.get(published.public.owner)
        returns = owner in self._names.expelled
        signer = [one for one in self.signers(owner) if key_name(one) == candidate.key_id]
        named = parse_keys(published.public.keys.registry)
        self._own[owner] = self._own[owner].with_keys(named, signer)
        self._rulings.answer(owner)
        self._names.expelled.discard(owner)
        lists: Collection[str] = ()
        if candidate.public is not None:
            lists = lists_changed(before.public if before else None, published.public)
            self._names.replace(published.public)
            self._replace(before.public if before else None, published.public, anew=returns)
        come = {one: self._entered(its) for one, its in candidate.added if its is not None}
        doubtful = self._standings.change(self._names, owner, candidate.removed, come, lists)
        if returns:
            doubtful = self._standings.settle(self._names, owner)
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

    def _order(self, entry: Entry, *, on_record: bool) -> Applied:
        owner = entry.registrars_ordered.owner
        ruled = self._rulings.judge(entry, self._own.get(owner), on_record=on_record)
        self._rulings.take(ruled)
        self._own[owner] = self._own[owner].replaced_by(ruled.order.verifiers)
        self._pending.pop(owner, None)
        published, doubtful = self._published.get(owner), 0
        if ruled.expelled and owner not in self._names.expelled:
            self._names.expelled.add(owner)
            overseers = self._sections.writable(OVERSIGHT)
            for name in published.public.oversight if published else ():
                del overseers[name]
            doubtful = self._standings.settle(self._names, owner)
        self._registry = None
        serial = published.statement.serial if published else 0
        return Applied(owner, serial, True, 0, 0, doubtful)

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

    def _replace(self, before: PublicPart | None, public: PublicPart, *, anew: bool) -> None:
        old = dict(sections_of(before)) if before is not None else {}
        if anew:
            old.pop(OVERSIGHT, None)  # its overseers were taken out
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
