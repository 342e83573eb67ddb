"""A process starts, says that it is ready, and ends as it was told, with an exit code that says why."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.doors import Pki
from support.forked import run_forked
from support.process_under_test import SECRET
from support.sources import ROOT

PROGRAM = ROOT / "tests" / "support" / "process_under_test.py"
TIMEOUT_S = 120.0


@contextlib.asynccontextmanager
async def started(tmp_path: Path, config: str, **environment: str) -> AsyncIterator[Process]:
    (tmp_path / "config.toml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, PROGRAM, tmp_path / "config.toml"),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def run(tmp_path: Path, config: str) -> tuple[int, str, str]:
    """One that ends by itself: its exit code, and what it wrote."""
    (tmp_path / "config.toml").write_text(config)
    done = run_forked("support.process_under_test:main", tmp_path / "config.toml")
    return done.returncode, done.stdout, done.stderr


async def line_of(process: Process, *, error: bool = True) -> str:
    stream = process.stderr if error else process.stdout
    assert stream
    async with asyncio.timeout(TIMEOUT_S):
        return (await stream.readline()).decode()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("number", "manager"), [(signal.SIGTERM, "/manager"), (signal.SIGINT, "@manager")]
)
async def test_told_to_stop_it_closes_and_ends_well(
    tmp_path: Path, number: signal.Signals, manager: str
) -> None:
    """And tells systemd, which asks at a socket with a path or with an abstract name."""
    where = f"{tmp_path}{manager}" if manager.startswith("/") else f"{manager}{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(where.replace("@", "\0"))
        told.settimeout(TIMEOUT_S)
        async with started(tmp_path, "does = 'runs'", NOTIFY_SOCKET=where) as process:
            ready = json.loads(await line_of(process))
            assert (ready["message"], ready["service"]) == ("ready", "countersign-test")
            assert told.recv(64) == b"READY=1"
            process.send_signal(number)
            code, out, err = await ended(process)
        assert (code, out, err) == (0, "closed\n", "")
        assert told.recv(64) == b"STOPPING=1"


async def test_told_to_stop_while_it_starts_it_does_not_wait(tmp_path: Path) -> None:
    async with started(tmp_path, "does = 'waits at the start'") as process:
        assert await line_of(process, error=False) == "waiting\n"
        process.terminate()
        code, _, err = await ended(process)
    assert (code, err) == (0, "")


def test_when_it_cannot_go_on_it_ends_to_be_started_afresh(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "does = 'ends'")
    assert (code, out) == (1, "closed\n")
    assert events(err)[-1]["severity"] == "ERROR"


def test_without_what_it_needs_it_says_what(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "does = 'is refused'")
    assert code == 1
    (event,) = events(err)
    assert (event["message"], event["reason"]) == ("cannot start", "BUS_UNAVAILABLE")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("does = 'sings'", "does: "),
        ("", "does: is missing; give it"),
        ("does = 'runs'\ncolour = 'blue'", "colour: "),
        ("does = 'misconfigured'", "cannot read the registry"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, config: str, said: str) -> None:
    code, _, err = run(tmp_path, config)
    assert code == 2
    assert err.startswith("countersign-test: ")
    assert said in err


@pytest.mark.parametrize("does", ["breaks", "breaks later"])
async def test_bug_ends_it_without_quoting_what_it_was_given(tmp_path: Path, does: str) -> None:
    async with started(tmp_path, f"does = '{does}'") as process:
        if does == "breaks later":
            await line_of(process)
            process.terminate()
        code, _, err = await ended(process)
    assert code == 1
    assert SECRET not in err
    (event,) = events(err)
    assert (event["message"], event["exception"]) == ("failed", "ValueError")


async def test_a_certificate_that_lapses_soon_is_told_of_at_the_start(
    tmp_path: Path, pki: Pki
) -> None:
    pki.now -= timedelta(days=85)
    tls = pki.issue("service", "broker")
    files = "".join(f'{name} = "{path}"\n' for name, path in tls)
    async with started(tmp_path, f"does = 'runs'\n[tls]\n{files}") as process:
        lines = [json.loads(await line_of(process)) for _ in range(2)]
        said = {line["message"]: line for line in lines}
        assert set(said) == {"ready", "certificate lapses soon"}
        assert 4 < said["certificate lapses soon"]["days"] < 6
