"""A log's public port over a ledger's file, without the rest of the ledger."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ledger.config import HttpSettings, HttpTls
from ledger.sqlite_reading import SqliteReading
from ledger.tile_files import TileReader
from ledger.tiles_http import Notes, TilesHttp, serving_http
from ledger.tree import Published, load_published
from support.ledgers import SIGNER
from support.waiting import WAIT_S_MAX


@dataclass(frozen=True)
class Answered:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class TileServer:
    """The port, and what the log has published."""

    port: int
    published: Published
    answers: TilesHttp | None = None
    quorum: str | None = ""
    """Note with a quorum; empty for the newest."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answered:
        """Asks with exactly these bytes, where a client library would tidy the path."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", "Host: log", "Connection: close", *headers]
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), WAIT_S_MAX)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        pairs = (field.split(": ", 1) for field in fields)
        return Answered(int(status.split()[1]), {name.lower(): v for name, v in pairs}, body)


@contextlib.asynccontextmanager
async def tile_server(
    path: Path,
    prefix: str = "",
    sending_s: float = 20.0,
    tls: HttpTls | None = None,
    reading: type[SqliteReading] = SqliteReading,
) -> AsyncIterator[TileServer]:
    """Serves a ledger's file as it is now."""
    with contextlib.closing(SqliteReading.open(path)) as first:
        published = load_published(first, [SIGNER.verifier])
    served = TileServer(0, published)
    with contextlib.closing(
        TileReader(reading.open(path), lambda: served.published)
    ) as tile_reader:

        def checkpoint() -> str | None:
            return served.published.note if served.quorum == "" else served.quorum

        notes = Notes(checkpoint, lambda: served.published.note)
        settings = HttpSettings(listen="127.0.0.1:0", prefix=prefix, tls=tls)
        served.answers = TilesHttp(tile_reader, notes, prefix, sending_s)
        async with serving_http(settings, served.answers) as serving:
            served.port = serving.port
            yield served
