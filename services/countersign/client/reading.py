"""Verifies a reading of requests as it comes: it is on record, nothing is false and nothing is missing."""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from google.protobuf.message import DecodeError

from countersign.client.verify import VerificationError, checkpoint_of, verify_receipt
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RequestsRead
from shared.commitments import commit_to
from shared.entry_facts import facts_of
from shared.registry import TrustRoots
from tlog.errors import TlogError
from tlog.merkle import leaf_hash, verify_inclusion


def verify_openings(entry: Entry, openings: Iterable[pb.DisclosedOpening]) -> None:
    """Raise VerificationError unless each opens a commitment of the entry."""
    committed = {one.field: one.commitment for one in entry.commitments}
    for one in openings:
        expected = commit_to(one.field, one.salt, one.value)
        if not hmac.compare_digest(committed.get(one.field, b""), expected):
            raise VerificationError(
                "OPENING_FALSE", f"what was given as {one.field} is not what was committed to"
            )


class VerifiedReading:
    """A reading of which the beginning was verified. Methods raise VerificationError."""

    def __init__(
        self, beginning: pb.RequestsBeginning, asked: pb.ReadRequestsRequest, trust: TrustRoots
    ) -> None:
        entry = verify_receipt(beginning.reading_receipt, trust)
        self._event = entry.requests_read
        self._fields = list(asked.fields)
        expected = RequestsRead()
        expected.CopyFrom(self._event)
        expected.fields[:] = asked.fields
        expected.authority, expected.with_checks = asked.ground.authority, asked.with_checks
        expected.registrations = asked.registrations
        for bound in ("recorded_from", "recorded_until"):
            expected.ClearField(bound)
            if asked.HasField(bound):
                getattr(expected, bound).CopyFrom(getattr(asked, bound))
        expected.found = beginning.requests
        if asked.agencies:
            expected.agencies[:] = sorted(asked.agencies)
        if self._event != expected:
            raise VerificationError("READING_NOT_RECORDED", "this reading is not on record")
        self._asked = asked
        self._tree = checkpoint_of(beginning.checkpoint, trust)
        self._indexes = sha256()
        self._last = -1
        self._rows = 0

    def entry(self, row: pb.RecordedRequest) -> Entry:
        """The entry of a row, whose openings are its own."""
        if row.index <= self._last:
            raise VerificationError("READING_MISMATCH", "the entries are not in order")
        self._last = row.index
        self._rows += 1
        self._indexes.update(row.index.to_bytes(8, "big"))
        try:
            tree = self._tree
            verify_inclusion(leaf_hash(row.leaf), row.index, tree.size, row.hashes, tree.root)
            entry = Entry.FromString(row.leaf)
        except TlogError as error:
            raise VerificationError("ENTRY_NOT_PROVED", f"entry {row.index}: {error}") from error
        except DecodeError as error:
            raise VerificationError("ENTRY_NOT_PROVED", f"entry {row.index}: unreadable") from error
        if not {one.field for one in row.openings} <= set(self._fields):
            raise VerificationError("READING_MISMATCH", "other fields than were asked for")
        if row.index < self._asked.start_index or not self._is_asked_for(entry):
            what = f"entry {row.index} is not one that was asked for"
            raise VerificationError("READING_MISMATCH", what)
        verify_openings(entry, row.openings)
        return entry

    def _is_asked_for(self, entry: Entry) -> bool:
        """Whether it is of the kinds, agencies and time: others would be counted and judged as these."""
        asked, kind = self._asked, entry.WhichOneof("event")
        if asked.registrations:
            return kind == "officers_published"
        facts = facts_of(entry)
        return (
            kind in ("search_decided", *(["search_checked"] if asked.with_checks else []))
            and (not asked.agencies or facts.origin_agency in asked.agencies)
            and not (
                asked.HasField("recorded_from")
                and facts.recorded_us < asked.recorded_from.ToMicroseconds()
            )
            and not (
                asked.HasField("recorded_until")
                and facts.recorded_us >= asked.recorded_until.ToMicroseconds()
            )
        )

    def finish(self) -> None:
        """At the end: it was all that was put on record."""
        if (self._rows, self._indexes.digest()) != (self._event.found, self._event.indexes_sha256):
            raise VerificationError("READING_MISMATCH", "other entries than were put on record")
