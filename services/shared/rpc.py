"""The gRPC door of each service: mutual TLS, who may call what, validation, errors, telemetry.

Every call passes one interceptor, in this order: the caller's SPIFFE ID is read from the certificate;
the access table says whether it may call this method (a method that is not in the table is refused);
the request is checked against the rules in its contract; the handler runs; an expected failure
becomes its status with google.rpc details, and anything else INTERNAL without detail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import protovalidate
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind, StatusCode

from shared import telemetry
from shared.errors import (
    Broken,
    FieldViolation,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    ServiceError,
    TooLate,
    Unavailable,
    Withdrawn,
    from_status,
    to_status,
)
from shared.identity import SpiffeId
from shared.settings import ListenSettings, TlsFiles

log = logging.getLogger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
AccessRule: TypeAlias = Callable[[SpiffeId], bool]
Response = TypeVar("Response", bound=Message)

MESSAGE_BYTES_MAX: Final = 3 * 1024 * 1024
"""A sealed probe of 2 MiB with its facts; a smaller bound is a smaller target."""
CONCURRENT_RPCS_MAX: Final = 512
"""Past this the server refuses at once with RESOURCE_EXHAUSTED instead of letting calls pile up."""
VIOLATIONS_MAX: Final = 20

_HEALTH: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/"

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

_call_duration = telemetry.meter.create_histogram(
    "rpc.server.call.duration",
    unit="s",
    description="Duration of calls served",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


def caller(context: Context) -> SpiffeId:
    """Who calls, from the certificate that the TLS handshake checked. Raises NotAuthentic."""
    uris = [
        value.decode("utf-8", "replace")
        for value in (context.auth_context() or {}).get("peer_spiffe_id", ())
    ] or [
        text
        for value in (context.auth_context() or {}).get("x509_subject_alternative_name", ())
        if (text := value.decode("utf-8", "replace")).startswith("spiffe://")
    ]
    if len(uris) != 1:
        raise NotAuthentic(
            "IDENTITY_UNKNOWN", "the caller's certificate must hold exactly one SPIFFE ID"
        )
    return SpiffeId.parse(uris[0])


class _Door(grpc.aio.ServerInterceptor):
    def __init__(self, trust_domain: str, access: Mapping[str, AccessRule]) -> None:
        self._trust_domain = trust_domain
        self._access = access
        self._validator = protovalidate.Validator()

    async def intercept_service(  # type: ignore[override]  # one door for every method's types
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(details)
        method = str(details.method)
        if handler is None or method.startswith((_HEALTH, _REFLECTION)):
            return handler
        headers = {
            key: value for key, value in details.invocation_metadata if isinstance(value, str)
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, headers, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, headers, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise AssertionError(f"{method}: the door serves unary requests only")

    def _unary(self, method: str, headers: dict[str, str], behaviour: Any) -> Any:
        async def call(request: Message, context: Context) -> Message:
            with _served(method, headers) as outcome:
                try:
                    self._admit(method, request, context)
                    response: Message = await behaviour(request, context)
                except asyncio.CancelledError:
                    outcome.code = "CANCELLED"
                    raise
                except Exception as error:  # noqa: BLE001  # every failure gets a status
                    status = outcome.failed(method, error)
                else:
                    return response
            await context.abort_with_status(rpc_status.to_status(status))
            raise AssertionError("abort raises")

        return call

    def _stream(self, method: str, headers: dict[str, str], behaviour: Any) -> Any:
        async def call(request: Message, context: Context) -> AsyncIterator[Message]:
            with _served(method, headers) as outcome:
                try:
                    self._admit(method, request, context)
                    async with contextlib.aclosing(behaviour(request, context)) as responses:
                        async for response in responses:
                            yield response
                except (asyncio.CancelledError, GeneratorExit):
                    outcome.code = "CANCELLED"
                    raise
                except Exception as error:  # noqa: BLE001  # every failure gets a status
                    status = outcome.failed(method, error)
                else:
                    return
            await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _admit(self, method: str, request: Message, context: Context) -> None:
        who = caller(context)
        rule = self._access.get(method)
        if who.trust_domain != self._trust_domain or rule is None or not rule(who):
            raise NotAllowed("CALLER_NOT_ALLOWED", f"{who} may not call {method}")
        violations = self._validator.collect_violations(request)
        if violations:
            raise InvalidRequest(
                "INVALID_REQUEST",
                f"{len(violations)} field(s) of the request break a rule; see the details",
                violations=[_violation(found.proto) for found in violations[:VIOLATIONS_MAX]],
            )


def _violation(found: Any) -> FieldViolation:
    path = ".".join(element.field_name for element in found.field.elements)
    return FieldViolation(path, found.message or found.rule_id)


@dataclass
class _Outcome:
    span: Any
    code: str = "OK"

    def failed(self, method: str, error: Exception) -> status_pb2.Status:
        """The status for the caller; logs what is a bug."""
        if not isinstance(error, ServiceError):
            log.error("call failed", exc_info=error, extra={"fields": {"method": method}})
            self.span.set_status(StatusCode.ERROR)
            error = Broken("INTERNAL", "internal error")
        self.code = error.status.name
        self.span.set_attribute("error.type", error.reason)
        return to_status(error)


@contextlib.contextmanager
def _served(method: str, headers: dict[str, str]) -> Any:
    name = method.lstrip("/")
    attributes: dict[str, str] = {"rpc.system.name": "grpc", "rpc.method": name}
    started = time.perf_counter()
    with (
        telemetry.continued(headers),
        telemetry.tracer.start_as_current_span(
            name, kind=SpanKind.SERVER, attributes=attributes, record_exception=False
        ) as span,
    ):
        outcome = _Outcome(span)
        try:
            yield outcome
        finally:
            attributes["rpc.response.status_code"] = outcome.code
            span.set_attribute("rpc.response.status_code", outcome.code)
            _call_duration.record(time.perf_counter() - started, attributes)


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
    """Mutual TLS; certificate and key are read again when they change, for new connections."""

    def read() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())], tls.authority.read_bytes()
        )

    latest = read()
    stamp = _modified(tls)

    def changed() -> grpc.ServerCertificateConfiguration:
        nonlocal latest, stamp
        with contextlib.suppress(OSError):  # half-written files: keep what worked
            if _modified(tls) != stamp:
                latest, stamp = read(), _modified(tls)
        return latest

    return grpc.dynamic_ssl_server_credentials(latest, changed, require_client_authentication=True)


def _modified(tls: TlsFiles) -> tuple[int, ...]:
    return tuple(p.stat().st_mtime_ns for p in (tls.certificate, tls.key, tls.authority))


async def start_server(
    register: Callable[[grpc.aio.Server], None],
    *,
    services: Sequence[str],
    listen: ListenSettings,
    trust_domain: str,
    access: Mapping[str, AccessRule],
) -> RunningServer:
    """Starts a server with health and reflection. `access` maps "/package.Service/Method" to a rule."""
    server = grpc.aio.server(
        interceptors=[_Door(trust_domain, access)],
        options=list(SERVER_OPTIONS),
        maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX,
    )
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        [*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    port = server.add_secure_port(listen.address, server_credentials(listen.tls))
    await server.start()
    running = RunningServer(server, port, checks)
    for service in ("", *services):
        await running.set_serving(service, True)
    if listen.port_file:
        listen.port_file.write_text(f"{port}\n")
    return running


def open_channel(
    address: str, tls: TlsFiles, options: Sequence[tuple[str, Any]] = CHANNEL_OPTIONS
) -> grpc.aio.Channel:
    """A channel with mutual TLS. The server's certificate must name the host of the address."""
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(address, credentials, options=list(options))


def service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """What the server raised, rebuilt; or what befell the call on its way."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    if status is not None:
        return from_status(status)
    code, detail = error.code(), error.details() or error.code().name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate("DEADLINE_EXCEEDED", "no answer within the deadline")
    if code is grpc.StatusCode.CANCELLED:
        return Withdrawn("CANCELLED", "the call was cancelled")
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
    with telemetry.tracer.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
    ) as span:
        headers: dict[str, str] = {}
        telemetry.inject(headers)
        try:
            return await method(request, timeout=timeout_s, metadata=tuple(headers.items()))
        except grpc.aio.AioRpcError as error:
            span.set_attribute("rpc.response.status_code", error.code().name)
            span.set_status(StatusCode.ERROR)
            raise service_error(error) from error
