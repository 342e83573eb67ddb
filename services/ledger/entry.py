"""Completes what the broker sends into the exact bytes of an entry, and its openings.

Invariants:
- the bytes made here are what is hashed, stored and served; nothing serialises an entry again;
- a sensitive value enters an entry only as a commitment under a fresh random salt, so that without
  its opening it cannot be found by trying values.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from shared.clock import Clock, stamp
from shared.commitments import SALT_BYTES, commit_to
from shared.entry_facts import DECIDED, OPENING_OUTCOMES, WITH_ORIGIN, WITH_SUMMARY
from shared.errors import FieldViolation, InvalidRequest
from shared.kinds import DOCUMENTS, KINDS, SCHEMA_EPOCH, kind_number
from tlog.tiles import ENTRY_BYTES_MAX

SALTS_DRAWN: Final = 1024
PREPARE_TRIES: Final = 5
"""Others may take keys meanwhile; who still lacks some then waits for them as they are taken."""

SENSITIVE_FIELDS_MAX: Final = 16
"""A search has three; the bound keeps a faulty appender from filling the openings."""
SENSITIVE_VALUE_CHARACTERS_MAX: Final = 8000
"""Twice the longest narrative."""
IDEMPOTENCY_KEY_CHARACTERS_MAX: Final = 200

_FIELD_NAME = re.compile("[a-z][a-z_]{0,39}")

LEDGERS_OWN: Final = frozenset(
    {
        "opening_read",
        "openings_searched",
        "requests_read",
        "expunge_requested",
        "openings_expunged",
        "expunge_declined",
        "export_made",
        "period_closed",
        "heartbeat",
        "log_restored",
        "runs_reported",
    }
)
"""Kinds that tell what the ledger itself did: nobody else can say so."""

DOCUMENT_KEYS: Final = "document/"
"""With which the keys of documents begin, which hold their chain together (see `ledger.documents`)."""


# What is made for every entry is a NamedTuple: a frozen dataclass costs three times as much to make, and
# there are nine of these to an entry.


class Opening(NamedTuple):
    """What stands behind a commitment: kept apart from the entry, disclosed by right."""

    field: str
    salt: bytes
    value: str


class SealedOpening(NamedTuple):
    """An opening as it is stored, in the order of its table's columns after the entry's index."""

    field: str
    holder: str
    """Whose keys seal it: an agency, or who gave it as a reason (see `holder_of`)."""
    block: int
    slot: int
    """Where the entry's data key is (see `ledger.keyring`)."""
    sealed: bytes
    lookup_token: bytes | None
    """What it is found by, where its field is one that entries are looked up by."""


class Sealer(Protocol):
    """Encrypts openings."""

    def is_ready(self, holder: str, count: int) -> bool:
        """Whether so many entries can be sealed at once, without waiting for keys."""

    def prepare(self, holder: str) -> None:
        """Wait for keys. Raises ServiceError."""

    def seal(
        self, holder: str, openings: Sequence[tuple[Opening, bytes]]
    ) -> tuple[SealedOpening, ...]:
        """Seal the openings of one entry, each given with its commitment. Raises ServiceError."""


class IndexColumns(NamedTuple):
    """What an entry is found by, derived from the entry alone."""

    kind: int
    search_id: str | None
    origin_agency: str | None
    permitted: bool
    """True for the decision that opens a search."""


class CompletedEntry(NamedTuple):
    """An entry ready to be appended."""

    leaf: bytes
    idempotency_key: str | None
    columns: IndexColumns
    openings: tuple[SealedOpening, ...]


class _Checked(NamedTuple):
    """A pending entry in which nothing is to be refused, and what was learnt of it on the way."""

    pending: PendingEntry
    place: str
    columns: IndexColumns
    holder: str
    values: dict[str, str]


class Completer:
    """Completes the entries of one appender. `own` for the ledger's own, `publisher` for documents only.

    Without a sealer it takes no sensitive values.
    """

    def __init__(
        self,
        recorded_by: str,
        clock: Clock,
        random: Callable[[int], bytes] = os.urandom,
        *,
        sealer: Sealer | None = None,
        own: bool = False,
        publisher: bool = False,
    ) -> None:
        self._recorded_by = recorded_by
        self._clock = clock
        self._random = random
        self._sealer = sealer
        self._own = own
        self._publisher = publisher
        self._salts: list[bytes] = []

    def _salt(self) -> bytes:
        """Give a salt that was never given before.

        They are drawn many at a time: each draw is a system call that lets the writer's thread take
        the interpreter's lock, which under load costs far more than the draw.
        """
        if not self._salts:
            drawn = self._random(SALT_BYTES * SALTS_DRAWN)
            self._salts = [drawn[at : at + SALT_BYTES] for at in range(0, len(drawn), SALT_BYTES)]
        return self._salts.pop()

    async def completed(self, pending: Sequence[PendingEntry]) -> list[CompletedEntry]:
        """Complete entries with keys at hand for them, so that it does not hold up the event loop.

        Raises InvalidRequest, or Unavailable when nothing can be sealed.
        """
        checked = [self._checked(one, f"entries[{number}]") for number, one in enumerate(pending)]
        await self._prepare(Counter(one.holder for one in checked if one.values))
        # One reading of the clock: they were taken together.
        recorded_at = stamp(self._clock.now())
        return [self._completed(one, recorded_at) for one in checked]

    async def _prepare(self, counts: Counter[str]) -> None:
        if self._sealer is None:
            return
        for _ in range(PREPARE_TRIES):
            lacking = [who for who, n in counts.items() if not self._sealer.is_ready(who, n)]
            if not lacking:
                return
            for holder in lacking:
                await asyncio.to_thread(self._sealer.prepare, holder)

    def complete(self, pending: PendingEntry, place: str) -> CompletedEntry:
        """Give the entry's bytes and openings. `place` names the entry in the error.

        Raises InvalidRequest, or Unavailable when nothing can be sealed.
        """
        return self._completed(self._checked(pending, place), stamp(self._clock.now()))

    def _checked(self, pending: PendingEntry, place: str) -> _Checked:
        kind = _check(pending, place)
        if kind in LEDGERS_OWN and not self._own:
            raise _invalid(f"{place}.entry.event", f"{kind} is for the ledger alone to record")
        if (KINDS[kind] in DOCUMENTS) is not self._publisher:
            whose = "for the publisher of documents alone" if not self._publisher else "no document"
            raise _invalid(f"{place}.entry.event", f"{kind} is {whose}")
        if pending.entry.HasField("previous_document") and not self._publisher:
            raise _invalid(f"{place}.entry.previous_document", "is for documents alone")
        if pending.idempotency_key.startswith(DOCUMENT_KEYS) and not self._publisher:
            raise _invalid(f"{place}.idempotency_key", "is one of the documents' own")
        values = _sensitive_values(pending, place)
        columns = _columns(pending.entry, kind)
        return _Checked(pending, place, columns, _holder(pending.entry, kind, columns), values)

    def _completed(self, checked: _Checked, recorded_at: Timestamp) -> CompletedEntry:
        pending, place, columns, holder, values = checked
        entry = Entry()
        entry.CopyFrom(pending.entry)
        entry.schema_epoch = SCHEMA_EPOCH
        entry.recorded_at.CopyFrom(recorded_at)
        entry.recorded_by = self._recorded_by
        openings = []
        commitments = entry.commitments
        for field, value in values.items():
            salt = self._salt()
            committed = commitments.add()
            committed.field = field
            committed.commitment = commitment = commit_to(field, salt, value)
            openings.append((Opening(field, salt, value), commitment))
        leaf = entry.SerializeToString(deterministic=True)
        if len(leaf) > ENTRY_BYTES_MAX:
            raise InvalidRequest(
                "ENTRY_TOO_LARGE",
                f"{place} has {len(leaf)} bytes; an entry has at most {ENTRY_BYTES_MAX}",
                metadata={"bytes": str(len(leaf)), "bytes_max": str(ENTRY_BYTES_MAX)},
            )
        sealed: tuple[SealedOpening, ...] = ()
        if openings:
            assert self._sealer is not None, "who commits to values has somewhere to keep them"
            sealed = self._sealer.seal(holder, openings)
        return CompletedEntry(leaf, pending.idempotency_key or None, columns, sealed)


def _check(pending: PendingEntry, place: str) -> str:
    """Give the name of the event; refuse what the ledger alone may set, and what has no bound."""
    entry = pending.entry
    kind = entry.WhichOneof("event")
    if len(UnknownFieldSet(entry)):
        raise _invalid(
            f"{place}.entry",
            f"has field {UnknownFieldSet(entry)[0].field_number}, which this ledger does not know; "
            "the ledger must not be older than who appends to it",
        )
    if kind is None:
        raise _invalid(f"{place}.entry.event", "is not given")
    if (
        entry.schema_epoch
        or entry.recorded_by
        or entry.commitments
        or entry.HasField("recorded_at")
    ):
        raise _invalid(
            f"{place}.entry",
            "has schema_epoch, recorded_at, recorded_by or commitments set, which "
            "are the ledger's to set",
        )
    if len(pending.idempotency_key) > IDEMPOTENCY_KEY_CHARACTERS_MAX:
        raise _invalid(
            f"{place}.idempotency_key", f"has more than {IDEMPOTENCY_KEY_CHARACTERS_MAX} characters"
        )
    return kind


def _sensitive_values(pending: PendingEntry, place: str) -> dict[str, str]:
    """Give the sensitive values by field, in their order; refuse what has no bound."""
    sensitive = pending.sensitive
    if len(sensitive) > SENSITIVE_FIELDS_MAX:
        raise _invalid(f"{place}.sensitive", f"has more than {SENSITIVE_FIELDS_MAX} fields")
    values = {}
    for one in sensitive:
        field, value = one.field, one.value
        if not _is_field_name(field):
            raise _invalid(f"{place}.sensitive", "a field's name is lower-case letters and _")
        if len(value) > SENSITIVE_VALUE_CHARACTERS_MAX:
            raise _invalid(
                f"{place}.sensitive",
                f"a value has more than {SENSITIVE_VALUE_CHARACTERS_MAX} characters",
            )
        values[field] = value
    if len(values) != len(sensitive):
        raise _invalid(f"{place}.sensitive", "names a field twice")
    return values


@lru_cache(maxsize=256)
def _is_field_name(name: str) -> bool:
    return _FIELD_NAME.fullmatch(name) is not None


def index_columns(entry: Entry) -> IndexColumns | None:
    """Give what an entry is found by; None when it has no event.

    An entry that a newer program wrote is found by what this one can tell of it (see entry.proto).
    """
    number = kind_number(entry)
    if number is None:
        return None
    if entry.schema_epoch > SCHEMA_EPOCH:
        return IndexColumns(number, search_id=None, origin_agency=None, permitted=False)
    kind = entry.WhichOneof("event")
    if kind is None:
        return IndexColumns(number, entry.search_id or None, origin_agency=None, permitted=False)
    return _columns(entry, kind)


def holder_of(entry: Entry) -> str:
    """Whose the openings of an entry are: what a reader must be entitled to.

    An agency's ORI: the origin's, or that of the agency whose call was turned away. For what the ledger
    recorded of a reader, that reader: what a commission gave as its reason is not the agency's to read.
    Empty when nobody's.
    """
    kind = entry.WhichOneof("event")
    return "" if kind is None else _holder(entry, kind, _columns(entry, kind))


def _holder(entry: Entry, kind: str, columns: IndexColumns) -> str:
    if kind in LEDGERS_OWN or kind == "request_rejected":
        return _holder_named(getattr(getattr(entry, kind), "caller", ""))
    return columns.origin_agency or ""


def holder_name(kind: str, name: str) -> str:
    """Give a caller's name as the holder of openings: the ORI of an agency, "oversight/<body>"."""
    return name if kind == "agency" else f"{kind}/{name}"


def _holder_named(caller: str) -> str:
    kind, _, name = caller.partition("://")[2].partition("/")[2].partition("/")
    return holder_name(kind, name) if name else ""


def columns_that_agree(entry: Entry, stored: tuple[object, ...]) -> bool:
    """Whether stored kind, search and origin agency are what the entry says, as far as it is understood."""
    expected = index_columns(entry)
    if expected is None:
        return False
    told = (expected.kind, expected.search_id, expected.origin_agency)
    understood = 3
    if entry.schema_epoch > SCHEMA_EPOCH:
        understood = 1
    elif entry.WhichOneof("event") is None:
        understood = 2
    return told[:understood] == stored[:understood]


def _columns(entry: Entry, kind: str) -> IndexColumns:
    event = getattr(entry, kind)
    origin_agency = ""
    if kind in WITH_SUMMARY:
        origin_agency = event.summary.origin_agency
    elif kind in WITH_ORIGIN:
        origin_agency = event.origin_agency
    number = KINDS[kind]
    return IndexColumns(
        kind=number,
        search_id=entry.search_id or None,
        origin_agency=origin_agency or None,
        permitted=number == DECIDED and event.decision.outcome in OPENING_OUTCOMES,
    )


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(
        "ENTRY_INVALID",
        f"{field} {description}",
        violations=[FieldViolation(field, description)],
    )
