"""The real ledger process: what it appends is at once there for anybody, over HTTP and as files."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from countersign.ledger.v1.entry_pb2 import Entry
from shared.bus import Bus
from support.ledgers import (
    SIGNER,
    LedgerProcess,
    assert_whole,
    decided,
    run_program,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.waiting import until
from tlog.checkpoint import open_checkpoint
from tlog.tiles import decode_bundle, tiles_of
from tlog.verify import verify_export

TIMEOUT_S = 20


@dataclass(frozen=True)
class Met:
    """A running ledger process, its appender, and a stranger."""

    config: Path
    process: LedgerProcess
    broker: Bus
    stranger: aiohttp.ClientSession

    async def append(self, numbers: range) -> list[bytes]:
        entries = [decided(number) for number in numbers]
        response = await self.broker.request(
            "ledger.append", AppendRequest(entries=entries), AppendResponse, TIMEOUT_S
        )
        return [one.receipt.leaf for one in response.appended]

    async def get(self, path: str) -> bytes | None:
        port = await http_port(self.config)
        async with self.stranger.get(f"http://127.0.0.1:{port}/log/{path}") as answer:
            return await answer.read() if answer.status == 200 else None


async def http_port(config: Path) -> str:
    """It is written after the one of gRPC, by which the process is known to have started."""
    file = config.with_name("http-port")

    async def written() -> str | None:
        return file.read_text().strip() if file.exists() else None

    return await until(written)


@pytest.fixture(name="met")
async def _met(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[Met]:
    config = write_settings(tmp_path, nats_server)
    with config.open("a") as file:
        file.write(
            '[http]\nlisten = "127.0.0.1:0"\nprefix = "/log"\nport_file = "http-port"\n'
            '[export]\nfolder = "export"\nevery_s = 0.1\n'
        )
    process = LedgerProcess(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(process.kill)
        await process.start()
        broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        stack.push_async_callback(broker.close)
        stranger = await stack.enter_async_context(aiohttp.ClientSession())
        yield Met(config, process, broker, stranger)


@pytest.mark.promise(4)
async def test_what_is_appended_is_there_for_anybody(met: Met) -> None:
    empty = open_checkpoint(await met.get("checkpoint") or b"", SIGNER.verifier)
    assert empty.size == 0
    leaves = await met.append(range(256)) + await met.append(range(256, 300))
    note = await met.get("checkpoint")
    assert note is not None
    assert open_checkpoint(note, SIGNER.verifier).size == 300
    served = {"checkpoint": note}
    for name in tiles_of(300):
        served[name.path] = await met.get(name.path) or b""
    assert verify_export(served.get, SIGNER.verifier).checkpoint.size == 300
    bundles = served["tile/entries/000"], served["tile/entries/001.p/44"]
    assert [entry for one in bundles for entry in decode_bundle(one)] == leaves
    assert await met.get("tile/entries/001.p/45") is None
    # The folder comes to the same bytes, a little later.
    folder = met.config.with_name("export")

    async def exported() -> bool:
        file = folder / "checkpoint"
        return file.exists() and file.read_bytes() == note

    await until(exported)
    for path, content in served.items():
        assert (folder / path).read_bytes() == content, path
    assert met.process.stop() == 0
    assert_whole(met.process.database)


async def test_the_program_exports_beside_the_service(met: Met, tmp_path: Path) -> None:
    await met.append(range(256))
    folder = tmp_path / "once"

    async def run(*more: str) -> tuple[int, str]:
        arguments: tuple[str | Path, ...] = ("export-tiles", met.config, folder, *more)
        done = await asyncio.to_thread(run_program, *arguments)
        return done.returncode, done.stdout + done.stderr

    assert await run() == (0, "EXPORTED: 256 entries, 3 files written\n")
    await met.append(range(256, 260))
    assert await run() == (0, "EXPORTED: 260 entries, 2 files written\n")
    (folder / "tile" / "0" / "000").write_bytes(b"torn")
    assert await run("--recheck") == (0, "EXPORTED: 260 entries, 1 files written\n")
    (folder / "checkpoint").write_text("another\n")
    code, said = await run()
    assert code == 1
    assert "not a checkpoint of this log" in said


async def test_a_silent_log_records_that_it_is_alive(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    text = config.read_text()
    config.write_text(
        f'heartbeat_s = 0.2\n{text}[http]\nlisten = "127.0.0.1:0"\nport_file = "http-port"\n'
    )
    process = LedgerProcess(config)
    try:
        await process.start()
        async with aiohttp.ClientSession() as stranger:
            port = await http_port(config)

            async def second_beat() -> bytes | None:
                path = f"http://127.0.0.1:{port}/tile/entries/000.p/2"
                async with stranger.get(path) as answer:
                    return await answer.read() if answer.status == 200 else None

            first, second = (
                Entry.FromString(one) for one in decode_bundle(await until(second_beat))
            )
        assert process.stop() == 0
    finally:
        process.kill()
    for beat in (first, second):
        assert beat.WhichOneof("event") == "heartbeat"
        assert beat.recorded_by.endswith("/service/ledger")
    assert second.recorded_at.ToDatetime() <= first.heartbeat.next_before.ToDatetime()
    assert_whole(process.database)


async def test_a_taken_port_stops_the_start_and_is_named(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with config.open("a") as file:
        file.write(f'[http]\nlisten = "127.0.0.1:{port}"\n')
    started = await asyncio.to_thread(run_program, config)
    server.close()
    await server.wait_closed()
    assert started.returncode == 2
    assert "http.listen" in started.stderr
