"""What every call to a service passes before its servicer sees it, and after.

In this order: the caller's SPIFFE ID is read from the certificate; the access table says whether it may
call this method (a method that is not in the table is refused), and the limit how often; the request is
checked against the rules in its contract; the servicer runs; an expected failure becomes its status with
google.rpc details, and anything else INTERNAL without detail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Self, TypeAlias

import grpc
import protovalidate
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from shared import telemetry
from shared.errors import (
    Broken,
    FieldViolation,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    Overloaded,
    ServiceError,
    to_status,
)
from shared.identity import SpiffeId
from shared.times import no_times

log = logging.getLogger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
AccessRule: TypeAlias = Callable[[SpiffeId], bool]
Limit: TypeAlias = Callable[[SpiffeId], None]
"""Raises Overloaded when the caller calls too often."""

CALLS_OF_ONE_CALLER_MAX: Final = 512
"""One agency that opens streams without end must not shut out the others, or the health checks."""
VIOLATIONS_MAX: Final = 20
"""More would not fit the trailers of a response, which gRPC bounds."""

_HEALTH: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/"

_call_duration = telemetry.meter.create_histogram(
    "rpc.server.call.duration",
    unit="s",
    description="Duration of calls served",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


_let_in: Final[dict[int, tuple[Context, SpiffeId]]] = {}
"""Who makes each call that is under way, by its context's identity: gRPC reads the certificate each time."""


def caller(context: Context) -> SpiffeId:
    """Who calls, from the certificate that the TLS handshake checked. Raises NotAuthentic."""
    known = _let_in.get(id(context))
    if known is not None and known[0] is context:
        return known[1]
    identity = context.auth_context() or {}
    uris = [value.decode("utf-8", "replace") for value in identity.get("peer_spiffe_id", ())] or [
        text
        for value in identity.get("x509_subject_alternative_name", ())
        if (text := value.decode("utf-8", "replace")).startswith("spiffe://")
    ]
    if len(uris) != 1:
        raise NotAuthentic(
            "IDENTITY_UNKNOWN", "the caller's certificate must hold exactly one SPIFFE ID"
        )
    return SpiffeId.parse(uris[0])


class _Garbled:
    """Stands for a request whose bytes cannot be read, until the door can say so."""


def _lenient(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | _Garbled]:
    """Without it gRPC would answer UNKNOWN, with the exception's text."""

    def read(data: bytes) -> Message | _Garbled:
        try:
            return deserialize(data)
        except DecodeError:
            return _Garbled()

    return read


class Door(grpc.aio.ServerInterceptor):
    """Stands before every method of a server."""

    def __init__(
        self, trust_domain: str, access: Mapping[str, AccessRule], limit: Limit | None = None
    ) -> None:
        self._trust_domain = trust_domain
        self._access = access
        self._limit = limit
        self._validator = protovalidate.Validator()
        self._handlers: dict[str, Any] = {}
        self._in_flight: dict[SpiffeId, _Calls] = {}

    # One door for every method, whatever its types are.
    async def intercept_service(  # type: ignore[override]
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Puts itself around the method's handler: once, for methods do not change while serving."""
        method = str(details.method)
        ready = self._handlers.get(method)
        if ready is not None:
            return ready
        handler: Any = await continuation(details)
        if handler is None:
            return None  # unknown: not kept, or a stranger could fill the memory with names
        self._handlers[method] = guarded = self._around(method, handler)
        return guarded

    def _around(self, method: str, handler: Any) -> Any:
        if method.startswith((_HEALTH, _REFLECTION)):
            return handler
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                _lenient(handler.request_deserializer),
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                _lenient(handler.request_deserializer),
                handler.response_serializer,
            )
        raise AssertionError(f"{method}: the door serves unary requests only")

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Message, context: Context) -> Message:
            with _Served(method, context) as served:
                try:
                    with self._admitted(method, request, context):
                        response: Message = await behaviour(request, context)
                except asyncio.CancelledError:
                    served.code = "CANCELLED"
                    raise
                except Exception as error:  # noqa: BLE001  # every failure gets a status
                    status = served.failed(error)
                else:
                    return response
            await context.abort_with_status(rpc_status.to_status(status))
            raise AssertionError("abort raises")

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Message, context: Context) -> AsyncIterator[Message]:
            with _Served(method, context) as served:
                try:
                    with self._admitted(method, request, context):
                        async with contextlib.aclosing(behaviour(request, context)) as responses:
                            async for response in responses:
                                yield response
                except (asyncio.CancelledError, GeneratorExit):
                    served.code = "CANCELLED"
                    raise
                except Exception as error:  # noqa: BLE001  # every failure gets a status
                    status = served.failed(error)
                else:
                    return
            await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _admitted(
        self, method: str, request: Message | _Garbled, context: Context
    ) -> AbstractContextManager[None]:
        return _Admitted(self._admit, self._in_flight, method, request, context)

    def _admit(self, method: str, request: Message | _Garbled, who: SpiffeId) -> None:
        rule = self._access.get(method)
        if who.trust_domain != self._trust_domain or rule is None or not rule(who):
            raise NotAllowed("CALLER_NOT_ALLOWED", f"{who} may not call {method}")
        if self._limit is not None:
            # Before the request is looked at: that is what costs.
            self._limit(who)
        if isinstance(request, _Garbled):
            raise InvalidRequest("REQUEST_UNREADABLE", f"the bytes are no request of {method}")
        check_rules(self._validator, request)


class _Calls:
    """How many one caller has in flight."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _Admitted:
    """A call once it has been let in. No generator: every call has one."""

    __slots__ = ("_admit", "_calls", "_context", "_in_flight", "_method", "_request", "_who")

    def __init__(
        self,
        admit: Callable[[str, Message | _Garbled, SpiffeId], None],
        in_flight: dict[SpiffeId, _Calls],
        method: str,
        request: Message | _Garbled,
        context: Context,
    ) -> None:
        self._admit = admit
        self._in_flight = in_flight
        self._method = method
        self._request = request
        self._context = context

    def __enter__(self) -> None:
        context = self._context
        self._who = who = caller(context)
        self._admit(self._method, self._request, who)
        calls = self._in_flight.get(who)
        if calls is None:
            calls = self._in_flight[who] = _Calls()
        elif calls.count >= CALLS_OF_ONE_CALLER_MAX:
            raise Overloaded(
                "CALLER_BUSY",
                f"{who} has {CALLS_OF_ONE_CALLER_MAX} calls in flight",
                retry_after_s=1,
            )
        calls.count += 1
        self._calls = calls
        _let_in[id(context)] = (context, who)

    def __exit__(self, *_: object) -> None:
        del _let_in[id(self._context)]
        self._calls.count -= 1
        if not self._calls.count:
            del self._in_flight[self._who]


def check_rules(validator: protovalidate.Validator, message: Message) -> None:
    """Raises InvalidRequest, naming each field, when the message breaks a rule of its contract."""
    violations = [_violation(found.proto) for found in validator.collect_violations(message)]
    # A rule may have named one of these already: of seconds, but not of nanoseconds, they can.
    named = {violation.field for violation in violations}
    violations += [
        FieldViolation(path, "is no time of the years 1 to 9999, or no span of time")
        for path in no_times(message)
        if path not in named
    ]
    if violations:
        raise InvalidRequest(
            "INVALID_REQUEST",
            f"{len(violations)} field(s) of the request break a rule; see the details",
            violations=violations[:VIOLATIONS_MAX],
        )


def _violation(found: Any) -> FieldViolation:
    path = ".".join(element.field_name for element in found.field.elements)
    return FieldViolation(path, found.message or found.rule_id)


class _Served:
    """A call while it is served: its span, and how long it took. No generator: every search is one."""

    __slots__ = ("_headers", "_method", "_name", "_span", "_spanning", "_started", "code")

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._name = method.lstrip("/")
        self._headers: dict[str, str] = {}
        for key, value in context.invocation_metadata() or ():
            if key in telemetry.TRACE_HEADERS and isinstance(value, str):
                self._headers[key] = value
        self.code = "OK"

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        attributes = {"rpc.system.name": "grpc", "rpc.method": self._name}
        self._spanning = telemetry.span(self._name, SpanKind.SERVER, attributes, self._headers)
        self._span = self._spanning.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Any
    ) -> None:
        try:
            self._span.set_attribute("rpc.response.status_code", self.code)
            if telemetry.switch.on:
                # Within the span, which an exemplar may name.
                attributes = {"rpc.system.name": "grpc", "rpc.method": self._name}
                attributes["rpc.response.status_code"] = self.code
                _call_duration.record(time.perf_counter() - self._started, attributes)
        finally:
            self._spanning.__exit__(kind, error, trace)

    def failed(self, error: Exception) -> status_pb2.Status:
        """The status for the caller; logs what is a bug."""
        if not isinstance(error, ServiceError):
            log.error("call failed", exc_info=error, extra={"fields": {"method": self._method}})
            telemetry.failed(self._span, type(error).__name__)
            error = Broken("INTERNAL", "internal error")
        else:
            # Not a failed span: of a server's errors, only its own faults are.
            self._span.set_attribute("error.type", error.reason)
        self.code = error.status.name
        return to_status(error)
