"""Runs what is measured, a NATS server, a ledger and perhaps a witness, and what disturbs it."""

import asyncio
import contextlib
import itertools
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from countersign.installation.layout import Layout
from countersign.installation.parts import Part, environment, stages
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database

START_TIMEOUT_S: Final = 60
CHECKPOINT_EVERY_S: Final = 0.1
_READERS: Final = Path(__file__).with_name("ledger_readers.py")


class Engine:
    """SQLite files in a folder, or databases of a PostgreSQL server of its own."""

    title = f"SQLite {sqlite3.sqlite_version}, synchronous=FULL"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    @staticmethod
    @contextlib.contextmanager
    def started(folder: Path, *, postgres: bool) -> Iterator["Engine"]:
        """One of them."""
        if not postgres:
            yield Engine(folder)
            return
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from support import postgres as support

        with support.running_server(("-c", "autovacuum=on")) as server:
            yield PostgresEngine(folder, server, support)

    def database(self) -> Database:
        """A new one without a log."""
        return SqliteDatabase(self.folder / f"bare-{next(self._numbers)}.sqlite")

    def use(self, layout: Layout) -> Callable[[], object]:
        """Have the ledger of an installation use it; give what checkpoints its database."""
        database = layout.ledger

        def checkpoint() -> None:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                # It locks the writer out, as expungement does: see `WAL_PAGES_MAX` of the storage.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        return checkpoint

    def processes(self) -> list[psutil.Process]:
        """What works for it beside the ledger."""
        return []


class PostgresEngine(Engine):
    """The server that the tests use, with its ordinary settings."""

    title = "PostgreSQL, fsync and synchronous_commit on, no standby"

    def __init__(self, folder: Path, server: Any, support: Any) -> None:
        super().__init__(folder)
        self._support = support
        self.server = server

    def database(self) -> Database:
        """A new one without a log."""
        name = f"bench_{next(self._numbers)}"
        self.server.make_database(name)
        made: Database = self._support.PostgresUnderTest(self.server, name, self.folder)
        return made

    def use(self, layout: Layout) -> Callable[[], object]:
        """Write it into the ledger's configuration."""
        database: Any = self.database()
        config = layout.config("ledger")
        text = config.read_text(encoding="utf-8")
        told = re.sub(r"(?m)^database = .*$", lambda _: f"database = {database.in_settings}", text)
        config.write_text(told, encoding="utf-8")

        def checkpoint() -> None:
            with self.server.session("postgres", "postgres") as admin:
                admin.execute("CHECKPOINT")

        return checkpoint

    def processes(self) -> list[psutil.Process]:
        """The server's."""
        assert self.server._process is not None
        main = psutil.Process(self.server._process.pid)
        return [main, *main.children(recursive=True)]


@dataclass(frozen=True)
class Running:
    """A ledger that serves."""

    layout: Layout
    ports: Ports
    engine: Engine
    processes: dict[str, psutil.Process]
    checkpoint: Callable[[], object]

    def cpu_s(self) -> dict[str, float]:
        """Processor time so far, by process."""
        ledger = self.processes["ledger"]
        spent = {name: _cpu_s(one) for name, one in self.processes.items()}
        spent["load"] = time.process_time()
        spent["index"] = sum(_cpu_s(one) for one in ledger.children(recursive=True))
        if database := self.engine.processes():
            spent["database"] = sum(_cpu_s(one) for one in database)
        return spent

    @contextlib.asynccontextmanager
    async def disturbed(self, what: str) -> AsyncIterator[Callable[[], str]]:
        """Have something go on beside; gives what says at the end how much of it was done."""
        async with contextlib.AsyncExitStack() as stack:
            said: list[Callable[[], str]] = []
            if what in ("database checkpoints", "all of these"):
                said.append(await stack.enter_async_context(self._checkpoints()))
            if what in ("readers", "all of these"):
                said.append(await stack.enter_async_context(self._readers()))
            yield lambda: ", ".join(one() for one in said)

    @contextlib.asynccontextmanager
    async def _checkpoints(self) -> AsyncIterator[Callable[[], str]]:
        done = 0

        async def again() -> None:
            nonlocal done
            while True:
                await asyncio.to_thread(self.checkpoint)
                done += 1
                await asyncio.sleep(CHECKPOINT_EVERY_S)

        task = asyncio.create_task(again())
        try:
            yield lambda: f"{done} checkpoints"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _readers(self) -> AsyncIterator[Callable[[], str]]:
        command = [sys.executable, str(_READERS), str(self.layout.oversight_client)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()  # it has begun
        done = ""
        try:
            yield lambda: done
        finally:
            process.stdin.close()
            done = (await process.stdout.readline()).decode().strip()
            await process.wait()


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


@contextlib.contextmanager
def running(folder: Path, engine: Engine, *, witness: bool = False) -> Iterator[Running]:
    """A NATS server and a ledger on free ports, and a witness if wanted."""
    folder.mkdir()
    layout = Layout(folder / "data")
    registry = ensure_documents(layout)
    ports = Ports.free(systems_run_here(registry), witness=witness)
    installation = prepare(layout, registry, ports)
    checkpoint = engine.use(layout)
    parts = {part.name: part for stage in stages(installation) for part in stage}
    names = ["nats", *(["witness"] if witness else []), "ledger"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            started.append(_start(parts[name]))
        processes = {
            name: psutil.Process(one.pid) for name, one in zip(names, started, strict=True)
        }
        yield Running(layout, ports, engine, processes, checkpoint)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def _start(part: Part) -> subprocess.Popen[bytes]:
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
