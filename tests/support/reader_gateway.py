"""What the Kubernetes component for an oversight body's readers lets through, and as whom."""

from collections.abc import Iterable
from typing import Final

import grpc
import yaml
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from countersign.ledger.v1 import append_pb2, disclosure_pb2, ledger_pb2, query_pb2
from shared.identity import SpiffeId
from shared.rpc import call, call_stream
from support.manifests import DEPLOY, Manifest

TIMEOUT_S: Final = 20
FOLDER: Final = DEPLOY / "components" / "gateway-api-grpc"
SERVICES: Final = tuple(
    service
    for file in (ledger_pb2, query_pb2, disclosure_pb2, append_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""Everything that a ledger serves."""


def objects(file: str) -> list[Manifest]:
    """The objects of one of the component's files."""
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


def routed(manifests: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Service and method of each call that some GRPCRoute leads on."""
    matches = [
        match
        for one in manifests
        if one["kind"] == "GRPCRoute"
        for rule in one["spec"]["rules"]
        # A rule without any leads everything on.
        for match in rule.get("matches") or [{}]
    ]
    assert all(match.get("method", {}).get("type") == "Exact" for match in matches)
    return [(match["method"]["service"], match["method"]["method"]) for match in matches]


def method(service: str, name: str) -> MethodDescriptor:
    """A method as its contract has it. Raises KeyError."""
    return Default().FindServiceByName(service).FindMethodByName(name)


def identity() -> SpiffeId:
    """Who the gateway is to the ledger."""
    (certificate,) = objects("cert-manager/certificate.yaml")
    (uri,) = certificate["spec"]["uris"]
    return SpiffeId.parse(uri)


ALL: Final = {f"/{one.full_name}/{rpc.name}": rpc for one in SERVICES for rpc in one.methods}
"""Every method of a ledger, by the path of its calls."""
ROUTED: Final = [f"/{service}/{name}" for service, name in routed(objects("gateway.yaml"))]
"""Those that are led on."""
_REQUESTS: Final[dict[str, Message]] = {
    "GetConsistencyProof": ledger_pb2.GetConsistencyProofRequest(first_tree_size=1)
}
"""Of those that take no empty request."""


class Gateway:
    """The calls that a gateway hands on."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def first(self, path: str, request: Message | None = None) -> Message:
        """The answer, or the first of a stream. Raises ServiceError."""
        method = ALL[path]
        wanted = GetMessageClass(method.input_type)
        request = request or _REQUESTS.get(method.name) or wanted()
        way = wanted.SerializeToString, GetMessageClass(method.output_type).FromString
        if not method.server_streaming:
            rpc = self._channel.unary_unary(path, *way)
            return await call(rpc, request, name=path, timeout_s=TIMEOUT_S)
        stream = self._channel.unary_stream(path, *way)
        async for one in call_stream(stream, request, name=path, timeout_s=TIMEOUT_S):
            return one
        raise AssertionError(f"{path}: nothing came")
