"""A complete installation of real processes, for tests of the whole.

    async def test_it(installation):
        settings = ClientSettings.load(installation.client("CA0194200"))

The fixture `installation` is started once for all tests that use it: do not leave a process dead. A file that
takes it is named in `AGAINST_THE_INSTALLATION` of conftest.py, so that it shares it with the others.
A test that needs one to itself makes it with `InstallationUnderTest(folder)` in a `with` statement.
"""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import getpid
from pathlib import Path
from typing import IO, Final, Self

import pytest

from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.directives import publish_directives
from countersign.installation.layout import Layout
from countersign.installation.parts import Part, environment, stages
from countersign.installation.ports import Ports, address
from countersign.installation.prepare import (
    PROBER,
    Installation,
    ensure_documents,
    prepare,
    systems_run_here,
)
from support.forked import ForkedProcess, fork

LAPD: Final = "CA0194200"
LASD: Final = "CA0190000"
BURBANK: Final = "CA0191200"

READY_TIMEOUT_S: Final = 200.0
STOP_TIMEOUT_S: Final = 60.0

OURS: Final = (sys.executable, "-P", "-m")
"""How the command of a process begins that is one of our programs, of this release."""


class ProcessUnderTest:
    """One process of the installation."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def has_ended(self) -> bool:
        """True when it ended by itself, as one does that doubts a write, to be started again."""
        return self._process is not None and self._process.poll() is not None

    @property
    def log(self) -> str:
        """What it has written since the installation was made."""
        return self.part.log.read_text(errors="replace")

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on, as if no time had passed; does nothing when it runs, or does not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def launch(self) -> None:
        """Starts it and does not wait."""
        assert self._process is None, f"{self.part.name} runs already"
        with self.part.log.open("ab") as log:
            self._process = self._launched(log)

    def _launched(self, log: IO[bytes]) -> subprocess.Popen[bytes] | ForkedProcess:
        if self.part.command[: len(OURS)] == OURS:
            program, *words = self.part.command[len(OURS) :]
            return fork(program, words, stdout=log, stderr=log, environment=environment())
        # The leash is to the thread, so that a start from a passing thread would be a short one.
        assert threading.current_thread() is threading.main_thread()
        return subprocess.Popen(
            self.part.leashed(getpid()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Waits until its door says that it serves."""
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.part.door.answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.part.name} is not ready (exit {code}):\n{self.log}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)

    def start(self) -> None:
        """Starts it again, on the same port and data, and waits until it is ready."""
        self.launch()
        self.wait_until_ready()

    def kill(self) -> None:
        """SIGKILL: ends it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """SIGTERM: ends it in order. Gives its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        return code


def _embeddings(layout: Layout) -> tuple[Path, Path] | None:
    """The connector's folder of them, and the one that all workers of a run of the tests share."""
    runs = [one for one in layout.root.parents if re.fullmatch(r"pytest-\d+", one.name)]
    return (layout.connector_state("lacris") / "embeddings", runs[0] / "kept") if runs else None


def bring_embeddings(layout: Layout) -> None:
    """What another connector computed of the gallery, in five seconds of a processor."""
    folders = _embeddings(layout)
    if folders is None or folders[0].exists():
        return
    theirs, kept = folders
    for file in kept.glob("*.bin"):
        theirs.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(file, theirs)


def keep_embeddings(layout: Layout) -> None:
    """For the next, on whichever worker: a cache, in which a file is whole or is not there."""
    folders = _embeddings(layout)
    if folders is None:
        return
    theirs, kept = folders
    kept.mkdir(mode=0o700, exist_ok=True)
    for file in theirs.glob("*.bin"):
        if not (kept / file.name).exists():
            new = shutil.copy(file, kept / f"{file.name}.{getpid()}")
            Path(new).replace(kept / file.name)


class InstallationUnderTest:
    """All processes, on free ports, in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        witness: bool = False,
        on_record: bool = False,
        trust_domain: str = TRUST_DOMAIN,
        ports: Ports | None = None,
    ) -> None:
        """`on_record` for directives that are taken from the ledger: publishing them takes seconds."""
        layout = Layout(folder)
        registry = ensure_documents(layout)
        ports = ports or Ports.free(systems_run_here(registry), witness=witness)
        self.prepared: Installation = prepare(
            layout, registry, ports, on_record=on_record, trust_domain=trust_domain
        )
        self.layout = layout
        self.ports = ports
        self._stages = [
            [ProcessUnderTest(part) for part in stage] for stage in stages(self.prepared)
        ]
        self.processes: dict[str, ProcessUnderTest] = {
            process.part.name: process for stage in self._stages for process in stage
        }
        """By name: nats, ledger, policy, broker, connector-lacris."""

    def add(self, process: ProcessUnderTest) -> None:
        """One more, started last."""
        self._stages[-1].append(process)
        self.processes[process.part.name] = process

    def client(self, ori: str) -> Path:
        """Configuration file of an agency system."""
        return self.layout.client(ori)

    def start(self) -> None:
        """Starts what does not run, in order, and waits until all is ready."""
        bring_embeddings(self.layout)
        for stage in self._stages:
            stopped = [process for process in stage if process.pid is None]
            for process in stopped:
                process.launch()
            for process in stopped:
                process.wait_until_ready()
            if self.prepared.on_record and any(one.part.name == "policy" for one in stopped):
                self._publish()
        keep_embeddings(self.layout)

    def _publish(self) -> None:
        """As `countersign up` does; on a thread, for whoever has an event loop running."""
        published = publish_directives(
            self.layout.directives,
            address(self.ports.policy),
            self.layout.tls(PROBER),
            lambda _: None,
        )
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, published).result()

    def leave_out(self, name: str) -> None:
        """Has it run without this process."""
        del self.processes[name]
        self._stages = [
            [process for process in stage if process.part.name != name] for stage in self._stages
        ]

    def put_in_place_of(self, name: str, others: Sequence[ProcessUnderTest]) -> None:
        """Has it run with these instead, started when that one would be."""
        instead = {one.part.name: one for one in others}
        kept = [(key, {key: one}) for key, one in self.processes.items()]
        self.processes = {
            key: one
            for was, those in kept
            for key, one in (instead if was == name else those).items()
        }
        self._stages = [
            [
                other
                for process in stage
                for other in (others if process.part.name == name else [process])
            ]
            for stage in self._stages
        ]

    def kill(self) -> None:
        """Kills everything at once."""
        for process in reversed(self.processes.values()):
            process.kill()

    def __enter__(self) -> Self:
        """Starts it."""
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves no process behind."""
        self.kill()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstallationUnderTest]:
    """A complete installation, started once for all tests."""
    with InstallationUnderTest(tmp_path_factory.mktemp("installation") / "data") as running:
        yield running
