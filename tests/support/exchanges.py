"""A whole installation with clients that load it, somebody who breaks it, and what is left to judge.

with Exchange(folder) as exchange:
    with exchange.load(seed, name) as load:
        Nemesis(exchange, seed).strike(...)
    wrongs_of(exchange.history())
"""

import contextlib
import json
import os
import sqlite3
import time
import tomllib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from countersign.cli.main import exit_code
from countersign.connector.v1.connector_pb2 import SignedAnswer
from countersign.installation.parts import GrpcDoor, Part
from countersign.installation.ports import address
from shared import toml
from support import connector_that_struggles, exchange_clients
from support.brokers import OFFICER
from support.exchange_clients import ClientPlan, Plan
from support.exchange_history import Begun, Failed, History, Proved, Run, Told, Tried
from support.forked import ForkedProcess, fork
from support.installations import BURBANK, LAPD, OURS, InstallationUnderTest, ProcessUnderTest
from support.links import Link, wired
from support.nats_clusters import NatsCluster
from support.nats_servers import free_port
from support.postgres import PostgresUnderTest
from support.waiting import WAIT_S_MAX
from tlog.folder import entries_in_folder, verify_folder
from tlog.policy import Policy

CONNECTOR: Final = "connector-lacris"
OFFICERS: Final = {LAPD: OFFICER, BURBANK: "burbank-117"}
WORKERS: Final = 6
"""Searches of each agency under way at once."""
LOOK_EVERY_S: Final = 0.1
UNLIMITED: Final = {
    "officer_searches_per_minute": 100_000.0,
    "officer_searches_burst": 100_000,
    "agency_searches_per_minute": 100_000.0,
    "agency_searches_burst": 100_000,
}
"""One officer of each agency makes all its searches."""


@dataclass
class Load:
    """Clients at work in a process of their own."""

    process: ForkedProcess
    logs: Sequence[Path]

    @property
    def lines(self) -> int:
        """How much they have been told."""
        return sum(log.read_bytes().count(b"\n") for log in self.logs if log.exists())

    @property
    def seen(self) -> set[str]:
        """What has become of searches so far, and whether something was tried that nobody may."""
        lines = _lines(self.logs)
        tried = {"tried" for one in lines if one["kind"] == "Tried"}
        # A call that failed has no state, and is no search that did.
        return tried | {one["state"] for one in lines if one["kind"] == "Told"}

    def wait_until_seen(self, what: Set[str]) -> None:
        """For all of this: how much a machine does meanwhile is not known, so the load goes on until then."""
        until = time.monotonic() + WAIT_S_MAX
        while missing := what - self.seen:
            assert time.monotonic() < until, f"nothing was {missing}"
            assert self.process.poll() is None, "the clients have ended"
            time.sleep(LOOK_EVERY_S)

    def wait_for(self, lines: int, s_max: float) -> None:
        """Until they have been told so much more, or so long: what is broken may tell them little."""
        enough, until = self.lines + lines, time.monotonic() + s_max
        while self.lines < enough and time.monotonic() < until:
            assert self.process.poll() is None, "the clients have ended"
            time.sleep(LOOK_EVERY_S)


class Exchange:
    """The installation, whose connectors struggle. More brokers and connectors share the work."""

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        policies: int = 1,
        connectors: int = 1,
        with_links: bool = False,
        with_wires: bool = False,
        nats_cluster: bool = False,
        database: PostgresUnderTest | None = None,
    ) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.installation = InstallationUnderTest(folder / "data")
        self.cluster = NatsCluster(self.installation) if nats_cluster else None
        self.processes = self.installation.processes
        self._load_logs: list[Path] = []
        self._with_links = with_links
        self._with_wires = with_wires
        self.links: dict[str, Link] = {}
        """From each process to the bus."""
        struggles = f"{connector_that_struggles.__name__}:main"
        connector = self.processes[CONNECTOR].part
        command = (*OURS, struggles, connector.command[-1])
        self.processes[CONNECTOR].part = replace(connector, command=command)
        self._settings("broker", limits=UNLIMITED)
        if self.cluster is not None:
            self._settings("broker", streams_replicas=len(self.cluster.nodes))
            for name in self.processes.keys() - self.cluster.nodes:
                self._bus(name, self.cluster.servers)
        if database is not None:
            self._settings("ledger", **tomllib.loads(f"database = {database.in_settings}"))
        self.brokers = ["broker", *(f"broker-{n}" for n in range(2, brokers + 1))]
        self.connectors = [CONNECTOR, *(f"{CONNECTOR}-{n}" for n in range(2, connectors + 1))]
        self.policies = ["policy", *(f"policy-{n}" for n in range(2, policies + 1))]
        for names in (self.brokers, self.policies, self.connectors):
            for name in names[1:]:
                self._add(names[0], name)

    def _settings(self, name: str, **changes: Any) -> None:
        """Changes what a process is told by its configuration."""
        config = Path(self.processes[name].part.command[-1])
        settings = tomllib.loads(config.read_text()) | changes
        config.write_text(toml.render(settings, f"Configuration of {name}, for a test."))

    def _bus(self, name: str, servers: Sequence[str]) -> None:
        """Has a process reach the bus there."""
        config = Path(self.processes[name].part.command[-1])
        bus: dict[str, Any] = tomllib.loads(config.read_text())["bus"]
        self._settings(name, bus={**bus, "servers": list(servers)})

    def _add(self, like: str, name: str) -> None:
        """Another process with the same identity and keys, on a port of its own."""
        first = self.processes[like].part
        config = Path(first.command[-1])
        settings: dict[str, Any] = tomllib.loads(config.read_text())
        port = free_port()
        settings["listen"]["address"] = address(port)
        settings.pop("authzen", None)
        own = config.with_name(f"{name}.toml")
        own.write_text(toml.render(settings, f"Like {like}."))
        assert isinstance(first.door, GrpcDoor)
        part = Part(
            name=name,
            command=(*first.command[:-1], str(own)),
            port=port,
            door=replace(first.door, port=port),
            log=self.installation.layout.log(name),
        )
        self.installation.add(ProcessUnderTest(part))

    def _link(self, stack: contextlib.ExitStack, name: str) -> Link:
        """Has a process reach the bus over a link of its own."""
        targets = [self.installation.ports.nats]
        link = wired(stack, targets) if self._with_wires else stack.enter_context(Link(targets))
        self._bus(name, [f"tls://{address(link.port)}"])
        return link

    def __enter__(self) -> Self:
        """Starts it."""
        with contextlib.ExitStack() as stack:
            self._door = stack.enter_context(Link([self._port(name) for name in self.brokers]))
            if self._with_links or self._with_wires:
                on_the_bus = [name for name in self.processes if name != "nats"]
                self.links = {name: self._link(stack, name) for name in on_the_bus}
            if self.cluster is not None:
                self.cluster.link(stack)
            stack.enter_context(self.installation)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves no process behind."""
        self._stack.close()

    def _port(self, name: str) -> int:
        return self.processes[name].part.port

    def heal(self) -> None:
        """Everything runs again, and is connected."""
        between = self.cluster.links(*self.cluster.nodes) if self.cluster is not None else ()
        for link in (*self.links.values(), *between):
            link.mend()
        for process in self.processes.values():
            if process.has_ended:
                process.kill()
            process.thaw()
        self.installation.start()

    @contextlib.contextmanager
    def load(
        self,
        seed: int,
        *,
        expires_after_s: float,
        settle_s: float,
        one_door: bool = False,
        workers: int = WORKERS,
    ) -> Iterator[Load]:
        """Clients at work; at the end they wait until each of their searches has ended.

        With `one_door` they reach whichever broker runs by one address, and not each by its own.
        """
        number = len(self._load_logs)
        layout = self.installation.layout
        logs = [self._folder / f"{agency}-{number}.jsonl" for agency in OFFICERS]
        brokers = [address(self._port(name)) for name in self.brokers]
        if one_door:
            brokers = [address(self._door.port)]
        plan = Plan(
            seed=seed,
            expires_after_s=expires_after_s,
            settle_s=settle_s,
            clients=[
                ClientPlan(str(layout.client(agency)), agency, officer, brokers, workers, str(log))
                for (agency, officer), log in zip(OFFICERS.items(), logs, strict=True)
            ],
        )
        self._load_logs += logs
        path = plan.save(self._folder / f"plan-{number}.json")
        with self._clients(path, settle_s) as process:
            yield Load(process, logs)

    @contextlib.contextmanager
    def _clients(self, plan: Path, settle_s: float) -> Iterator[ForkedProcess]:
        program, said = f"{exchange_clients.__name__}:main", self._folder / "clients.log"
        out_of, into = os.pipe()
        with contextlib.ExitStack() as stack:
            end = stack.enter_context(os.fdopen(into, "wb"))
            log = stack.enter_context(said.open("ab"))
            process = fork(program, [plan], stdin=out_of, stdout=log, stderr=log)
            os.close(out_of)
            stack.callback(process.kill)
            yield process
            # Its input ends, and with that the load.
            end.close()
            assert process.wait(settle_s + WAIT_S_MAX) == 0, said.read_text()

    def history(self) -> History:
        """All accounts. Verifies the whole ledger."""
        lines = _lines(self._load_logs)
        kinds = {kind: [one for one in lines if one["kind"] == kind] for kind in _KINDS}
        for one in lines:
            del one["kind"]
        return History(
            leaves=self._leaves(),
            told=[_told(one) for one in kinds["Told"]],
            tried=[Tried(**one) for one in kinds["Tried"]],
            failed=[Failed(**one) for one in kinds["Failed"]],
            runs=[run for name in self.connectors for run in self._runs(name)],
            begun=self._begun(),
        )

    def _leaves(self) -> list[bytes]:
        layout, folder = self.installation.layout, self._folder / "export"
        words = ["ledger", "export", str(folder), "--config", str(layout.oversight_client)]
        assert exit_code(words) == 0
        key = layout.keys.ledger_vkey.read_text(encoding="ascii").strip()
        policy = Policy.parse(f"log {key}\nquorum none\n".encode())
        return list(entries_in_folder(folder, verify_folder(folder, policy)))

    def _state(self, connector: str) -> Path:
        config = Path(self.processes[connector].part.command[-1])
        state = str(tomllib.loads(config.read_text())["state"])
        return (config.parent / state).resolve()

    def _runs(self, connector: str) -> Iterator[Run]:
        """Each connector's record; connectors that share one are counted once."""
        first = [name for name in self.connectors if self._state(name) == self._state(connector)]
        if first[0] != connector:
            return
        database = sqlite3.connect(self._state(connector) / "runs.sqlite")
        asked = "SELECT search_id, request_sha256, signed_answer, answered_at FROM runs"
        with contextlib.closing(database):
            for search_id, request_sha256, signed, at in database.execute(asked):
                answer = SignedAnswer.FromString(signed).answer
                digests = (request_sha256.hex(), sha256(answer).hexdigest())
                yield Run(connector, search_id, *digests, at)

    def _begun(self) -> list[Begun]:
        states = {self._state(name) for name in self.connectors}
        files = [state / connector_that_struggles.ASKED_FILE for state in sorted(states)]
        return [Begun(one["search_id"], one["at"]) for one in _lines(files)]


_KINDS: Final = ("Told", "Tried", "Failed")


def _lines(files: Sequence[Path]) -> list[dict[str, Any]]:
    texts = [file.read_text() for file in files if file.exists()]
    # Who writes may be at it: the last line counts once it has its end.
    whole = [text[: text.rfind("\n") + 1] for text in texts]
    return [json.loads(line) for text in whole for line in text.splitlines()]


def _told(line: dict[str, Any]) -> Told:
    proved = {key: Proved(**line[key]) if line[key] else None for key in ("decided", "end")}
    return Told(**{**line, **proved})
