"""The gRPC door of each service: mutual TLS, who may call what, validation, errors, telemetry.

Every call passes `shared.door`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from shared import telemetry
from shared.channels import LOOK_EVERY_S, RenewedChannel
from shared.door import AccessRule as AccessRule
from shared.door import Context as Context
from shared.door import Door, Limit
from shared.door import caller as caller
from shared.errors import (
    ServiceError,
    TooLate,
    Unavailable,
    from_status,
)
from shared.settings import ListenSettings, SettingsError, TlsFiles
from shared.tls import Renewal

Response = TypeVar("Response", bound=Message)

MESSAGE_BYTES_MAX: Final = 3 * 1024 * 1024
"""A sealed probe of 2 MiB with its facts; a smaller bound is a smaller target."""
CONCURRENT_RPCS_MAX: Final = 4096
"""Backstop for all callers together: past it the server refuses at once instead of letting calls
pile up. The bound of one caller is in the door."""

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX + 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # Connections end now and then so that renewed certificates take effect.
    ("grpc.max_connection_age_ms", 30 * 60 * 1000),
    ("grpc.max_connection_age_grace_ms", 60 * 1000),
)
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX + 1024 * 1024),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class RunningServer:
    """A server that listens."""

    server: grpc.aio.Server
    port: int
    health: Any

    async def set_serving(self, service: str, serving: bool) -> None:
        """Sets what the health service says of one service."""
        states = health_pb2.HealthCheckResponse
        await self.health.set(service, states.SERVING if serving else states.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, lets calls finish for the grace, and stops."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Mutual TLS; certificate and key are read again when they change, for new connections.

    Raises SettingsError when they cannot be read at all.
    """

    def read() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())], tls.authority.read_bytes()
        )

    renewal = Renewal(tls)
    try:
        latest = read()
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from error

    def changed() -> grpc.ServerCertificateConfiguration:
        nonlocal latest
        latest = renewal.renewed(read) or latest
        return latest

    return grpc.dynamic_ssl_server_credentials(latest, changed, require_client_authentication=True)


async def start_server(
    register: Callable[[grpc.aio.Server], None],
    *,
    services: Sequence[str],
    listen: ListenSettings,
    trust_domain: str,
    access: Mapping[str, AccessRule],
    limit: Limit | None = None,
) -> RunningServer:
    """Starts a server with health and reflection. `access` maps "/package.Service/Method" to a rule.

    Raises SettingsError when it cannot listen.
    """
    server = grpc.aio.server(
        interceptors=[Door(trust_domain, access, limit)],
        options=list(SERVER_OPTIONS),
        maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX,
    )
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        [*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    credentials = server_credentials(listen.tls)
    try:
        port = server.add_secure_port(listen.address, credentials)
    except RuntimeError as error:
        raise SettingsError(f"cannot listen on {listen.address}") from error
    await server.start()
    running = RunningServer(server, port, checks)
    for service in ("", *services):
        await running.set_serving(service, True)
    if listen.port_file:
        listen.port_file.write_text(f"{port}\n")
    return running


def open_channel(
    address: str,
    tls: TlsFiles,
    options: Sequence[tuple[str, Any]] = CHANNEL_OPTIONS,
    look_every_s: float = LOOK_EVERY_S,
) -> grpc.aio.Channel:
    """A channel with mutual TLS. The server's certificate must name the host of the address.

    Certificate, key and authority are read again when they change, for new calls; whether they have, a call
    looks after so long. Raises OSError when they cannot be read at first.
    """

    def made() -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
        )
        return grpc.aio.secure_channel(address, credentials, options=list(options))

    return RenewedChannel(tls, made, look_every_s)


def service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """What the server raised, rebuilt; or what befell the call on its way."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None
    if status is not None:
        return from_status(status)
    code, detail = error.code(), error.details() or error.code().name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate("DEADLINE_EXCEEDED", "no answer within the deadline")
    if code is grpc.StatusCode.CANCELLED:
        # Whoever cancels a call of his own gets a CancelledError. So it was dropped: a server that stops
        # does so with calls that reach it in that moment.
        return Unavailable("UNREACHABLE", "the server dropped the call", retry_after_s=1)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            "UNREACHABLE", f"the server cannot be reached: {detail}", retry_after_s=1
        )
    return from_status(status_pb2.Status(code=code.value[0], message=detail))


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Any, Response],
    request: Message,
    *,
    name: str,
    timeout_s: float,
) -> Response:
    """Calls a unary RPC within a CLIENT span; raises ServiceError. `name` is "package.Service/Method"."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    here = asyncio.current_task()
    assert here is not None
    cancelled = here.cancelling()
    with telemetry.span(name, SpanKind.CLIENT, attributes) as span:
        headers: dict[str, str] = {}
        telemetry.inject(headers)
        try:
            response = await method(request, timeout=timeout_s, metadata=tuple(headers.items()))
        except grpc.aio.AioRpcError as error:
            span.set_attribute("rpc.response.status_code", error.code().name)
            _heed_cancellation(here, cancelled)
            raise service_error(error) from error
        span.set_attribute("rpc.response.status_code", "OK")
    _heed_cancellation(here, cancelled)
    return response


def _heed_cancellation(here: asyncio.Task[Any], before: int) -> None:
    """gRPC keeps one to itself that meets the answer, or an error (UnaryUnaryCall of grpcio 1.82).

    Whoever was to stop, for Ctrl-C, a deadline or the end of a process, would go on or try again.
    """
    if here.cancelling() > before:
        raise asyncio.CancelledError


async def call_stream(
    method: grpc.aio.UnaryStreamMultiCallable[Any, Response],
    request: Message,
    *,
    name: str,
    timeout_s: float,
) -> AsyncGenerator[Response, None]:
    """Calls a streaming RPC within a CLIENT span; raises ServiceError. Close it to end the call."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    # Not the current span: between two responses the caller does work of its own.
    span = telemetry.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    headers: dict[str, str] = {}
    telemetry.inject(headers, span)
    stream = method(request, timeout=timeout_s, metadata=tuple(headers.items()))
    try:
        async for response in stream:
            yield response
        span.set_attribute("rpc.response.status_code", "OK")
    except grpc.aio.AioRpcError as error:
        span.set_attribute("rpc.response.status_code", error.code().name)
        rebuilt = service_error(error)
        telemetry.failed(span, rebuilt.reason)
        raise rebuilt from error
    finally:
        # A call that is merely dropped would go on (grpc issue 43462).
        stream.cancel()
        span.end()
