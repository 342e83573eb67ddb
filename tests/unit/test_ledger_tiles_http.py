"""The public port: types, caching, compression, and every path that is not exactly one of the log's."""

import asyncio
import contextlib
import gzip
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ledger.config import HttpTls
from ledger.log import opened
from ledger.reading import StorageFailed
from ledger.sqlite_reading import SqliteReading
from ledger.tiles_http import CONNECTIONS_MAX
from shared.settings import SettingsError
from support.exports import export_of
from support.filled_logs import entries_of, filled_log, grow
from support.ledgers import SIGNER, complete, decided, new_log
from support.nats_servers import Certificates
from support.tile_servers import TileServer, tile_server
from support.waiting import WAIT_S_MAX, until
from tlog.tiles import TileName, encode_bundle, tiles_of

SIZE = 700


@pytest.fixture(name="served", scope="module")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_log(tmp_path_factory.mktemp("log"), SIZE)


@pytest.fixture(name="server")
async def _server(served: Path) -> AsyncIterator[TileServer]:
    async with tile_server(served) as server:
        yield server


async def test_a_client_reads_every_file_of_the_log(server: TileServer) -> None:
    expected = export_of(entries_of(SIZE), SIGNER)
    async with aiohttp.ClientSession() as client:
        for path, content in expected.items():
            async with client.get(f"{server.url}/{path}") as answer:
                assert answer.status == 200, path
                assert await answer.read() == content, path


async def test_checkpoint_is_text_for_a_few_seconds(server: TileServer) -> None:
    for path in ("/checkpoint", "/checkpoint.pending"):
        answer = await server.get(path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=2"
        assert answer.body.decode() == server.published.note
        tag = answer.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = await server.get(path, f"If-None-Match: {known}")
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == tag
        assert (await server.get(path, 'If-None-Match: "other"')).status == 200


async def test_no_checkpoint_while_none_has_a_quorum(server: TileServer) -> None:
    server.quorum = None
    answer = await server.get("/checkpoint")
    assert answer.status == 404
    assert b"quorum" in answer.body
    assert (await server.get("/checkpoint.pending")).status == 200
    server.quorum = "an older note\n"
    assert (await server.get("/checkpoint")).body == b"an older note\n"


@pytest.mark.parametrize("path", ["/tile/0/000", "/tile/1/000.p/2", "/tile/entries/002.p/188"])
async def test_tiles_are_bytes_for_ever(server: TileServer, path: str) -> None:
    answer = await server.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "aiohttp" not in answer.headers["server"]


@pytest.mark.parametrize(
    ("accepts", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=1.0, identity", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("br", False),
        ("", False),
    ],
)
async def test_bundles_are_packed_for_those_who_unpack(
    server: TileServer, accepts: str, packed: bool
) -> None:
    plain = export_of(entries_of(SIZE), SIGNER)["tile/entries/000"]
    answer = await server.get("/tile/entries/000", f"Accept-Encoding: {accepts}")
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(answer.body) if packed else answer.body) == plain
    again = await server.get("/tile/entries/000", f"Accept-Encoding: {accepts}")
    assert again.body == answer.body
    hashes = await server.get("/tile/0/000", f"Accept-Encoding: {accepts}")
    assert "content-encoding" not in hashes.headers
    assert len(hashes.body) == 8192


@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000", "/tile/entries/000", "/none"])
async def test_head_is_get_without_the_body(server: TileServer, path: str) -> None:
    got, head = await server.get(path), await server.get(path, method="HEAD")
    assert head.status == got.status
    assert head.body == b""
    del got.headers["date"], head.headers["date"]
    assert head.headers == got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_nobody_writes(server: TileServer, method: str) -> None:
    answer = await server.get("/checkpoint", "Content-Length: 0", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//checkpoint",
        "/checkpoint/",
        "/checkpoint?x=1",
        "/checkpoint%20",
        "/%63heckpoint",
        "/tile/0/0",
        "/tile/0/0000",
        "/tile/00/000",
        "/tile/-1/000",
        "/tile/64/000.p/1",
        "/tile/0/000.p/0",
        "/tile/0/000.p/01",
        "/tile/0/000.p/256",
        "/tile/0/000.p/-1",
        "/tile/0/x000/000",
        "/tile/0/x001/x000",
        "/tile/0/001/000",
        "/tile/0/000/",
        "/tile/0/000?",
        "/tile/0/000.p",
        "/tile/0/000.p/",
        "/tile/0/../0/000",
        "/tile/%30/000",
        "/tile/0/\u0660\u0660\u0660".encode().decode("latin-1"),
        "/tile/entries/000.p/255/..",
        "/tile/data/000",
        "/tile/Entries/000",
        "/../../etc/passwd",
        "/tile/0/" + "x999/" * 300 + "999",
        "http://log/checkpoint",
        # Well formed, and beyond the published tree of 700 entries.
        "/tile/0/002",
        "/tile/0/002.p/189",
        "/tile/0/003.p/1",
        "/tile/1/000.p/3",
        "/tile/1/000",
        "/tile/2/000.p/1",
        "/tile/entries/002",
        "/tile/entries/002.p/189",
        "/tile/63/x009/x223/x372/x036/x854/x775/807",
    ],
)
async def test_what_is_not_exactly_a_file_of_the_log_is_not_there(
    server: TileServer, path: str
) -> None:
    answer = await server.get(path)
    assert answer.status in (400, 404), answer
    assert b"Traceback" not in answer.body
    if answer.status == 404:
        assert answer.headers["cache-control"] == "no-store"


async def test_all_widths_of_earlier_sizes_are_there(server: TileServer) -> None:
    whole = {None: b"", 0: b""}
    for level in whole:
        for width in range(1, 256):
            answer = await server.get(f"/{TileName(level, 1, width).path}")
            assert answer.status == 200
            assert answer.body.startswith(whole[level])
            whole[level] = answer.body


async def test_everything_lies_below_the_prefix(served: Path) -> None:
    async with tile_server(served, "/logs/one") as server:
        assert (await server.get("/logs/one/checkpoint")).status == 200
        for path in ("/checkpoint", "/logs/one", "/logs/one/", "/logs/onecheckpoint"):
            assert (await server.get(path)).status == 404


async def test_many_ask_at_once(server: TileServer) -> None:
    """Each has the right bytes, or is told to come again."""
    expected = export_of(entries_of(SIZE), SIGNER)
    names = [name.path for name in tiles_of(SIZE)] * 30
    answers = await asyncio.gather(*(server.get(f"/{name}") for name in names))
    for name, answer in zip(names, answers, strict=True):
        if answer.status == 503:
            assert answer.headers["retry-after"] == "1"
        else:
            assert (answer.status, answer.body) == (200, expected[name])
    assert sum(answer.status == 200 for answer in answers) >= 64


class StorageThatIsAway(SqliteReading):
    """Could be read when it was opened."""

    def leaves(self, start: int, count: int) -> list[bytes]:
        raise StorageFailed("the connection was lost")


async def test_storage_that_fails_is_no_answer(served: Path) -> None:
    async with tile_server(served, reading=StorageThatIsAway) as server:
        answer = await server.get("/tile/entries/000")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.headers["cache-control"] == "no-store"
        assert (await server.get("/tile/0/000")).status == 200


async def test_the_port_can_speak_https(served: Path, tmp_path: Path) -> None:
    files = Certificates(tmp_path).tls("service", "ledger", listens=True)
    context = ssl.create_default_context(cafile=str(files.authority))
    tls = HttpTls(certificate=files.certificate, key=files.key)
    async with tile_server(served, tls=tls) as server, aiohttp.ClientSession() as client:
        url = f"https://127.0.0.1:{server.port}/checkpoint"
        async with client.get(url, ssl=context) as answer:
            assert await answer.text() == server.published.note
    unusable = HttpTls(certificate=files.certificate, key=files.certificate)
    with pytest.raises(SettingsError, match=r"http\.tls"):
        async with tile_server(served, tls=unusable):
            raise AssertionError("it listens without a key")


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    """Sixteen megabytes, of which the system's own buffers hold a part."""
    path = filled_log(tmp_path, 0)
    grow(path, [bytes(65_000)] * 256)
    async with tile_server(path, sending_s=1) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        writer.write(b"GET /tile/entries/000 HTTP/1.1\r\nHost: log\r\n\r\n")
        answers = server.answers
        assert answers is not None

        async def is_sending() -> bool:
            return answers.sending_bytes > 16_000_000

        async def is_free() -> bool:
            return answers.sending_bytes == 0

        await until(is_sending)
        await until(is_free)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := await asyncio.wait_for(reader.read(65_536), WAIT_S_MAX):
                received += len(part)
        assert received < 16_000_000
        writer.close()
        assert (await server.get("/checkpoint")).status == 200


async def test_appends_do_not_wait_for_readers(tmp_path: Path) -> None:
    async with opened(new_log(tmp_path).open_for_writing(), SIGNER) as log:
        go_on = threading.Event()
        with contextlib.closing(log.tile_reader()) as reader:
            stuck = asyncio.create_task(reader.ask(lambda _: go_on.wait(WAIT_S_MAX)))
            (placed,) = await log.sequencer.append(complete(decided(1)))
            assert await log.archive.entry(0) == placed.leaf
            assert not stuck.done()
            go_on.set()
            assert await stuck
            first = await reader.ask(lambda files: files.content(TileName(None, 0, 1)))
    assert first == encode_bundle([placed.leaf])


async def test_connections_are_bounded(server: TileServer) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS_MAX)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), WAIT_S_MAX) == b""
    # Those who came first are still served.
    first_reader, first = idle[0]
    first.write(b"GET /checkpoint HTTP/1.1\r\nHost: log\r\n\r\n")
    assert (await asyncio.wait_for(first_reader.readline(), WAIT_S_MAX)).startswith(b"HTTP/1.1 200")
    for _, one in [*idle, (reader, writer)]:
        one.close()
