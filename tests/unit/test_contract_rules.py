"""Each field that somebody outside fills in has a rule of its contract, and each list has pages."""

from collections.abc import Iterator
from typing import Final

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2
from countersign.broker.v1 import broker_pb2
from countersign.ledger.v1 import disclosure_pb2, ledger_pb2, query_pb2
from countersign.policy.v1 import policy_pb2

FILES: Final = (broker_pb2, ledger_pb2, query_pb2, disclosure_pb2, policy_pb2)
METHODS: Final[dict[str, MethodDescriptor]] = {
    f"{service.name}.{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ANY_VALUE_IS_SOUND: Final = frozenset(
    {
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        # Of its own fields; a time that is none is refused everywhere (`shared.times`).
        FieldDescriptor.TYPE_MESSAGE,
    }
)
JUDGED_BY_WHAT_THEY_SAY: Final = frozenset(
    {
        # Entries as an owner signed them: the registry reads them as strictly as those on record.
        "countersign.ledger.v1.PendingEntry",
        # What the broker found proved of another installation. Nobody else is asked with it.
        "countersign.policy.v1.Peer",
    }
)


def fields(message: Descriptor, above: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    for field in message.fields:
        yield field
        inner = field.message_type
        if inner is None or inner.full_name in above | JUDGED_BY_WHAT_THEY_SAY:
            continue
        if inner.full_name.startswith("countersign."):
            yield from fields(inner, above | {inner.full_name})


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_a_request_has_a_rule(name: str) -> None:
    without = {
        field.full_name
        for field in fields(METHODS[name].input_type)
        if (field.is_repeated or field.type not in ANY_VALUE_IS_SOUND)
        and not field.GetOptions().HasExtension(validate_pb2.field)
    }
    assert without == set()


@pytest.mark.parametrize("name", [name for name in METHODS if ".List" in name or ".Query" in name])
def test_every_list_has_pages(name: str) -> None:
    method = METHODS[name]
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name
