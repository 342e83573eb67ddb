"""A server that shows whatever log a test wants it to, over real HTTP: also another one to others."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from support.exports import export_of
from support.ledgers import SIGNER
from tlog.note import Signer


@dataclass
class LyingLog:
    """What it shows under each path, which a test may change at any time."""

    files: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    """So many more requests are answered with 503."""
    tiles_status: int = 200
    """With another status, no tile is shown any more."""
    breaks_after: int | None = None
    """After so many more requests, nothing is answered any more."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def show(self, entries: Sequence[bytes], signer: Signer = SIGNER, prefix: str = "") -> None:
        """Shows the log of these entries, beside what it has shown before."""
        self.files |= {f"{prefix}{path}": c for path, c in export_of(list(entries), signer).items()}

    def show_only(self, entries: Sequence[bytes], signer: Signer = SIGNER) -> None:
        """Shows the log of these entries and has no other file."""
        self.files.clear()
        self.show(entries, signer)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        self.asked[path] += 1
        if self.breaks_after is not None:
            self.breaks_after -= 1
            if self.breaks_after < 0:
                assert request.transport is not None
                request.transport.abort()
        if self.busy > 0:
            self.busy -= 1
            return web.Response(status=503)
        if self.tiles_status != 200 and path.startswith("tile/"):
            return web.Response(status=self.tiles_status)
        if path not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.files[path])


def forked(entries: Sequence[bytes], at: int, size: int) -> list[bytes]:
    """Another history: the same up to an entry, and others from there on."""
    return [*entries[:at], *(f"forged {number}".encode() for number in range(at, size))]


@contextlib.asynccontextmanager
async def lying_log(entries: Iterable[bytes] = ()) -> AsyncIterator[LyingLog]:
    """Serves on a free port."""
    log = LyingLog()
    log.show(list(entries))
    runner = web.ServerRunner(web.Server(log.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    log.port = runner.addresses[0][1]
    try:
        yield log
    finally:
        await asyncio.wait_for(runner.cleanup(), 20)
