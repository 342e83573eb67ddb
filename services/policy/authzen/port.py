"""The standard's HTTPS binding: who may ask, how much, and what an error looks like.

In this order, as behind `shared.door`: the caller's SPIFFE ID is read from the certificate; the access table
says whether it may ask for this path; the bounds are checked and the body is read; the front answers; an
expected failure becomes its status with its reason, and anything else 500 without detail.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from opentelemetry.trace import SpanKind

from policy.authzen.front import EVALUATION, EVALUATIONS, METADATA, SEARCHES, Front, http_status
from policy.authzen.reading import invalid
from policy.config import AuthzenSettings
from shared import telemetry
from shared.door import AccessRule
from shared.errors import Broken, InvalidRequest, NotAllowed, Overloaded, ServiceError
from shared.https import (
    CONNECTIONS_MAX,
    IDLE_S,
    BoundedServer,
    caller,
    listening,
    request_duration,
)
from shared.identity import SpiffeId

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 1024 * 1024
"""64 questions, each with a narrative and all the circumstances, and room to spare."""
REQUESTS_MAX: Final = 32
"""Of all callers together: their decisions are worked out one by one."""
REQUESTS_OF_ONE_CALLER_MAX: Final = 8
"""One agency system must not shut out the others."""
HEADER_BYTES_MAX: Final = 4096
METADATA_CACHING: Final = "private, max-age=3600"

PATHS: Final[Mapping[str, str]] = {
    METADATA: "GET",
    **dict.fromkeys((EVALUATION, EVALUATIONS, *SEARCHES), "POST"),
}
"""Each path with its method."""

_REQUEST_ID: Final = "X-Request-ID"
_REASON: Final = "Countersign-Reason"


@dataclass(frozen=True)
class Bounds:
    """How long things may take."""

    body_s: float = 10.0
    """Until a body has arrived."""
    sending_s: float = 10.0
    """Until an answer has been taken."""
    connection_s: float = 30 * 60.0
    """After its next answer, a connection that is older is closed, so that renewed certificates take effect:
    as with gRPC."""


@dataclass(frozen=True)
class _Said:
    status: int
    body: bytes
    headers: Mapping[str, str]


class Port:
    """Takes requests to a front, and its answers back."""

    def __init__(
        self,
        front: Front,
        trust_domain: str,
        access: Mapping[str, AccessRule],
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds or Bounds()
        self._front = front
        self._trust_domain = trust_domain
        self._access = access
        self._in_flight: Counter[SpiffeId] = Counter()
        self.number = 0
        """Where it listens."""
        self.url = ""
        """Base URL of this decision point."""
        self.server = BoundedServer(
            self.handle,
            CONNECTIONS_MAX,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            lingering_time=0,
            max_line_size=2048,
            max_field_size=HEADER_BYTES_MAX,
            auto_decompress=False,
        )

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self._in_flight.total()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        route = request.path if request.path in PATHS else "other"
        method = request.method if request.method in ("GET", "POST") else "_OTHER"
        attributes: dict[str, str | int] = {"http.request.method": method, "http.route": route}
        headers = {
            name: request.headers[name]
            for name in telemetry.TRACE_HEADERS
            if name in request.headers
        }
        started = time.perf_counter()
        with telemetry.span(
            f"{method} {route}", SpanKind.SERVER, dict(attributes), headers
        ) as span:
            try:
                said = await self._said(request, route)
            except Exception as error:  # every failure gets a status
                if not isinstance(error, ServiceError):
                    log.error("call failed", exc_info=error, extra={"fields": {"method": route}})
                    telemetry.failed(span, type(error).__name__)
                    error = Broken("INTERNAL", "internal error")
                else:
                    span.set_attribute("error.type", error.reason)
                said = _refused(error)
            attributes["http.response.status_code"] = said.status
            span.set_attribute("http.response.status_code", said.status)
            response = self._response(request, said)
            try:
                async with asyncio.timeout(self._bounds.sending_s):
                    await response.prepare(request)
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            finally:
                request_duration.record(time.perf_counter() - started, attributes)
        return response

    async def _said(self, request: web.BaseRequest, route: str) -> _Said:
        asker = caller(request)
        rule = self._access.get(route)
        if asker.trust_domain != self._trust_domain:
            raise NotAllowed("CALLER_NOT_ALLOWED", f"{asker} is of another trust domain")
        if route not in PATHS:
            return _plain(404, "there is no such path")
        if request.method != PATHS[route]:
            return _plain(405, f"only {PATHS[route]}", {"Allow": PATHS[route]})
        if rule is None or not rule(asker):
            raise NotAllowed("CALLER_NOT_ALLOWED", f"{asker} may not ask for {route}")
        if route == METADATA:
            return _json(self._front.metadata(self.url), {"Cache-Control": METADATA_CACHING})
        with self._admitted(asker):
            body = await _body(request, self._bounds.body_s)
            if isinstance(body, _Said):
                return body
            return _json(
                await self._front.answer(route, asker, body), {"Cache-Control": "no-store"}
            )

    @contextlib.contextmanager
    def _admitted(self, asker: SpiffeId) -> Iterator[None]:
        if self._in_flight[asker] >= REQUESTS_OF_ONE_CALLER_MAX or self.in_flight >= REQUESTS_MAX:
            raise Overloaded("CALLER_BUSY", "too many requests are in flight", retry_after_s=1)
        self._in_flight[asker] += 1
        try:
            yield
        finally:
            self._in_flight[asker] -= 1
            if not self._in_flight[asker]:
                del self._in_flight[asker]

    def _response(self, request: web.BaseRequest, said: _Said) -> web.Response:
        headers = {
            "Server": "countersign",
            "X-Content-Type-Options": "nosniff",
            **said.headers,
        }
        if _REQUEST_ID in request.headers:
            headers[_REQUEST_ID] = request.headers[_REQUEST_ID]
        response = web.Response(status=said.status, body=said.body, headers=headers)
        # What is left of a body that was not read must not be taken for the next request.
        if self.server.age_s(request) > self._bounds.connection_s or said.status in (408, 413):
            response.force_close()
        return response


async def _body(request: web.BaseRequest, within_s: float) -> bytes | _Said:
    """The body, within bounds of size and time."""
    if request.content_type != "application/json":
        raise invalid("the request is not JSON", ("Content-Type", "must be application/json"))
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for part in request.content.iter_any():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    return _plain(413, f"the request is longer than {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        return _plain(408, "the request did not arrive in time")
    except (web.HTTPException, web.RequestPayloadError) as error:
        raise InvalidRequest("REQUEST_UNREADABLE", "the body cannot be read") from error
    return bytes(body)


def _json(document: Mapping[str, Any], headers: Mapping[str, str]) -> _Said:
    # The type is set as it stands: aiohttp would add a charset to it.
    return _Said(
        200, json.dumps(document).encode(), {"Content-Type": "application/json", **headers}
    )


def _refused(error: ServiceError) -> _Said:
    """An error message, as the standard wants: for a person, after the reason that programs branch on."""
    lines = [f"{error.reason}: {error.message}"]
    lines += [f"{violation.field}: {violation.description}" for violation in error.violations]
    headers = {_REASON: error.reason}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(round(error.retry_after_s))
    return _plain(http_status(error), "\n".join(lines), headers)


def _plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> _Said:
    plain = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return _Said(status, f"{text}\n".encode("utf-8", "replace"), plain | dict(headers or {}))


@contextlib.asynccontextmanager
async def serving(port: Port, settings: AuthzenSettings) -> AsyncIterator[None]:
    """Serves while the context lasts. Raises SettingsError."""
    async with listening(port.server, settings) as port.number:
        port.url = settings.url or f"https://{settings.address.rpartition(':')[0]}:{port.number}"
        log.info("AuthZEN served", extra={"fields": {"port": port.number}})
        yield
