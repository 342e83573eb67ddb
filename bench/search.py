"""The full search beside a bare gRPC echo of the same bytes: throughput, latency, CPU, ratios.

Starts a complete installation on loopback with mutual TLS (ledger, policy, broker, NATS, and a
connector that answers at once), and submits searches with a sealed probe of 100 kB, each from sealing
to the verified, opened answer. Then the same request is echoed by a bare server in the same run, so
that the ratio holds on a noisy machine. CPU is counted over all processes, the load generator
included. Bounded in count and time; ends only what it started.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from countersign.broker.v1.broker_pb2 import SubmitSearchRequest
from countersign.client import Client, ClientSettings
from countersign.client.prepare import seal_search
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from countersign.installation.supervisor import Supervisor
from countersign.type.v1 import search_pb2 as s
from shared.signing import SigningKey

LEVELS: Final = ((1, 60), (16, 320), (64, 640), (256, 768))
"""How many in flight, and how many searches in all."""
PROBE_BYTES: Final = 100_000
WAIT_S: Final = 30.0
SYSTEM_SEALING: Final = "lacris"
ORIGIN: Final = "CA0194200"
OFFICER: Final = "lapd-40123"
ECHO_SERVER: Final = Path(__file__).parent / "echo_server.py"
RATIO_MAX: Final = 11.0
"""CPU of a full search over that of an echo, 64 in flight: what the project holds itself to."""

console = Console(width=120)


@dataclass(frozen=True)
class Measured:
    """One level of one subject."""

    in_flight: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    """CPU for each request, by process."""

    @property
    def cpu_total_ms(self) -> float:
        """Over all processes."""
        return sum(self.cpu_ms.values())


def cpu_seconds(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """User and system time so far of each process."""
    times = {name: process.cpu_times() for name, process in processes.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


async def load(
    one: Callable[[], Awaitable[None]],
    in_flight: int,
    count: int,
    processes: dict[str, psutil.Process],
) -> Measured:
    """Keeps `in_flight` of them going until `count` are done."""
    left = count
    took: list[float] = []

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            await one()
            took.append(time.perf_counter() - started)

    before, started = cpu_seconds(processes), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed, after = time.perf_counter() - started, cpu_seconds(processes)
    took.sort()
    return Measured(
        in_flight=in_flight,
        rate=count / elapsed,
        p50_ms=statistics.median(took) * 1000,
        p99_ms=took[min(len(took) - 1, int(len(took) * 0.99))] * 1000,
        cpu_ms={name: (after[name] - before[name]) / count * 1000 for name in processes},
    )


def own_case() -> s.SearchFacts:
    """A search that every party permits."""
    return s.SearchFacts(
        search_id=str(uuid.uuid4()),
        origin_agency=ORIGIN,
        beneficiary_agency=ORIGIN,
        system=SYSTEM_SEALING,
        gallery="lacris-booking",
        purpose=s.PURPOSE_CRIMINAL_INVESTIGATION,
        suspicion=s.SUSPICION_LEVEL_REASONABLE_SUSPICION,
        offence=s.Offence(nibrs_code="120", severity=s.OFFENCE_SEVERITY_FELONY),
        provenance=s.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
        capture_mode=s.CAPTURE_MODE_STORED_VIDEO_FRAME,
        case_number="26-0001",
        narrative="load test",
    )


class FullSearch:
    """From sealing to the opened answer, as an agency system does it."""

    def __init__(self, client: Client, provider: DevelopmentIdentityProvider) -> None:
        self._client = client
        self._provider = provider
        self._probe = os.urandom(PROBE_BYTES)
        self._sealing_key = client.trust.systems[SYSTEM_SEALING].sealing_public_key

    def prepared(self) -> tuple[Any, str]:
        """A sealed search and its officer's token."""
        prepared = seal_search(own_case(), self._probe, self._sealing_key)
        return prepared, self._provider.token(OFFICER, prepared.search_id)

    async def __call__(self) -> None:
        """One search. Exits when it is not answered: a refused search would be a fast one."""
        prepared, token = self.prepared()
        search = await self._client.submit(prepared, token, wait_s=WAIT_S)
        opened = self._client.open_answer(prepared, search, OFFICER)
        if opened.candidates is None:
            sys.exit(f"a search of the load failed: {opened.failure}")


def without_matching(config: Path) -> None:
    """Has the connector answer at once: what is measured is everything but the matcher."""
    lines: list[str] = []
    section = ""
    for line in config.read_text(encoding="utf-8").splitlines():
        section = line if line.startswith("[") else section
        if section != "[behind]":
            lines.append(line)
    lines += ["[behind]", 'adapter = "answers-at-once"', ""]
    config.write_text("\n".join(lines), encoding="utf-8")


def our_processes() -> dict[str, psutil.Process]:
    """Ourselves and what we started, by what they run."""
    processes = {"load": psutil.Process()}
    for child in psutil.Process().children(recursive=True):
        words = child.cmdline()
        name = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
        processes[name] = child
    return processes


async def measure_searches(folder: Path, levels: tuple[tuple[int, int], ...]) -> list[Measured]:
    """Every level of the full search."""
    layout = Layout(folder)
    registry = ensure_documents(layout)
    installation = prepare(layout, registry, Ports.free(systems_run_here(registry)))
    without_matching(layout.config(f"connector-{SYSTEM_SEALING}"))
    supervisor = Supervisor(installation, lambda _part, _what: None)
    try:
        await supervisor.start()
        settings = ClientSettings.load(layout.client(ORIGIN))
        assert settings.identity_provider is not None
        provider = DevelopmentIdentityProvider(
            settings.identity_provider.issuer,
            SigningKey.load(settings.identity_provider.signing_key),
        )
        async with Client.connect(settings) as client:
            search = FullSearch(client, provider)
            for _ in range(20):
                await search()
            processes = our_processes()
            return [await load(search, flight, count, processes) for flight, count in levels]
    finally:
        await supervisor.stop()


async def measure_echo(levels: tuple[tuple[int, int], ...]) -> list[Measured]:
    """Every level of a bare echo of a request of the same size."""
    request = SubmitSearchRequest(facts=own_case(), officer_token="t" * 400)
    request.sealed_probe.ciphertext = os.urandom(PROBE_BYTES + 48)
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(ECHO_SERVER), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.unary_unary(
                "/bench.Echo/Echo",
                request_serializer=SubmitSearchRequest.SerializeToString,
                response_deserializer=SubmitSearchRequest.FromString,
            )

            async def echo() -> None:
                await method(request, timeout=60)

            for _ in range(50):
                await echo()
            processes = {"load": psutil.Process(), "echo": psutil.Process(server.pid)}
            return [await load(echo, flight, count * 4, processes) for flight, count in levels]
    finally:
        server.terminate()
        await server.wait()


def show(title: str, rows: list[Measured]) -> None:
    """Prints one subject's levels."""
    table = Table(title=title, title_justify="left")
    for column in ("in flight", "per second", "p50 ms", "p99 ms", "CPU ms", "CPU ms by process"):
        table.add_column(column, justify="left" if "by" in column else "right")
    for row in rows:
        parts = ", ".join(f"{name} {spent:.2f}" for name, spent in row.cpu_ms.items())
        figures = [f"{row.rate:.0f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"]
        table.add_row(str(row.in_flight), *figures, f"{row.cpu_total_ms:.2f}", parts)
    console.print(table)


def show_ratios(searches: list[Measured], echoes: list[Measured]) -> float:
    """Prints the ratios; gives that of the CPU at 64 in flight, or at the last level."""
    table = Table(title="Full search over bare echo", title_justify="left")
    for column in ("in flight", "throughput", "p50", "CPU"):
        table.add_column(column, justify="right")
    held = 0.0
    for search, echo in zip(searches, echoes, strict=True):
        cpu = search.cpu_total_ms / echo.cpu_total_ms
        if search.in_flight == 64 or not held:
            held = cpu
        slower = f"1/{echo.rate / search.rate:.1f}"
        row = (str(search.in_flight), slower, f"{search.p50_ms / echo.p50_ms:.1f}x", f"{cpu:.1f}x")
        table.add_row(*row)
    console.print(table)
    return held


async def run(levels: tuple[tuple[int, int], ...]) -> float:
    """Both subjects, one after the other."""
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        searches = await measure_searches(Path(folder) / "data", levels)
    echoes = await measure_echo(levels)
    console.print(
        f"Python {platform.python_version()}, grpcio {grpc.__version__}, {os.cpu_count()} cores, "
        f"probe {PROBE_BYTES} bytes before sealing"
    )
    show("Full search: seal, decide, record, dispatch, answer, record, verify, open", searches)
    show("Bare gRPC echo of a request of the same size", echoes)
    return show_ratios(searches, echoes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 in flight only")
    arguments = parser.parse_args()
    levels = ((64, 640),) if arguments.quick else LEVELS
    held = uvloop.run(run(levels))
    verdict = "within" if held < RATIO_MAX else "ABOVE"
    console.print(f"CPU ratio {held:.1f}: {verdict} the bound of {RATIO_MAX:.0f}")
    sys.exit(0 if held < RATIO_MAX else 1)


if __name__ == "__main__":
    main()
