"""The doors of an installation: each says how it is and what it serves, and needs a certificate."""

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from countersign.installation.parts import GrpcDoor
from countersign.installation.prepare import PROBER
from support.installations import InstallationUnderTest
from support.waiting import WAIT_S_MAX

SERVICES = {
    "broker": "countersign.broker.v1.BrokerService",
    "ledger": "countersign.ledger.v1.LedgerService",
    "policy": "countersign.policy.v1.PolicyService",
    "connector-lacris": "grpc.health.v1.Health",
}


@pytest.mark.parametrize(("process", "service"), SERVICES.items())
def test_every_port_has_health_and_reflection(
    installation: InstallationUnderTest, process: str, service: str
) -> None:
    part = installation.processes[process].part
    assert part.door.answers()
    assert service in reflected(part.port, installation)


def reflected(port: int, installation: InstallationUnderTest) -> set[str]:
    tls = installation.layout.tls(PROBER)
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        responses = list(stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S_MAX))
    return {one.name for one in responses[0].list_services_response.service}


def test_no_port_answers_without_a_certificate(installation: InstallationUnderTest) -> None:
    authority = installation.layout.authority.read_bytes()
    for name in SERVICES:
        port = installation.processes[name].part.port
        with grpc.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(authority)
        ) as channel:
            ready = grpc.channel_ready_future(channel)
            with pytest.raises(grpc.FutureTimeoutError):
                ready.result(timeout=1)
            ready.cancel()


def test_a_killed_process_is_ready_again_on_its_port(installation: InstallationUnderTest) -> None:
    policy = installation.processes["policy"]
    policy.kill()
    door = policy.part.door
    assert isinstance(door, GrpcDoor)
    assert not door.answers()
    policy.start()
    assert door.answers()
