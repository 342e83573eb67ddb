"""Messages as programs and people read them, also those with a time that no calendar has.

Entries are somebody else's: whoever keeps a ledger must not make a page of it unreadable by one entry whose
time cannot be written down.
"""

from datetime import UTC
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def message_dict(message: Message) -> dict[str, Any]:
    """A message as JSON has it: fields by their names in the contracts, bytes in base64."""
    try:
        return MessageToDict(message, preserving_proto_field_name=True)
    except SerializeToJsonError:
        return _field_by_field(message)


def moment_text(stamp: Timestamp, form: str) -> str:
    """A time (UTC) in a form as `strftime` has it; one that no calendar has stays the number that it is."""
    try:
        return stamp.ToDatetime(UTC).strftime(form)
    except (ValueError, OverflowError):
        return _number(stamp)


def _number(stamp: Timestamp) -> str:
    return f"{stamp.seconds} s and {stamp.nanos} ns after 1970"


def _field_by_field(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            document[field.name] = (
                [_inner(one) for one in value] if field.is_repeated else _inner(value)
            )
            continue
        alone = type(message)()
        if field.is_repeated:
            getattr(alone, field.name).extend(value)
        else:
            setattr(alone, field.name, value)
        document |= MessageToDict(alone, preserving_proto_field_name=True)
    return document


def _inner(message: Message) -> Any:
    if not isinstance(message, Timestamp):
        return message_dict(message)
    try:
        return message.ToJsonString()
    except ValueError:
        return _number(message)
