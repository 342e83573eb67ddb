"""An HTTPS port for known callers: mutual TLS, the caller's SPIFFE ID, bounds on connections.

What `shared.rpc` and `shared.door` are to gRPC. Certificate, key and authorities are read again when they
change, for new connections; connections end now and then so that this takes effect.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from shared import telemetry
from shared.errors import NotAuthentic
from shared.identity import SpiffeId
from shared.settings import ListenSettings, SettingsError, TlsFiles
from shared.tls import Renewal

CONNECTIONS_MAX: Final = 256
"""Callers have certificates of ours: there are some agency systems, not strangers without number."""
IDLE_S: Final = 30.0
"""Bound on a connection that sends no whole request."""
STOP_S: Final = 2.0
"""Answers that are being sent at the end have this long."""

request_duration: Final = telemetry.meter.create_histogram(
    "http.server.request.duration",
    unit="s",
    description="From a request until its answer is sent",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class BoundedServer(web.Server):
    """Turns away connections past the bound, rather than those that are here already."""

    def __init__(self, handler: Handler, connections_max: int, **options: Any) -> None:
        super().__init__(handler, access_log=None, **options)
        self._connections_max = connections_max
        self._since: dict[RequestHandler, float] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Lets it in, or not."""
        super().connection_made(handler, transport)
        self._since[handler] = time.monotonic()
        if len(self.connections) > self._connections_max:
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forgets it."""
        super().connection_lost(handler, exc)
        self._since.pop(handler, None)

    def age_s(self, request: web.BaseRequest) -> float:
        """How old the connection is that a request came by."""
        return time.monotonic() - self._since.get(request.protocol, 0.0)


def mutual_tls(tls: TlsFiles) -> ssl.SSLContext:
    """Asks every caller for a certificate of the authority. Raises SettingsError."""

    def read() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would not show its certificate again, though the authority may be another by now.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_verify_locations(cafile=tls.authority)
        context.load_cert_chain(tls.certificate, tls.key)
        return context

    renewal = Renewal(tls)
    try:
        first = latest = read()
    except OSError as error:  # of which ssl.SSLError is one
        raise SettingsError(f"cannot use {tls.certificate} with {tls.key}: {error}") from error

    def renew(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        nonlocal latest
        latest = renewal.renewed(read) or latest
        connection.context = latest

    # Called at the beginning of every handshake, whether or not the caller names a server.
    first.sni_callback = renew
    return first


def caller(request: web.BaseRequest) -> SpiffeId:
    """Who calls, from the certificate that the TLS handshake checked. Raises NotAuthentic."""
    transport = request.transport
    certificate = (transport.get_extra_info("peercert") if transport else None) or {}
    uris = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise NotAuthentic(
            "IDENTITY_UNKNOWN", "the caller's certificate must hold exactly one SPIFFE ID"
        )
    return SpiffeId.parse(uris[0])


@contextlib.asynccontextmanager
async def listening(server: BoundedServer, listen: ListenSettings) -> AsyncIterator[int]:
    """Listens while the context lasts; gives the port. Raises SettingsError."""
    context = mutual_tls(listen.tls)
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        host, _, number = listen.address.rpartition(":")
        try:
            site = web.TCPSite(
                runner,
                host.strip("[]") or None,
                int(number),
                ssl_context=context,
                reuse_address=True,
            )
            await site.start()
        except (OSError, OverflowError, ValueError) as error:
            raise SettingsError(f"cannot listen on {listen.address}: {error}") from error
        port = int(runner.addresses[0][1])
        if listen.port_file:
            listen.port_file.write_text(f"{port}\n")
        yield port
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await runner.cleanup()
