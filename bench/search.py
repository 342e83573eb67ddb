"""The full search beside a bare gRPC echo of the same bytes: throughput, latency, CPU, ratios.

Starts a complete installation on loopback with mutual TLS (ledger, policy, broker, NATS, and a
connector that answers at once), and submits searches with a sealed probe of 100 kB, each from sealing
to the verified, opened answer. By turns with them the same request is echoed by a bare server, so that
the ratio, the median of the turns', holds on a noisy machine. CPU is counted over all processes, the load
generator included. Bounded in count and time; ends only what it started.

What an agency has before it asks is no work of ours, and is made before clock and CPU are read: the facts
of the case, the picture, and the officer's token, which the agency's identity provider signs.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import random
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import psutil
import uvloop
from rich.table import Table

from countersign.broker.v1.broker_pb2 import SubmitSearchRequest
from countersign.client import Client, ClientSettings
from countersign.client.prepare import seal_search
from countersign.client.search_ids import new_search_id
from countersign.installation import bundled
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from countersign.installation.supervisor import Supervisor
from countersign.type.v1 import search_pb2 as s
from measuring import Measured, console, cpu_seconds, load, show, together
from shared.signing import SigningKey
from shared.tokens import LIFETIME_MAX

LEVELS: Final = ((1, 120), (16, 960), (64, 3_840), (256, 3_840))
"""How many in flight, and how many searches in all."""
IN_FLIGHT: Final = 64
"""Where the project holds itself to a bound."""
WARM_UP: Final = 64
SETTLING: Final = 1_536
"""Searches before the first turn: an installation is to be measured as it runs on, and in the first thousand
each process gives most verdicts for the first time."""
TURNS: Final = 12
"""A machine with other guests changes its pace within seconds, for what lives off its caches above all."""
ECHOES_EACH: Final = 4
"""Echoes for each search: they are that much faster at least."""
PROBE_BYTES: Final = 100_000
WAIT_S: Final = 30.0
INDEX: Final = "ledger.follower"
INDEX_WAIT_S: Final = 30.0
"""The query index begins ten seconds after its ledger. A search pays for it, but for its start."""
LOOK_S: Final = 1.0
IDLE_S: Final = 0.05
"""Processor time between two looks, of a process that waits."""
SYSTEM_SEALING: Final = "lacris"
ORIGIN: Final = "CA0194200"
OFFICERS: Final = tuple(f"lapd-6{number:04}" for number in range(8))
"""Each trained and listed. Verdicts are kept by officer among others, so one would flatter us."""
PURPOSES: Final = (
    s.PURPOSE_CRIMINAL_INVESTIGATION,
    s.PURPOSE_IMMINENT_THREAT_TO_LIFE,
    s.PURPOSE_DECEASED_PERSON,
    s.PURPOSE_INCAPACITATED_PERSON,
)
SUSPICIONS: Final = (
    s.SUSPICION_LEVEL_REASONABLE_SUSPICION,
    s.SUSPICION_LEVEL_PROBABLE_CAUSE,
)
PROVENANCES: Final = (
    s.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
    s.PROBE_PROVENANCE_WITNESS_PHOTO,
    s.PROBE_PROVENANCE_BOOKING_PHOTO,
    s.PROBE_PROVENANCE_OFFICER_PHOTO,
    s.PROBE_PROVENANCE_SKETCH,
)
CAPTURE_MODES: Final = (s.CAPTURE_MODE_STORED_STILL, s.CAPTURE_MODE_STORED_VIDEO_FRAME)
OFFENCES: Final = (
    ("120", s.OFFENCE_SEVERITY_VIOLENT_FELONY),
    ("13A", s.OFFENCE_SEVERITY_VIOLENT_FELONY),
    ("220", s.OFFENCE_SEVERITY_FELONY),
    ("23C", s.OFFENCE_SEVERITY_MISDEMEANOUR),
)
ECHO_SERVER: Final = Path(__file__).parent / "echo_server.py"
RATIO_MAX: Final = 9.0
"""CPU of a full search over that of an echo, 64 in flight: what the project holds itself to."""


def own_case(chance: random.Random) -> s.SearchFacts:
    """A search that every party permits, of facts that differ from search to search."""
    nibrs_code, severity = chance.choice(OFFENCES)
    return s.SearchFacts(
        search_id=new_search_id(),
        origin_agency=ORIGIN,
        beneficiary_agency=ORIGIN,
        system=SYSTEM_SEALING,
        gallery="lacris-booking",
        purpose=chance.choice(PURPOSES),
        suspicion=chance.choice(SUSPICIONS),
        offence=s.Offence(nibrs_code=nibrs_code, severity=severity, attempt=chance.random() < 0.2),
        provenance=chance.choice(PROVENANCES),
        capture_mode=chance.choice(CAPTURE_MODES),
        case_number=f"26-{chance.randrange(10**6):06}",
        narrative="load test",
    )


@dataclass(frozen=True, slots=True)
class Case:
    """What an agency has before it asks."""

    facts: s.SearchFacts
    officer: str
    token: str


class FullSearch:
    """From sealing to the opened answer, as an agency system does it."""

    def __init__(self, client: Client, provider: DevelopmentIdentityProvider) -> None:
        self._client = client
        self._provider = provider
        self._chance = random.Random(1)
        self._probe = os.urandom(PROBE_BYTES)
        self._sealing_key = client.trust.systems[SYSTEM_SEALING].sealing_public_key
        self._ahead: deque[Case] = deque()

    def prepare_ahead(self, count: int) -> None:
        """The cases of the next searches; a level takes a minute or two, and a token fifteen to lapse."""
        self._ahead.extend(self._case() for _ in range(count))

    def _case(self) -> Case:
        facts, officer = own_case(self._chance), self._chance.choice(OFFICERS)
        return Case(facts, officer, self._provider.token(officer, facts.search_id, LIFETIME_MAX))

    async def __call__(self) -> None:
        """One search. Exits when it is not answered: a refused search would be a fast one."""
        case = self._ahead.popleft() if self._ahead else self._case()
        prepared = seal_search(case.facts, self._probe, self._sealing_key)
        search = await self._client.submit(prepared, case.token, wait_s=WAIT_S)
        opened = self._client.open_answer(prepared, search, case.officer)
        if opened.candidates is None:
            sys.exit(f"a search of the load failed: {opened.failure}")


def with_officers(layout: Layout) -> None:
    """The demonstration's registry with the officers of the load."""
    layout.root.mkdir(mode=0o700, parents=True)
    added = "".join(
        f'\n[officers.{officer}]\nagency = "{ORIGIN}"\nactive = true\n'
        'lists = ["lapd-fr-users"]\ncertificates = { LACRIS-FR = 2099-01-01 }\n'
        for officer in OFFICERS
    )
    layout.registry.write_text(bundled.registry().read_text("utf-8") + added, encoding="utf-8")


def without_matching(config: Path) -> None:
    """Has the connector answer at once: what is measured is everything but the matcher."""
    lines: list[str] = []
    section = ""
    for line in config.read_text(encoding="utf-8").splitlines():
        section = line if line.startswith("[") else section
        if section != "[behind]":
            lines.append(line)
    lines += ["[behind]", 'adapter = "answers-at-once"', ""]
    # A system that answers at once is given as many orders at once as there are.
    lines.insert(0, f"orders_in_flight_max = {IN_FLIGHT}")
    config.write_text("\n".join(lines), encoding="utf-8")


def our_processes() -> dict[str, psutil.Process]:
    """Ourselves and what we started, by what they run."""
    processes = {"load": psutil.Process()}
    for child in psutil.Process().children(recursive=True):
        words = child.cmdline()
        name = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
        processes[name] = child
    return processes


async def all_processes() -> dict[str, psutil.Process]:
    """The same, once the query index is among them and has begun. Raises TimeoutError."""
    async with asyncio.timeout(INDEX_WAIT_S):
        while True:
            before = our_processes()
            spent = cpu_seconds(before)
            await asyncio.sleep(LOOK_S)
            if INDEX in before and cpu_seconds(before)[INDEX] - spent[INDEX] < IDLE_S:
                return before


@contextlib.asynccontextmanager
async def searching(folder: Path) -> AsyncIterator[tuple[FullSearch, dict[str, psutil.Process]]]:
    """A complete installation that has answered its first searches, and its processes."""
    layout = Layout(folder)
    with_officers(layout)
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
            await asyncio.gather(*(search() for _ in range(WARM_UP)))
            yield search, await all_processes()
    finally:
        await supervisor.stop()


class Echo:
    """The same request there and back."""

    def __init__(self, channel: grpc.aio.Channel, request: SubmitSearchRequest) -> None:
        self._method = channel.unary_unary(
            "/bench.Echo/Echo",
            request_serializer=SubmitSearchRequest.SerializeToString,
            response_deserializer=SubmitSearchRequest.FromString,
        )
        self._request = request

    def prepare_ahead(self, count: int) -> None:
        """It needs nothing."""

    async def __call__(self) -> None:
        """One echo."""
        await self._method(self._request, timeout=60)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[int, psutil.Process]]:
    """A bare server: its port and its process. Begun before gRPC is used here, which bears no fork."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(ECHO_SERVER), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        yield int(await server.stdout.readline()), psutil.Process(server.pid)
    finally:
        server.terminate()
        await server.wait()


@contextlib.asynccontextmanager
async def echoing(port: int) -> AsyncIterator[Echo]:
    """A connection to it that has had its first requests, each of the size of a search's."""
    request = SubmitSearchRequest(facts=own_case(random.Random(1)), officer_token="t" * 400)
    request.sealed_probe.ciphertext = os.urandom(PROBE_BYTES + 48)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = Echo(channel, request)
        for _ in range(50):
            await echo()
        yield echo


@dataclass(frozen=True)
class Compared:
    """One level of both, by turns."""

    searches: list[Measured]
    echoes: list[Measured]

    @property
    def cpu_ratios(self) -> list[float]:
        """Of each turn, the least first."""
        turns = zip(self.searches, self.echoes, strict=True)
        return sorted(search.cpu_total_ms / echo.cpu_total_ms for search, echo in turns)


async def compare(folder: Path, levels: tuple[tuple[int, int], ...]) -> list[Compared]:
    """Every level of both."""
    async with (
        echo_server() as (port, server),
        searching(folder) as (search, ours),
        echoing(port) as echo,
    ):
        # The echo's server is a child of this process too, and no part of a search.
        ours = {name: process for name, process in ours.items() if process != server}
        theirs = {"load": ours["load"], "echo": server}
        await load(search, IN_FLIGHT, SETTLING, ours)
        compared = [Compared([], []) for _ in levels]
        for level, (in_flight, count) in zip(compared, levels, strict=True):
            for _ in range(TURNS):
                level.searches.append(await load(search, in_flight, count // TURNS, ours))
                echoes = count // TURNS * ECHOES_EACH
                level.echoes.append(await load(echo, in_flight, echoes, theirs))
        return compared


def show_ratios(compared: list[Compared]) -> float:
    """Prints the ratios; gives that of the CPU at 64 in flight, or at the last level."""
    table = Table(title="Full search over bare echo", title_justify="left")
    for column in ("in flight", "throughput", "p50", "CPU", "CPU by turn"):
        table.add_column(column, justify="right")
    held = 0.0
    for level in compared:
        search, echo = together(level.searches), together(level.echoes)
        cpu = statistics.median(level.cpu_ratios)
        if search.in_flight == IN_FLIGHT or not held:
            held = cpu
        slower = f"1/{echo.rate / search.rate:.1f}"
        turns = ", ".join(f"{ratio:.1f}" for ratio in level.cpu_ratios)
        figures = (slower, f"{search.p50_ms / echo.p50_ms:.1f}x", f"{cpu:.1f}x", turns)
        table.add_row(str(search.in_flight), *figures)
    console.print(table)
    return held


async def run(levels: tuple[tuple[int, int], ...]) -> float:
    """Both subjects, by turns."""
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        compared = await compare(Path(folder) / "data", levels)
    console.print(
        f"Python {platform.python_version()}, grpcio {grpc.__version__}, {os.cpu_count()} cores, "
        f"probe {PROBE_BYTES} bytes before sealing"
    )
    searches = [together(level.searches) for level in compared]
    show("Full search: seal, decide, record, dispatch, answer, record, verify, open", searches)
    echoes = [together(level.echoes) for level in compared]
    show("Bare gRPC echo of a request of the same size", echoes)
    return show_ratios(compared)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{IN_FLIGHT} in flight only")
    arguments = parser.parse_args()
    levels = LEVELS[2:3] if arguments.quick else LEVELS
    held = uvloop.run(run(levels))
    verdict = "within" if held < RATIO_MAX else "ABOVE"
    console.print(f"CPU ratio {held:.1f}: {verdict} the bound of {RATIO_MAX:.0f}")
    sys.exit(0 if held < RATIO_MAX else 1)


if __name__ == "__main__":
    main()
