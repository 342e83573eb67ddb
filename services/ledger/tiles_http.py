"""The log as tlog-tiles says that it is served: plain GETs that anybody may make, read-only.

Invariants:
- a path has one spelling; everything else, and everything beyond the published tree, is not there (404);
- a tile or bundle under a name is always the same bytes, so it may be cached for ever; the checkpoint for
  seconds;
- strangers are bounded in connections, in questions under way, in bytes being sent and in time, and read
  through a connection of their own: appends never wait for them.
"""

import asyncio
import contextlib
import gzip
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from aiohttp import web

from ledger.config import HttpSettings
from ledger.tile_files import TileFiles, TileReader, parse_path
from shared.errors import ServiceError, Unavailable
from shared.https import BoundedServer, request_duration
from shared.settings import SettingsError
from tlog.tiles import TileName

log = logging.getLogger(__name__)

CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
TILE_TYPE: Final = "application/octet-stream"
CHECKPOINT_CACHING: Final = "public, max-age=2"
"""At most a few seconds: a reader who asks each second still learns of every growth."""
TILE_CACHING: Final = "public, max-age=31536000, immutable"
ABSENT_CACHING: Final = "no-store"
"""What is not there now may be there in a moment."""
GZIP_LEVEL: Final = 6
"""Entries repeat the words of their directives: a tenth of the bytes, for 3 ms of a full bundle."""

CONNECTIONS_MAX: Final = 512
"""Mirrors and monitors keep one each; a proxy in front brings far fewer."""
IDLE_S: Final = 30.0
"""Bound on a connection that sends no whole request, also when it sends one byte at a time."""
QUESTIONS_MAX: Final = 64
"""Waiting for the thread that reads: some hundred milliseconds. Who comes later is told so."""
SENDING_BYTES_MAX: Final = 128 * 1024 * 1024
"""Held for readers that are slow: eight of the largest bundles, or a thousand usual ones."""
SENDING_S_MAX: Final = 60.0
"""Bound on one answer: also the slowest usual line gets a bundle through."""
STOP_S: Final = 2.0
"""Answers that are being sent at the end have this long."""


@dataclass(frozen=True)
class Notes:
    """What the log says of its size: signed notes, or None when there is none."""

    checkpoint: Callable[[], str | None]
    """The newest that counts: with a quorum of witnesses where a policy asks for one."""
    pending: Callable[[], str | None]
    """The newest that the log itself signed."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str]


class TilesHttp:
    """Answers requests for checkpoints, tiles and bundles below a prefix."""

    def __init__(
        self,
        reader: TileReader,
        notes: Notes,
        prefix: str = "",
        sending_s: float = SENDING_S_MAX,
    ) -> None:
        self._reader = reader
        self._notes = notes
        self._below = f"{prefix}/"
        self._sending_s = sending_s
        self._questions = 0
        self.sending_bytes = 0
        """What slow readers have not taken yet."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        route, answer = await self._answer(request)
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        self.sending_bytes += len(answer.body)
        try:
            async with asyncio.timeout(self._sending_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.sending_bytes -= len(answer.body)
            method = request.method if request.method in ("GET", "HEAD") else "_OTHER"
            attributes: dict[str, str | int] = {
                "http.request.method": method,
                "http.response.status_code": answer.status,
                "http.route": route,
            }
            request_duration.record(time.perf_counter() - started, attributes)
        return response

    async def _answer(self, request: web.BaseRequest) -> tuple[str, _Answer]:
        """Give the route, out of a closed set, and the answer."""
        if request.method not in ("GET", "HEAD"):
            return "other", _said(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
        # As it was sent: decoding would give a path more than one spelling.
        path = request.raw_path
        if not path.startswith(self._below):
            return "other", _said(404, "there is no such file")
        path = path.removeprefix(self._below)
        if path == "checkpoint":
            return path, _note(request, self._notes.checkpoint())
        if path == "checkpoint.pending":
            return path, _note(request, self._notes.pending())
        name = parse_path(path)
        if name is None:
            return "other", _said(404, "there is no such file")
        return "entries" if name.level is None else "tile", await self._tile(request, name)

    async def _tile(self, request: web.BaseRequest, name: TileName) -> _Answer:
        if self._questions >= QUESTIONS_MAX or self.sending_bytes >= SENDING_BYTES_MAX:
            return _said(503, "busy", {"Retry-After": "1"})
        packed = name.level is None and _takes_gzip(request.headers.get("Accept-Encoding", ""))
        self._questions += 1
        try:
            content = await self._reader.ask(lambda files: _content(files, name, packed))
        except ServiceError as error:
            fields = {"reason": error.reason, "why": error.message, "file": name.path}
            log.error("tile not served", extra={"fields": fields})
            if isinstance(error, Unavailable):
                return _said(503, "the log's storage does not answer", {"Retry-After": "5"})
            return _said(500, "this part of the log cannot be served")
        finally:
            self._questions -= 1
        if content is None:
            return _said(404, "the published log has no such tile")
        headers = {"Content-Type": TILE_TYPE, "Cache-Control": TILE_CACHING}
        if name.level is None:
            headers["Vary"] = "Accept-Encoding"
        if packed:
            headers["Content-Encoding"] = "gzip"
        return _Answer(200, content, _ours(headers))


def _content(files: TileFiles, name: TileName, packed: bool) -> bytes | None:
    content = files.content(name)
    if content is None or not packed:
        return content
    # Without a time in it: the same bytes each time.
    return gzip.compress(content, GZIP_LEVEL, mtime=0)


def _note(request: web.BaseRequest, note: str | None) -> _Answer:
    if note is None:
        return _said(404, "no checkpoint has a quorum of witnesses yet")
    content = note.encode()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": CHECKPOINT_CACHING, "ETag": tag}
    known = request.headers.get("If-None-Match", "")
    if known == "*" or tag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return _Answer(304, b"", _ours(headers))
    return _Answer(200, content, _ours({"Content-Type": CHECKPOINT_TYPE, **headers}))


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> _Answer:
    plain = {"Content-Type": CHECKPOINT_TYPE, "Cache-Control": ABSENT_CACHING}
    return _Answer(status, f"{text}\n".encode(), _ours(plain | (headers or {})))


def _ours(headers: dict[str, str]) -> dict[str, str]:
    # Which library answers, and of which age, is nobody's business. Nothing here is for a browser to
    # guess at, and any page may read what is public.
    return headers | {
        "Server": "countersign",
        "X-Content-Type-Options": "nosniff",
        "Access-Control-Allow-Origin": "*",
    }


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.split(","):
        coding, _, quality = one.partition(";")
        if coding.strip().lower() in ("gzip", "x-gzip"):
            value = quality.partition("=")[2].strip()
            return value.strip("0.") != "" if value else True
    return False


@dataclass(frozen=True)
class ServingHttp:
    """A port that answers."""

    port: int


@contextlib.asynccontextmanager
async def serving_http(settings: HttpSettings, answers: TilesHttp) -> AsyncIterator[ServingHttp]:
    """Serve on the configured address; raises SettingsError when that cannot be."""
    host, _, port = settings.listen.rpartition(":")
    server = BoundedServer(
        answers.handle,
        CONNECTIONS_MAX,
        handler_cancellation=True,
        keepalive_timeout=IDLE_S,
        lingering_time=0,
        max_line_size=2048,
        max_field_size=4096,
        auto_decompress=False,
    )
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        tls = _tls(settings)
        try:
            site = web.TCPSite(
                runner, host.strip("[]"), int(port), ssl_context=tls, reuse_address=True
            )
            await site.start()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"http.listen: cannot listen on {settings.listen}: {error}"
            ) from error
        taken = int(runner.addresses[0][1])
        if settings.port_file:
            settings.port_file.write_text(f"{taken}\n")
        log.info("tiles served", extra={"fields": {"port": taken}})
        yield ServingHttp(taken)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await runner.cleanup()


def _tls(settings: HttpSettings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"http.tls: the certificate or key cannot be used: {error}") from error
    return context
