"""Messages drawn at random, as their contracts describe them: `messages(pb.GetSearchRequest.DESCRIPTOR)`."""

from collections.abc import Iterator
from typing import Any, Final, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Drawn = TypeVar("Drawn", bound=Message)

DEPTH_MAX: Final = 4
ITEMS_MAX: Final = 3
INJECTIONS: Final = (
    "../../etc/passwd",
    "lacris.>",
    "*",
    ">",
    "orders.lacris.*",
    "a b",
    "lacris\r\nPUB x 0",
    "'; DROP TABLE entries; --",
    "${jndi:ldap://x}",
    "%s%n",
    "\x00",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "A" * 10_000,
    "CA0194200",
    "lacris",
    "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10",
    "eyJhbGciOiJub25lIn0.e30.",
)
"""For paths, subjects, queries and logs, and some that are what they should be."""

_TEXT: Final = st.sampled_from(INJECTIONS) | st.text(st.characters(codec="utf-8"), max_size=40)
_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}


def messages(kind: Descriptor, depth: int = DEPTH_MAX) -> st.SearchStrategy[Message]:
    """Messages of a kind; any field may be missing, nonsense, or an attack."""
    fields = {
        field.name: st.lists(_values(field, depth), max_size=ITEMS_MAX)
        if field.is_repeated
        else st.lists(_values(field, depth), max_size=1)
        for field in kind.fields
        if depth or field.message_type is None
    }

    def made(drawn: dict[str, list[Any]]) -> Message:
        message = GetMessageClass(kind)()
        for field in kind.fields:
            for value in drawn.get(field.name, ()):
                _put(message, field, value)
        return message

    return st.fixed_dictionaries(fields).map(made)


def wire(kind: Descriptor) -> st.SearchStrategy[bytes]:
    """Bytes that may be such a message: drawn, damaged, or out of nothing."""
    sound = messages(kind).map(lambda message: message.SerializeToString())
    return sound | damaged(sound) | st.binary(max_size=200)


def damaged(sound: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The same with a few bytes changed somewhere."""
    return st.tuples(sound, st.integers(0, 2**16), st.binary(max_size=8)).map(_damaged)


def _damaged(drawn: tuple[bytes, int, bytes]) -> bytes:
    data, at, other = drawn
    at %= len(data) + 1
    return data[:at] + other + data[at + len(other) :]


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth - 1)
    if field.cpp_type in _INTEGERS:
        return _INTEGERS[field.cpp_type] | st.sampled_from([0, 1, 2])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    if field.enum_type is not None:
        return st.sampled_from([*(one.number for one in field.enum_type.values), 99, -1])
    return st.binary(max_size=64) if field.type == FieldDescriptor.TYPE_BYTES else _TEXT


def _put(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated and field.message_type is not None:
        getattr(message, field.name).add().CopyFrom(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def every_field_marked(message: Drawn, mark: str) -> Iterator[Drawn]:
    """The message again for each field of text or bytes that it could have, with the mark in that one."""
    for path in _texts_of(cast("Descriptor", message.DESCRIPTOR), DEPTH_MAX):
        marked = type(message)()
        marked.CopyFrom(message)
        inner: Any = marked
        for field in path[:-1]:
            inner = getattr(inner, field.name)
            inner = inner.add() if field.is_repeated else inner
        _put(
            inner, path[-1], mark if path[-1].type == FieldDescriptor.TYPE_STRING else mark.encode()
        )
        yield marked


def _texts_of(kind: Descriptor, depth: int) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in kind.fields:
        if field.message_type is not None and depth:
            for path in _texts_of(field.message_type, depth - 1):
                yield (field, *path)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (field,)
