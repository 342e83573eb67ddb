"""The processes of an installation: how each is started, and how one sees that it is ready."""

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from countersign.installation import leash
from countersign.installation.ports import LOOPBACK, address
from countersign.installation.prepare import PROBER, Installation
from shared.settings import TlsFiles

ANSWER_TIMEOUT_S: Final = 2.0
"""One attempt to see whether a process is ready."""

_ENVIRONMENT_KEPT: Final = "COUNTERSIGN_TELEMETRY"


class NatsServerMissing(Exception):
    """The package that brings the NATS server is not installed."""


class Door(Protocol):
    """Where a process can be asked whether it is ready."""

    def answers(self) -> bool:
        """True when it says that it is. Waits ANSWER_TIMEOUT_S at most."""


@dataclass(frozen=True)
class GrpcDoor:
    """A gRPC port with the health service."""

    port: int
    tls: TlsFiles

    def answers(self) -> bool:
        """True when the health service says SERVING."""
        credentials = grpc.ssl_channel_credentials(
            self.tls.authority.read_bytes(),
            self.tls.key.read_bytes(),
            self.tls.certificate.read_bytes(),
        )
        with grpc.secure_channel(address(self.port), credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                response = stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_TIMEOUT_S)
            except grpc.RpcError:
                return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True)
class NatsDoor:
    """The port of a NATS server, which speaks first."""

    port: int
    tls: TlsFiles

    def answers(self) -> bool:
        """True when the server greets over TLS."""
        context = ssl.create_default_context(cafile=str(self.tls.authority))
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        try:
            with (
                socket.create_connection((LOOPBACK, self.port), ANSWER_TIMEOUT_S) as connection,
                context.wrap_socket(connection, server_hostname=LOOPBACK) as channel,
            ):
                return channel.recv(5) == b"INFO "
        except OSError:
            return False


@dataclass(frozen=True)
class HttpDoor:
    """A plain HTTP port with a health check."""

    port: int

    def answers(self) -> bool:
        """True when the health check says that all is well."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True)
class Part:
    """One process of an installation."""

    name: str
    command: tuple[str, ...]
    port: int
    door: Door
    log: Path

    def leashed(self, parent: int) -> list[str]:
        """The command, tied to the life of the process that starts it."""
        return [sys.executable, "-I", "-S", leash.__file__, str(parent), *self.command]


def stages(installation: Installation) -> list[list[Part]]:
    """All processes in the order of their start; those within one stage need not wait for each other."""
    ports = installation.ports
    first = [] if installation.external_bus is not None else [_nats(installation)]
    if ports.witness is not None:
        # Before the ledger, which asks it at its start how far it has come.
        witness = _service(installation, "witness", "witness", ports.witness)
        first.append(replace(witness, door=HttpDoor(ports.witness)))
    connectors = [
        _service(installation, f"connector-{system}", "connector", port)
        for system, port in ports.connectors.items()
    ]
    in_order = [
        first,
        [
            _service(installation, "ledger", "ledger", ports.ledger),
            _service(installation, "policy", "policy", ports.policy),
        ],
        # The broker makes the streams that connectors read from.
        [_service(installation, "broker", "broker", ports.broker)],
        connectors,
    ]
    return [stage for stage in in_order if stage]


def environment() -> dict[str, str]:
    """Ours, but for settings that would override what the configuration files say."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COUNTERSIGN_") or name.startswith(_ENVIRONMENT_KEPT)
    }


def nats_program() -> Path:
    """The bundled server, beside our own interpreter. Raises NatsServerMissing."""
    program = Path(sys.executable).with_name("nats-server")
    if not program.exists():
        raise NatsServerMissing(
            f"there is no {program}; install the extra countersign[embedded], or run your own NATS "
            "server and name it with --nats-url"
        )
    return program


def _nats(installation: Installation) -> Part:
    layout = installation.layout
    return Part(
        name="nats",
        command=(str(nats_program()), "-c", str(layout.nats_config)),
        port=installation.ports.nats,
        door=NatsDoor(installation.ports.nats, layout.tls(PROBER)),
        log=layout.log("nats"),
    )


def _service(installation: Installation, name: str, module: str, port: int) -> Part:
    layout = installation.layout
    # -P: a folder named "policy" where `countersign up` is called must not be taken for ours.
    command: Sequence[str] = (sys.executable, "-P", "-m", module, str(layout.config(name)))
    return Part(
        name=name,
        command=tuple(command),
        port=port,
        door=GrpcDoor(port, layout.tls(PROBER)),
        log=layout.log(name),
    )
