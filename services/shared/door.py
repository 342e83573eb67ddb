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
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import protovalidate
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_status import rpc_status
from opentelemetry.trace import Span, SpanKind

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


def caller(context: Context) -> SpiffeId:
    """Who calls, from the certificate that the TLS handshake checked. Raises NotAuthentic."""
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
        self._in_flight: Counter[SpiffeId] = Counter()

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
            with _served(method, context) as outcome:
                try:
                    with self._admitted(method, request, context):
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

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Message, context: Context) -> AsyncIterator[Message]:
            with _served(method, context) as outcome:
                try:
                    with self._admitted(method, request, context):
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

    @contextlib.contextmanager
    def _admitted(
        self, method: str, request: Message | _Garbled, context: Context
    ) -> Iterator[None]:
        who = caller(context)
        self._admit(method, request, who)
        if self._in_flight[who] >= CALLS_OF_ONE_CALLER_MAX:
            raise Overloaded(
                "CALLER_BUSY",
                f"{who} has {CALLS_OF_ONE_CALLER_MAX} calls in flight",
                retry_after_s=1,
            )
        self._in_flight[who] += 1
        try:
            yield
        finally:
            self._in_flight[who] -= 1
            if not self._in_flight[who]:
                del self._in_flight[who]

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


@dataclass
class _Outcome:
    span: Span
    code: str = "OK"

    def failed(self, method: str, error: Exception) -> status_pb2.Status:
        """The status for the caller; logs what is a bug."""
        if not isinstance(error, ServiceError):
            log.error("call failed", exc_info=error, extra={"fields": {"method": method}})
            telemetry.failed(self.span, type(error).__name__)
            error = Broken("INTERNAL", "internal error")
        else:
            # Not a failed span: of a server's errors, only its own faults are.
            self.span.set_attribute("error.type", error.reason)
        self.code = error.status.name
        return to_status(error)


@contextlib.contextmanager
def _served(method: str, context: Context) -> Iterator[_Outcome]:
    name = method.lstrip("/")
    headers = {
        key: value
        for key, value in context.invocation_metadata() or ()
        if key in telemetry.TRACE_HEADERS and isinstance(value, str)
    }
    attributes: dict[str, str] = {"rpc.system.name": "grpc", "rpc.method": name}
    started = time.perf_counter()
    with telemetry.span(name, SpanKind.SERVER, attributes, headers) as span:
        outcome = _Outcome(span)
        try:
            yield outcome
        finally:
            attributes["rpc.response.status_code"] = outcome.code
            span.set_attribute("rpc.response.status_code", outcome.code)
            _call_duration.record(time.perf_counter() - started, attributes)
