"""The ledger's append API as the broker uses it, beside bare group commits of the same rows.

Starts a real NATS server and a real ledger process, with mutual TLS, and appends entries of about 600 bytes
from 1, 64 and 256 clients: over NATS and over gRPC, each entry in a request of its own, and in batches:
64 clients' entries to a request, as a broker gathers them. Every append is answered after its fsync,
with its receipt; a client asks again when it has it.

A second table has entries come at a steady rate, and compares how long they wait while nothing else
happens, while the database copies its log into its tables, while a witness cosigns, and while readers query
and fetch tiles.

Run: `python bench/ledger_api.py [--postgres] [--seconds S]`. `--postgres` starts a PostgreSQL server of its
own, with its ordinary settings for durability. Under two minutes; ends only what it started.
"""

import argparse
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from append_load import GROUP, Load
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from countersign.ledger.v1.append_pb2_grpc import LedgerAppendServiceStub
from ledger_appends import Figures, run_bare
from ledger_under_test import Engine, Running, running
from shared.bus import Bus
from shared.identity import SpiffeId
from shared.rpc import call, open_channel
from shared.settings import BusSettings
from tlog.note import Verifier

CLIENTS: Final = (1, 64, 256)
TIMEOUT_S: Final = 30
RATE: Final = 500
"""Entries a second while waits are compared: far below the most, so that a stall shows as one."""
Append = Callable[[AppendRequest], Awaitable[AppendResponse]]


@dataclass(frozen=True)
class Row:
    """One way of appending, with so many clients."""

    way: str
    clients: int
    figures: Figures
    cpu_us: dict[str, float]
    """Processor time for an entry, by process."""


@asynccontextmanager
async def doors(ledger: Running) -> AsyncIterator[dict[str, Append]]:
    """The broker's two doors to the ledger."""
    tls = ledger.layout.tls(SpiffeId(TRUST_DOMAIN, "service", "broker"))
    settings = BusSettings(servers=(f"tls://127.0.0.1:{ledger.ports.nats}",), tls=tls)
    bus = await Bus.connect(settings, "broker")

    async def over_nats(request: AppendRequest) -> AppendResponse:
        return await bus.request("ledger.append", request, AppendResponse, TIMEOUT_S)

    try:
        async with open_channel(f"127.0.0.1:{ledger.ports.ledger}", tls) as channel:
            stub = LedgerAppendServiceStub(channel)

            async def over_grpc(request: AppendRequest) -> AppendResponse:
                return await call(stub.Append, request, name="bench", timeout_s=TIMEOUT_S)

            yield {"NATS": over_nats, "gRPC": over_grpc}
    finally:
        await bus.close()


def load(ledger: Running, append: Append) -> Load:
    """A load that knows the log's key."""
    vkey = ledger.layout.keys.ledger_vkey.read_text(encoding="ascii").strip()
    return Load(append, Verifier.parse(vkey))


async def throughput(ledger: Running, seconds: float) -> list[Row]:
    """Every way with every number of clients."""
    rows = []
    async with doors(ledger) as by_name:
        for (door, append), (how, group) in itertools.product(
            by_name.items(), (("one by one", 1), (f"batches of {GROUP}", GROUP))
        ):
            for clients in CLIENTS if group == 1 else CLIENTS[1:]:
                before = ledger.cpu_s()
                figures = await load(ledger, append).clients(clients, group, seconds)
                count = figures.per_second * seconds
                cpu = {n: (s - before.get(n, 0)) / count * 1e6 for n, s in ledger.cpu_s().items()}
                rows.append(Row(f"{door}, {how}", clients, figures, cpu))
    return rows


async def waits(
    ledger: Running, beside: list[str], seconds: float
) -> dict[str, tuple[Figures, str]]:
    """How long entries wait at a steady rate, while each of these goes on."""
    found = {}
    async with doors(ledger) as by_name:
        steady = load(ledger, by_name["NATS"])
        await steady.steady(RATE, 0.5)
        for what in beside:
            async with ledger.disturbed(what) as said:
                figures = await steady.steady(RATE, seconds)
            found[what] = (figures, said())
    return found


def show_throughput(engine: Engine, rows: list[Row], bare: dict[int, Figures]) -> None:
    """Print the table."""
    table = Table(
        title=f"Appends through the ledger's own API, each answered after fsync ({engine.title})"
    )
    names = ("ledger", "load", "nats", "database", "index")
    for heading in ("way", "clients", "entries/s", "p50 ms", "p99 ms", "bare/s", "share of bare"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    table.add_column(f"CPU µs an entry: {', '.join(names)}", justify="right")
    for row in rows:
        floor = bare[row.clients].per_second
        table.add_row(
            row.way,
            str(row.clients),
            f"{row.figures.per_second:,.0f}",
            f"{row.figures.p50_ms:.1f}",
            f"{row.figures.p99_ms:.1f}",
            f"{floor:,.0f}",
            f"{row.figures.per_second / floor:.2f}",
            " ".join(f"{row.cpu_us[name]:.0f}" if name in row.cpu_us else "-" for name in names),
        )
    Console(width=140).print(table)


def show_waits(engine: Engine, found: dict[str, tuple[Figures, str]]) -> None:
    """Print the table."""
    table = Table(
        title=f"How long an entry waits for its receipt, {RATE:,} a second over NATS ({engine.title})"
    )
    for heading in ("meanwhile", "p50 ms", "p99 ms", "longest ms", "done beside"):
        table.add_column(heading, justify="right" if heading.endswith("ms") else "left")
    for what, (figures, said) in found.items():
        table.add_row(
            what,
            f"{figures.p50_ms:.1f}",
            f"{figures.p99_ms:.1f}",
            f"{figures.worst_ms:.1f}",
            said,
        )
    Console(width=140).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Appends through the ledger's own API.")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of SQLite")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(dir=arguments.folder, prefix="countersign-bench-")
            )
        )
        engine = stack.enter_context(Engine.started(folder, postgres=arguments.postgres))
        with running(folder / "plain", engine) as ledger:
            rows = uvloop.run(throughput(ledger, seconds))
            calm = ["nothing else", "database checkpoints", "readers"]
            found = uvloop.run(waits(ledger, calm, 2 * seconds))
        with running(folder / "witnessed", engine, witness=True) as ledger:
            found |= uvloop.run(waits(ledger, ["a witness", "all of these"], 2 * seconds))
        bare = {
            clients: uvloop.run(run_bare(engine.database(), clients, seconds))
            for clients in CLIENTS
        }
    show_throughput(engine, rows, bare)
    show_waits(engine, found)


if __name__ == "__main__":
    main()
