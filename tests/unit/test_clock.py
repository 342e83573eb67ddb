"""Times in messages."""

from datetime import UTC, datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import stamp

ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)), ZONES)
def test_a_stamp_is_what_protobuf_makes_of_the_time(since: timedelta, zone: timezone) -> None:
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + since).astimezone(zone)
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert stamp(moment) == expected
