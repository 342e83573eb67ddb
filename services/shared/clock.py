"""Where times come from, so that tests can stand still."""

from datetime import UTC, datetime
from typing import Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""
        return datetime.now(UTC)


def stamp(moment: datetime) -> Timestamp:
    """An aware time as messages hold it: `FromDatetime` in a fifth of the time."""
    made = Timestamp()
    put_stamp(made, moment)
    return made


def put_stamp(into: Timestamp, moment: datetime) -> None:
    """The same in its place in a message, where it needs no memory of its own."""
    since = moment - _EPOCH
    into.seconds = since.days * 86_400 + since.seconds
    into.nanos = since.microseconds * 1000
