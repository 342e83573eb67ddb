"""An entry that is not as entries are, by malice or of a newer program, hides neither itself nor its page."""

import csv
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from countersign.cli.ledger_view import entry_rows, show_entry
from countersign.client import VerificationError
from countersign.client.periods import closings_in, verify_periods
from countersign.client.tables import COLUMNS, csv_line, json_line
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import EntryRecord
from shared.entry_json import message_dict
from shared.kinds import KINDS

NO_SUCH_VALUE = 77
DEPTH_MAX = 5
IN_NO_CALENDAR = [
    (10**15, 0),
    (-(10**15), 0),
    (253_402_300_800, 0),
    (1, -1),
    (2**63 - 1, 2**31 - 1),
]
EARLIEST = (0, 0)


def filled(kind: str, seconds: int, nanos: int) -> Entry:
    """An entry of a kind, with every time the same and every value of an enumeration one that is unknown."""
    entry = Entry(schema_epoch=1)
    _fill(entry.recorded_at, seconds, nanos, 0)
    event = getattr(entry, kind)
    event.SetInParent()
    _fill(event, seconds, nanos, DEPTH_MAX)
    return entry


def _fill(message: Message, seconds: int, nanos: int, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_ENUM:
            _put(message, field, NO_SUCH_VALUE)
        elif field.type == FieldDescriptor.TYPE_STRING:
            _put(message, field, "a word")
        elif field.type == FieldDescriptor.TYPE_BYTES:
            _put(message, field, b"some bytes")
        elif field.full_name == "google.protobuf.Timestamp.seconds":
            _put(message, field, seconds)
        elif field.full_name == "google.protobuf.Timestamp.nanos":
            _put(message, field, nanos)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth:
            for inner in _made(message, field):
                _fill(inner, seconds, nanos, depth - 1)


def _put(message: Message, field: Any, value: object) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _made(message: Message, field: Any) -> Iterator[Message]:
    if field.is_repeated:
        yield getattr(message, field.name).add()
    else:
        inner = getattr(message, field.name)
        inner.SetInParent()
        yield inner


@pytest.mark.promise(4)
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("seconds", "nanos"), [EARLIEST, *IN_NO_CALENDAR])
def test_attack_an_entry_that_cannot_be_written_down_is_shown_all_the_same(
    kind: str, seconds: int, nanos: int
) -> None:
    leaf = filled(kind, seconds, nanos).SerializeToString()
    record = EntryRecord(index=3, leaf=leaf, entry=Entry.FromString(leaf))
    entry_rows([record])
    show_entry(record)
    message_dict(record)
    line = json.loads(json_line(3, leaf))
    assert (line["kind"], line["entry"]["schema_epoch"], kind in line["entry"]) == (kind, 1, True)
    (row,) = csv.reader([csv_line(3, leaf)])
    assert row[COLUMNS.index("kind")] == kind


@pytest.mark.promise(4)
@pytest.mark.parametrize(("seconds", "nanos"), IN_NO_CALENDAR)
def test_attack_a_period_of_no_time_is_found_wrong_and_stops_no_count(
    seconds: int, nanos: int
) -> None:
    closed = filled("period_closed", seconds, nanos)
    closed.period_closed.part = closed.period_closed.parts = 1
    closed.period_closed.first_index, closed.period_closed.end_index = 0, 1
    closed.period_closed.ClearField("previous_index")
    leaves = [filled("heartbeat", 5, 0).SerializeToString(), closed.SerializeToString()]
    with pytest.raises(VerificationError, match="the period closed in entry 1"):
        verify_periods(leaves, closings_in(enumerate(leaves)))


def test_what_can_be_written_down_is_written_as_ever() -> None:
    entry = filled("period_closed", 5, 0)
    as_ever = message_dict(entry)
    entry.recorded_at.seconds = 10**15
    changed = message_dict(entry)
    assert changed.pop("recorded_at") == "1000000000000000 s and 0 ns after 1970"
    assert as_ever.pop("recorded_at") == "1970-01-01T00:00:05Z"
    assert changed == as_ever
