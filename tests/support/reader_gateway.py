"""What the Kubernetes component for an oversight body's readers lets through, and as whom."""

from collections.abc import Iterable
from typing import Final

import yaml
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default

from countersign.ledger.v1 import append_pb2, disclosure_pb2, ledger_pb2, query_pb2
from shared.identity import SpiffeId
from support.manifests import DEPLOY, Manifest

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
