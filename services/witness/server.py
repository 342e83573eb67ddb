"""The witness's HTTP side: add-checkpoint, the monitoring endpoint and a health check.

Everything of the witness happens on one thread of its own, where commits may wait for the disk; how
many requests may wait for it is bounded.
"""

import asyncio
import contextlib
import logging
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp import web

from shared import telemetry
from shared.settings import SettingsError
from tlog.witness_protocol import REQUEST_BYTES_MAX
from witness.config import HttpSettings
from witness.cosigning import Answer, Witness

log = logging.getLogger(__name__)

WAITING_MAX: Final = 64
"""Requests that wait for the thread; a cosignature takes some milliseconds, and who is told to come
again does so."""
BODY_TIMEOUT_S: Final = 10.0
"""A body of some kilobytes that takes longer is not worth a connection."""
GRACE_S: Final = 3.0
"""For requests under way when the process is told to stop."""

_requests = telemetry.meter.create_counter(
    "countersign.witness.requests", unit="{request}", description="add-checkpoint requests answered"
)
_duration = telemetry.meter.create_histogram(
    "countersign.witness.request.duration",
    unit="s",
    description="From a whole add-checkpoint body to its answer",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)
_BUSY: Final = Answer(503, "too many requests wait; come again\n")
_NOT_STORED: Final = Answer(500, "the witness cannot store what it would cosign\n")

Result = TypeVar("Result")


class WitnessServer:
    """Takes requests to the witness and its answers back."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._thread = ThreadPoolExecutor(1, "witness")
        self._waiting = 0
        self._stores = True
        """False from a failed write until the next that succeeds."""

    def application(self, prefix: str) -> web.Application:
        """The paths, below a prefix."""
        application = web.Application()
        application.router.add_post(f"{prefix}/add-checkpoint", self.add_checkpoint)
        application.router.add_get(f"{prefix}/health", self.health)
        application.router.add_get(f"{prefix}/{{origin:[0-9a-f]{{64}}}}/checkpoint", self.newest)
        return application

    @property
    def is_well(self) -> bool:
        """Whether it stores what it cosigns, and has room for another request."""
        return self._stores and self._waiting < WAITING_MAX

    def close(self) -> None:
        """Let what has begun finish."""
        self._thread.shutdown(cancel_futures=True)

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        """Answer a log."""
        body = await _body(request)
        started = time.perf_counter()
        if isinstance(body, Answer):
            answer = body
        elif self._waiting >= WAITING_MAX:
            answer = _BUSY
        else:
            answer = await self._add_checkpoint(body)
        _requests.add(1, {"http.response.status_code": answer.status})
        _duration.record(time.perf_counter() - started)
        return _response(answer)

    async def _add_checkpoint(self, body: bytes) -> Answer:
        try:
            answer = await self._ask(lambda: self._witness.add_checkpoint(body))
        except sqlite3.Error as error:
            self._stores = False
            # Not answered 200, so it does not matter whether it is on disk.
            log.error("cannot store", extra={"fields": {"error": type(error).__name__}})
            return _NOT_STORED
        if answer.status == 200:
            self._stores = True
        return answer

    async def newest(self, request: web.Request) -> web.Response:
        """Show the newest cosigned checkpoint of a log."""
        path = f"{request.match_info['origin']}/checkpoint"
        if self._waiting >= WAITING_MAX:
            return _response(_BUSY)
        try:
            note = await self._ask(lambda: self._witness.newest(path))
        except sqlite3.Error:
            return _response(Answer(500, "the witness cannot read what it has cosigned\n"))
        if note is None:
            return _response(Answer(404, "nothing cosigned for such a log\n"))
        response = _response(Answer(200, note))
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def health(self, _: web.Request) -> web.Response:
        """Say whether it can do its work, and how far it has come with each log."""
        if not self.is_well:
            return web.json_response({"status": "failing"}, status=503)
        try:
            sizes = await self._ask(self._witness.sizes)
        except sqlite3.Error:
            return web.json_response({"status": "failing"}, status=503)
        return web.json_response({"status": "serving", "sizes": sizes})

    async def _ask(self, question: Callable[[], Result]) -> Result:
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        finally:
            self._waiting -= 1


async def _body(request: web.Request) -> bytes | Answer:
    """Read a body within bounds of size and time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > REQUEST_BYTES_MAX:
                    return Answer(400, f"the request is longer than {REQUEST_BYTES_MAX} bytes\n")
    except TimeoutError:
        return Answer(408, "the request did not arrive in time\n")
    except (web.HTTPException, web.RequestPayloadError):
        return Answer(400, "the request's body cannot be read\n")
    return bytes(body)


def _response(answer: Answer) -> web.Response:
    # The type is set as it stands: aiohttp would add a charset to it.
    return web.Response(
        status=answer.status,
        body=answer.body.encode(),
        headers={"Content-Type": answer.content_type, "X-Content-Type-Options": "nosniff"},
    )


@contextlib.asynccontextmanager
async def listening(application: web.Application, settings: HttpSettings) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port. Raises SettingsError."""
    context = _tls(settings)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=GRACE_S)
    await runner.setup()
    try:
        host, port = settings.host_and_port
        site = web.TCPSite(runner, host, port, ssl_context=context)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise SettingsError(f"cannot listen on {settings.address}: {error}") from error
        bound = int(runner.addresses[0][1])
        if settings.port_file is not None:
            settings.port_file.write_text(f"{bound}\n")
        yield bound
    finally:
        await runner.cleanup()


def _tls(settings: HttpSettings) -> ssl.SSLContext | None:
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # of which ssl.SSLError is one
        raise SettingsError(
            f"cannot use {settings.certificate} with {settings.key}: {error.strerror or error}"
        ) from error
    return context
