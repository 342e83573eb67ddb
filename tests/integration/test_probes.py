"""What an orchestrator hears of a process: that it lives, has started, can work; each for itself."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from policy.__main__ import running
from shared.probes import LIVE, READY, STARTED, Life
from support.nats_servers import NatsUnderTest, free_port
from support.policies import policy_settings
from support.sources import ROOT
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = ROOT / "tests" / "support" / "process_under_test.py"
TIMEOUT_S = 120.0


class ProcessWithProbes:
    """A process of which one asks without any certificate."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"

    async def ask(self, name: str) -> bool:
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = health_pb2.HealthCheckRequest(service=name)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def answers(self) -> dict[str, bool]:
        return {name: await self.ask(name) for name in (LIVE, STARTED, READY)}

    async def says(self, line: str) -> None:
        assert self.process.stdout
        async with asyncio.timeout(TIMEOUT_S):
            assert await self.process.stdout.readline() == f"{line}\n".encode()

    async def is_ready_to_be_asked(self) -> None:
        assert self.process.stderr
        async with asyncio.timeout(TIMEOUT_S):
            assert json.loads(await self.process.stderr.readline())["message"] == "ready"


@contextlib.asynccontextmanager
async def started(folder: Path, does: str) -> AsyncIterator[ProcessWithProbes]:
    port, config = free_port(), folder / "config.toml"
    config.write_text(f"does = '{does}'\n[probes]\naddress = '127.0.0.1:{port}'\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, config, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield ProcessWithProbes(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest_asyncio.fixture(name="serving", scope="module", loop_scope="module")
async def _serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProcessWithProbes]:
    """One for all tests that do nothing but ask."""
    async with started(tmp_path_factory.mktemp("serving"), "runs") as one:
        await one.is_ready_to_be_asked()
        yield one


async def test_a_service_that_serves_says_so(serving: ProcessWithProbes) -> None:
    assert await serving.answers() == {LIVE: True, STARTED: True, READY: True}


async def test_a_start_that_takes_long_is_alive(tmp_path: Path) -> None:
    async with started(tmp_path, "waits at the start") as one:
        await one.says("waiting")
        assert await one.answers() == {LIVE: True, STARTED: False, READY: False}


async def test_without_the_bus_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    async with started(tmp_path, "lacks its bus") as one:
        await one.is_ready_to_be_asked()
        assert await one.answers() == {LIVE: True, STARTED: True, READY: False}


async def test_told_to_stop_it_is_not_ready_and_finishes_its_work(tmp_path: Path) -> None:
    async with started(tmp_path, "drains") as one:
        await one.is_ready_to_be_asked()
        assert (await one.answers())[READY]
        one.process.terminate()
        await one.says("draining")
        assert await one.answers() == {LIVE: True, STARTED: True, READY: False}
        out, _ = await one.process.communicate(b"")
    assert (one.process.returncode, out) == (0, b"closed\n")


async def test_a_probe_of_another_name_is_not_found(serving: ProcessWithProbes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await serving.ask("countersign.broker.v1.BrokerService")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_address_that_is_taken_is_named(
    serving: ProcessWithProbes, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"does = 'runs'\n[probes]\naddress = '{serving.address}'\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, config, stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert f"probes.address: cannot listen on {serving.address}".encode() in err


async def test_a_service_is_ready_while_it_has_its_bus(nats_server: NatsUnderTest) -> None:
    async with running(policy_settings(nats_server)) as policy:
        life = Life(working=policy)
        assert life.answers()[READY]
        nats_server.kill()

        async def away() -> bool | None:
            return True if not life.answers()[READY] else None

        await until(away)
        assert life.answers() == {LIVE: True, STARTED: True, READY: False}
        nats_server.start()

        async def back() -> bool | None:
            return True if life.answers()[READY] else None

        await until(back)
