"""Whether somebody says what this release has no word for."""

from google.protobuf.message import Message


def has_unknown_fields(message: Message) -> bool:
    """Whether it, or a message in it, has a field that the contracts of this release do not have."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()
