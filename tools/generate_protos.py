"""Writes the Python beside each contract, and the image of the contracts that buf checks.

protovalidate's wheel carries the descriptor of `buf/validate/validate.proto` but not its text, so the
compiler is given that descriptor and the two buf checks run on an image instead of on the sources.
"""

import argparse
import sys
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def validate_descriptors() -> bytes:
    """The descriptor set that holds `buf/validate/validate.proto` and what it imports."""
    descriptors = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    descriptors.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return descriptors.SerializeToString(deterministic=True)


def contracts(root: Path) -> list[str]:
    """Paths of our contracts below the root, in a fixed order."""
    return sorted(str(path.relative_to(root)) for path in root.glob("countersign/**/*.proto"))


def compile_protos(root: Path, scratch: Path, outputs: list[str], files: list[str]) -> None:
    """Runs protoc; exits with its message when it fails."""
    descriptors = scratch / "validate.binpb"
    descriptors.write_bytes(validate_descriptors())
    arguments = ["protoc", f"-I{root}", f"--descriptor_set_in={descriptors}", *outputs, *files]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed; see above")


def generate(root: Path, scratch: Path) -> None:
    """Writes the Python and its types beside each contract."""
    for stale in root.rglob("*_pb2*.py*"):
        stale.unlink()
    for folder in {(root / name).parent for name in contracts(root)}:
        (folder / "__init__.py").write_text('"""Generated from the contract beside it."""\n')
    outputs = [f"--python_out={root}", f"--mypy_out=quiet:{root}"]
    compile_protos(root, scratch, outputs, [*contracts(root), "buf/validate/validate.proto"])
    outputs = [f"--grpc_python_out={root}", f"--mypy_grpc_out=quiet,only_async:{root}"]
    services = [name for name in contracts(root) if "\nservice " in (root / name).read_text()]
    compile_protos(root, scratch, outputs, services)


def write_image(root: Path, scratch: Path, image: Path) -> None:
    """Writes the image that `buf lint` and `buf breaking` read."""
    outputs = [f"--descriptor_set_out={image}", "--include_source_info", "--include_imports"]
    compile_protos(root, scratch, outputs, contracts(root))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("proto"))
    parser.add_argument("--scratch", type=Path, required=True, help="folder for temporary files")
    parser.add_argument("--image", type=Path, help="write this image instead of the Python")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    if arguments.image:
        write_image(arguments.root, arguments.scratch, arguments.image)
    else:
        generate(arguments.root, arguments.scratch)


if __name__ == "__main__":
    main()
