"""Times that are none: named where somebody hands them in."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1.policy_pb2 import PublishRegistrationRequest
from countersign.type.v1.search_pb2 import SearchFacts
from shared.times import no_times

FIRST, LAST = -62135596800, 253402300799


def entry(seconds: int = 0, nanos: int = 0) -> Entry:
    said = Entry(search_id="0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11")
    said.recorded_at.seconds = 1
    instrument = said.search_checked.summary.circumstances.instrument
    instrument.issued_at.seconds, instrument.issued_at.nanos = seconds, nanos
    return said


WHERE = "search_checked.summary.circumstances.instrument.issued_at"


@pytest.mark.parametrize(
    ("seconds", "nanos", "found"),
    [
        (0, 0, []),
        (FIRST, 0, []),
        (LAST, 999_999_999, []),
        (FIRST - 1, 0, [WHERE]),
        (LAST + 1, 0, [WHERE]),
        (0, -1, [WHERE]),
        (0, 10**9, [WHERE]),
    ],
)
def test_a_time_out_of_range_is_found_where_it_stands(
    seconds: int, nanos: int, found: list[str]
) -> None:
    assert list(no_times(entry(seconds, nanos))) == found


def test_spans_of_time_and_times_in_lists_are_looked_at() -> None:
    facts = SearchFacts(expires_after=Duration(seconds=1, nanos=-1))
    assert list(no_times(facts)) == ["expires_after"]
    request = PublishRegistrationRequest()
    request.entries.add().entry.recorded_at.seconds = 1
    request.entries.add().entry.recorded_at.CopyFrom(Timestamp(nanos=-1))
    assert list(no_times(request)) == ["entries[1].entry.recorded_at"]
