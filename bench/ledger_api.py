"""The ledger's append API as the broker uses it, beside bare group commits of the same rows.

Starts a real NATS server and a real ledger process, with mutual TLS, and appends entries of about 600 bytes
from 1, 64 and 256 clients: over NATS and over gRPC, each entry in a request of its own, and gathered
into batches as the broker does it. Every append is answered after its fsync, with its receipt.
Run: `python bench/ledger_api.py [--seconds S]`. Bounded in time; ends only what it started.
"""

import argparse
import itertools
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from broker.ledger import Ledger
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.layout import Layout
from countersign.installation.parts import Part, environment, stages
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse, PendingEntry
from countersign.ledger.v1.append_pb2_grpc import LedgerAppendServiceStub
from ledger.sqlite_storage import SqliteDatabase
from ledger_appends import Figures, drive, pending_entry, run_bare
from shared.bus import Bus
from shared.identity import SpiffeId
from shared.rpc import call, open_channel
from shared.settings import BusSettings

IN_FLIGHT: Final = (1, 64, 256)
TIMEOUT_S: Final = 30
START_TIMEOUT_S: Final = 60
Append = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """One way of appending, at one concurrency."""

    way: str
    in_flight: int
    figures: Figures
    ledger_cpu_us: float
    """CPU of the ledger's process for an entry."""


class GrpcBus:
    """What the broker's batches need of a bus, over gRPC."""

    def __init__(self, stub: LedgerAppendServiceStub) -> None:
        self._stub = stub

    async def request(
        self, _subject: str, message: AppendRequest, _response: type[Any], timeout_s: float
    ) -> AppendResponse:
        """Append."""
        return await call(self._stub.Append, message, name="bench", timeout_s=timeout_s)


def fresh(number: int) -> PendingEntry:
    """An entry that no earlier level has appended: its search id is its key."""
    pending = pending_entry(number)
    search_id = str(uuid.uuid4())
    pending.entry.search_id = search_id
    pending.idempotency_key = f"decided/{search_id}"
    return pending


def start(part: Part) -> subprocess.Popen[bytes]:
    """Start one process and wait until it serves."""
    with part.log.open("ab") as log:
        process = subprocess.Popen(
            part.leashed(os.getpid()), stdout=log, stderr=log, env=environment()
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not part.door.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{part.name} did not start:\n{part.log.read_text()}")
        time.sleep(0.05)
    return process


def ways(bus: Bus, stub: LedgerAppendServiceStub) -> dict[str, Append]:
    """Each way of appending one entry."""
    over_nats = Ledger(bus)
    over_grpc = Ledger(GrpcBus(stub))  # type: ignore[arg-type]  # the one method that it uses

    async def nats_single(number: int) -> object:
        request = AppendRequest(entries=[fresh(number)])
        return await bus.request("ledger.append", request, AppendResponse, TIMEOUT_S)

    async def grpc_single(number: int) -> object:
        request = AppendRequest(entries=[fresh(number)])
        return await call(stub.Append, request, name="bench", timeout_s=TIMEOUT_S)

    async def nats_gathered(number: int) -> object:
        return await over_nats.append(fresh(number))

    async def grpc_gathered(number: int) -> object:
        return await over_grpc.append(fresh(number))

    return {
        "NATS, one by one": nats_single,
        "NATS, gathered": nats_gathered,
        "gRPC, one by one": grpc_single,
        "gRPC, gathered": grpc_gathered,
    }


@asynccontextmanager
async def clients(layout: Layout, ports: Ports) -> AsyncIterator[tuple[Bus, Any]]:
    """The broker's two doors to the ledger."""
    tls = layout.tls(SpiffeId(TRUST_DOMAIN, "service", "broker"))
    bus = await Bus.connect(
        BusSettings(servers=(f"tls://127.0.0.1:{ports.nats}",), tls=tls), "broker"
    )
    try:
        async with open_channel(f"127.0.0.1:{ports.ledger}", tls) as channel:
            yield bus, LedgerAppendServiceStub(channel)
    finally:
        await bus.close()


async def measure(
    layout: Layout, ports: Ports, ledger: psutil.Process, seconds: float
) -> list[Row]:
    """Every way at every concurrency."""
    rows = []
    async with clients(layout, ports) as (bus, stub):
        for (way, append), in_flight in itertools.product(ways(bus, stub).items(), IN_FLIGHT):
            before = ledger.cpu_times()
            figures = await drive(append, in_flight, seconds)
            after = ledger.cpu_times()
            spent = after.user + after.system - before.user - before.system
            count = figures.per_second * seconds
            rows.append(Row(way, in_flight, figures, spent / count * 1e6))
    return rows


def run(seconds: float, folder: Path) -> tuple[list[Row], dict[int, Figures]]:
    """The API and the floor, one after the other."""
    layout = Layout(folder / "data")
    registry = ensure_documents(layout)
    ports = Ports.free(systems_run_here(registry))
    installation = prepare(layout, registry, ports)
    parts = {part.name: part for stage in stages(installation) for part in stage}
    started: list[subprocess.Popen[bytes]] = []
    try:
        started += [start(parts["nats"]), start(parts["ledger"])]
        child = psutil.Process(started[1].pid)
        rows = uvloop.run(measure(layout, ports, child, seconds))
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
    bare = {
        in_flight: uvloop.run(
            run_bare(SqliteDatabase(folder / f"bare-{in_flight}.sqlite"), in_flight, seconds)
        )
        for in_flight in IN_FLIGHT
    }
    return rows, bare


def show(rows: list[Row], bare: dict[int, Figures]) -> None:
    """Print the table."""
    table = Table(title="Appends through the ledger's own API, each answered after fsync")
    for heading in (
        "way",
        "in flight",
        "entries/s",
        "p50 ms",
        "p99 ms",
        "ledger CPU µs",
        "bare/s",
        "ratio",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for row in rows:
        floor = bare[row.in_flight].per_second
        table.add_row(
            row.way,
            str(row.in_flight),
            f"{row.figures.per_second:,.0f}",
            f"{row.figures.p50_ms:.1f}",
            f"{row.figures.p99_ms:.1f}",
            f"{row.ledger_cpu_us:.0f}",
            f"{floor:,.0f}",
            f"1/{floor / row.figures.per_second:.1f}",
        )
    Console(width=120).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Appends through the ledger's own API.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way and concurrency")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="countersign-bench-") as folder:
        show(*run(arguments.seconds, Path(folder)))


if __name__ == "__main__":
    main()
