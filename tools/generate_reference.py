"""Writes docs/reference.md: every service, message and enum of the contracts, from their comments."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from buf.validate import validate_pb2

HEADER = """# Reference of the contracts

Generated from `proto/` by `make proto`; do not edit. Rules are those that the server checks on every
request ([protovalidate](https://protovalidate.com)); a request that breaks one is refused with
INVALID_ARGUMENT and a `google.rpc.BadRequest` that names each field.

"""

Path_ = tuple[int, ...]
MESSAGES, ENUMS, SERVICES, FIELDS, VALUES, METHODS = 4, 5, 6, 2, 2, 2
"""Field numbers in descriptor.proto, of which the paths of comments are made."""


def comments(file: FileDescriptorProto) -> dict[Path_, str]:
    """Leading comments by path."""
    return {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }


def type_name(field: FieldDescriptorProto) -> str:
    """The type as one would write it."""
    if field.type_name:
        name = field.type_name.lstrip(".")
        short = name.rsplit(".", 1)[-1]
        name = f"[{short}](#{short.lower()})" if name.startswith("countersign.") else name
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def rules(field: FieldDescriptorProto) -> str:
    """The field's rules, in the notation of protovalidate."""
    if not field.options.HasExtension(validate_pb2.field):
        return ""
    text = text_format.MessageToString(
        field.options.Extensions[validate_pb2.field], as_one_line=True
    )
    return f" Rule: `{text.strip().replace('|', '&#124;')}`"


def message_lines(message: DescriptorProto, path: Path_, said: dict[Path_, str]) -> Iterator[str]:
    """One message as a section."""
    yield f"### {message.name}\n\n{said.get(path, '')}\n"
    if message.field:
        yield "| field | type | meaning |\n|---|---|---|"
    for number, field in enumerate(message.field):
        meaning = said.get((*path, FIELDS, number), "") + rules(field)
        yield f"| `{field.name}` | {type_name(field)} | {meaning} |"
    yield ""


def enum_lines(enum: EnumDescriptorProto, path: Path_, said: dict[Path_, str]) -> Iterator[str]:
    """One enum as a section."""
    yield f"### {enum.name}\n\n{said.get(path, '')}\n"
    yield "| value | meaning |\n|---|---|"
    for number, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {said.get((*path, VALUES, number), '')} |"
    yield ""


def file_lines(file: FileDescriptorProto) -> Iterator[str]:
    """One contract as a chapter."""
    said = comments(file)
    yield f"## {file.package} ({Path(file.name).name})\n"
    for number, service in enumerate(file.service):
        yield f"### {service.name}\n\n{said.get((SERVICES, number), '')}\n"
        yield "| RPC | request | response | what it does |\n|---|---|---|---|"
        for index, method in enumerate(service.method):
            request = method.input_type.rsplit(".", 1)[-1]
            response = method.output_type.rsplit(".", 1)[-1]
            stream = "stream of " if method.server_streaming else ""
            meaning = said.get((SERVICES, number, METHODS, index), "")
            yield (
                f"| `{method.name}` | [{request}](#{request.lower()}) "
                f"| {stream}[{response}](#{response.lower()}) | {meaning} |"
            )
        yield ""
    for number, message in enumerate(file.message_type):
        yield from message_lines(message, (MESSAGES, number), said)
    for number, enum in enumerate(file.enum_type):
        yield from enum_lines(enum, (ENUMS, number), said)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path, help="made by generate_protos.py --image")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    image = FileDescriptorSet.FromString(arguments.image.read_bytes())
    ours = [file for file in image.file if file.name.startswith("countersign/")]
    ours.sort(key=lambda file: ("broker" not in file.package, file.package, file.name))
    lines = [line for file in ours for line in file_lines(file)]
    arguments.output.write_text(HEADER + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
