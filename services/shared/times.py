"""Times in messages that are none: seconds or nanoseconds out of their range.

The wire carries them, no rule of a contract says anything of nanoseconds, and protobuf's own JSON refuses the
whole message that has one: on record it would be in everybody's way for ever (see `shared.entry_json`).
"""

import functools
from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_TIMES: Final = (Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name)


def no_times(message: Message) -> Iterator[str]:
    """Where a time stands that is none, as a path of fields ("facts.circumstances.emergency.began_at")."""
    return _found(message, "")


def _found(message: Message, path: str) -> Iterator[str]:
    for name, is_repeated in _may_hold(message.DESCRIPTOR):
        if is_repeated:
            several = [(f"[{number}]", one) for number, one in enumerate(getattr(message, name))]
        elif message.HasField(name):
            several = [("", getattr(message, name))]
        else:
            continue
        for number, one in several:
            where = f"{path}{name}{number}"
            if not isinstance(one, (Timestamp, Duration)):
                yield from _found(one, f"{where}.")
            elif _is_none(one):
                yield where


def _is_none(time: Timestamp | Duration) -> bool:
    try:
        time.ToJsonString()
    except ValueError:
        return True
    return False


@functools.cache  # as many as there are kinds of message
def _may_hold(kind: Descriptor) -> tuple[tuple[str, bool], ...]:
    """The fields that are times, or in which there may be some, and whether each is repeated."""
    return tuple(
        (field.name, field.is_repeated)
        for field in kind.fields
        if field.message_type is not None and _holds(field.message_type, frozenset())
    )


def _holds(kind: Descriptor, above: frozenset[str]) -> bool:
    if kind.full_name in _TIMES:
        return True
    within = above | {kind.full_name}
    return any(
        field.message_type is not None
        and field.message_type.full_name not in within
        and _holds(field.message_type, within)
        for field in kind.fields
    )
