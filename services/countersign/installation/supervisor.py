"""Runs the processes of an installation: starts them in order, watches them, stops them in reverse.

Invariants:
- When one process ends by itself, all are stopped: a part that is quietly missing would look like a
  fault of the others.
- No process outlives the supervisor, even when that is killed (see `leash`).
"""

import asyncio
import contextlib
import fcntl
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

from countersign.installation.directives import publish_directives
from countersign.installation.files import write_public
from countersign.installation.layout import Layout
from countersign.installation.parts import Part, environment, stages
from countersign.installation.ports import address
from countersign.installation.prepare import PROBER, Installation
from shared.errors import ServiceError

READY_TIMEOUT_S: Final = 90.0
"""A start on a busy machine, with a ledger that replays its log and a gallery to be read."""
READY_POLL_S: Final = 0.1
STOP_GRACE_S: Final = 15.0
"""Longer than a service lets its calls finish; past it the process is killed."""
LOG_TAIL_LINES: Final = 12


class PartFailed(Exception):
    """A process ended by itself, or did not become ready. The message says which, and where its log is."""

    def __init__(self, part: Part, what: str) -> None:
        super().__init__(f"{part.name} {what}; its log is {part.log}")
        self.part = part

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.part.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


class AlreadyRunning(Exception):
    """Another `countersign up` runs in the same data directory."""


class Supervisor:
    """The processes of one installation while they run."""

    def __init__(self, installation: Installation, report: Callable[[Part, str], None]) -> None:
        self._installation = installation
        self._report = report
        self._running: list[tuple[Part, Process, asyncio.Task[int]]] = []

    async def start(self) -> None:
        """Starts every process and returns when all are ready. Raises PartFailed."""
        for stage in stages(self._installation):
            for part in stage:
                await self._launch(part)
            await _all(self._ready(part) for part in stage)
            if any(part.name == "ledger" for part in stage):
                # From here on a missing database is a fault, and not a ledger to be begun.
                write_public(self._installation.layout.ledger_begun, b"")
            if any(part.name == "witness" for part in stage):
                write_public(self._installation.layout.witness_begun, b"")
            for policy in (part for part in stage if part.name == "policy"):
                await self._publish(policy)

    async def _publish(self, policy: Part) -> None:
        """Put on record what is new in the folder of directives; before the broker asks what they say."""
        if not self._installation.on_record:
            return
        layout = self._installation.layout
        try:
            await publish_directives(
                layout.directives,
                address(policy.port),
                layout.tls(PROBER),
                lambda what: self._report(policy, what),
            )
        except ServiceError as error:
            raise PartFailed(policy, f"does not take the directives in: {error}") from error

    async def first_death(self) -> PartFailed:
        """Waits until a process ends by itself, and says which."""
        ends = {task: part for part, _, task in self._running}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        task = next(iter(done))
        return PartFailed(ends[task], _ending(task.result()))

    async def stop(self) -> None:
        """Stops every process, in the reverse of the order of their start."""
        while self._running:
            part, process, ended = self._running.pop()
            self._report(part, "stopping")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(ended), STOP_GRACE_S)
            except TimeoutError:
                self._report(part, "did not stop in time and is killed")
            # The group, so that nothing that it started is left behind either.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await ended

    async def _launch(self, part: Part) -> None:
        self._report(part, "starting")
        if part.log.exists():
            part.log.replace(part.log.with_suffix(".log.1"))
        with part.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *part.leashed(os.getpid()),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                # A group of its own, so that Ctrl-C in a terminal reaches the supervisor only.
                start_new_session=True,
            )
        self._running.append((part, process, asyncio.create_task(process.wait())))

    async def _ready(self, part: Part) -> None:
        ended = next(task for running, _, task in self._running if running is part)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await asyncio.to_thread(part.door.answers):
                    if ended.done():
                        raise PartFailed(part, _ending(ended.result()))
                    await asyncio.wait({ended}, timeout=READY_POLL_S)
        except TimeoutError:
            raise PartFailed(part, f"was not ready within {READY_TIMEOUT_S:.0f} s") from None
        self._report(part, "ready")


@contextlib.asynccontextmanager
async def running(
    installation: Installation, report: Callable[[Part, str], None]
) -> AsyncIterator[Supervisor]:
    """All processes, ready; stopped at the end. Raises PartFailed.

    Whoever shares the data directory with others holds `alone` meanwhile, from before it is prepared.
    """
    supervisor = Supervisor(installation, report)
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keeps others out of the data directory, which is made when missing. Raises AlreadyRunning.

    It must be held before anything is written there: what is running reads those files.
    """
    lock = layout.lock
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunning(
                f"another countersign up runs in {lock.parent}; stop it, or name another directory"
            ) from None
        yield


async def _all(waits: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Waits for all; the first failure ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for wait in waits:
                group.create_task(wait)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended by itself with exit code {code}"
