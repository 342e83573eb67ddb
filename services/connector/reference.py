"""The reference system: the matcher of `matcher.py` in worker processes that may die.

A search holds one worker for itself. A worker that dies, stalls or says something unexpected is
killed and replaced before the next search; the connector stays up whatever a picture does.

| what happens                                    | what the search gets          |
|-------------------------------------------------|-------------------------------|
| time or CPU runs out while decoding             | ProbeRefused(IMAGE_TOO_LARGE) |
| time or CPU runs out while comparing            | SystemFailed                  |
| the worker dies of anything else, or babbles    | SystemFailed                  |
"""

import asyncio
import hashlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from connector.system import Findings, ProbeRefused, SystemFailed, SystemUnusable
from connector.worker_messages import (
    LENGTH,
    PROBE_HEADER,
    REPLY_BYTES_MAX,
    Bounds,
    Decoded,
    Failed,
    Found,
    Ready,
    Refused,
    Reply,
    Unusable,
    WorkerSettings,
    frame,
    read_reply,
)
from shared.children import Child
from shared.images import FILE_BYTES_MAX

ALGORITHM = "yunet-2023mar+sface-2021dec int8bq"
"""As `matcher.ALGORITHM`. Said again here, since importing the matcher would load OpenCV into the
connector's own process; a test keeps the two equal."""

START_S_MAX = 600.0
"""Longest start of a worker: ten thousand new pictures at 50 ms, with room."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceSettings:
    """How the reference system is run."""

    gallery: Path
    store: Path
    workers: int
    search_s_max: float
    eye_distance_px_min: float
    bounds: Bounds


class _WorkerGone(Exception):
    """The worker ended, stalled or broke the rules of its messages."""


class WorkerProcess:
    """One worker, from its start to its end."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.decoded = False
        """Whether the worker got as far as comparing in the present search."""

    @classmethod
    async def start(cls, settings: ReferenceSettings) -> tuple["WorkerProcess", Ready]:
        """Start a worker and wait until it can search; raises SystemUnusable."""
        # What a crashing library prints goes nowhere: it may hold parts of the picture.
        command = (sys.executable, "-I", "-m", "connector.worker")
        process = await Child.start(command, _environment())
        worker = cls(process)
        first = WorkerSettings(
            gallery=settings.gallery.absolute(),
            store=settings.store.absolute(),
            eye_distance_px_min=settings.eye_distance_px_min,
            bounds=settings.bounds,
        )
        try:
            async with asyncio.timeout(START_S_MAX):
                await worker._send(first.model_dump_json().encode())
                reply = await worker._receive()
            if isinstance(reply, Ready):
                return worker, reply
        except (_WorkerGone, TimeoutError) as error:
            await worker.end()
            raise SystemUnusable(
                f"the worker process did not start (exit code {process.returncode})"
            ) from error
        except BaseException:
            await worker.end()
            raise
        await worker.end()
        if isinstance(reply, Unusable):
            raise SystemUnusable(reply.message)
        raise SystemUnusable("the worker process did not say that it is ready")

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as is known."""
        return self._process.returncode is None

    async def search(self, probe: bytes, candidates_max: int) -> Reply:
        """Have one probe compared; raises _WorkerGone."""
        self.decoded = False
        await self._send(PROBE_HEADER.pack(candidates_max) + probe)
        reply = await self._receive()
        if isinstance(reply, Decoded):
            self.decoded = True
            reply = await self._receive()
        if isinstance(reply, Found):
            _check(reply.findings, probe, candidates_max)
        elif not isinstance(reply, Refused | Failed):
            raise _WorkerGone("the worker's reply is out of turn")
        return reply

    async def end(self) -> int | None:
        """Kill the process if it runs, and wait until it is gone; return how it ended."""
        return await self._process.end()

    async def _send(self, message: bytes) -> None:
        try:
            self._process.stdin.write(frame(message))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _WorkerGone("the worker closed its pipe") from error

    async def _receive(self) -> Reply:
        try:
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            if length > REPLY_BYTES_MAX:
                raise _WorkerGone("the worker's reply is longer than accepted")
            return read_reply(await self._process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise _WorkerGone("the worker closed its pipe") from error
        except ValueError as error:
            raise _WorkerGone("the worker's reply is not one") from error


class ReferenceSystem:
    """The reference matcher over one gallery, behind the `FaceSystem` protocol."""

    def __init__(self, settings: ReferenceSettings) -> None:
        self._settings = settings
        # Each place holds a worker, or None where one has to be started before use.
        self._idle: asyncio.Queue[WorkerProcess | None] = asyncio.Queue()
        self._workers: set[WorkerProcess] = set()
        self._closed = False

    @property
    def algorithm(self) -> str:
        """The matcher and its version."""
        return ALGORITHM

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run, for an operator and for tests."""
        return sorted(worker.pid for worker in self._workers)

    async def start(self) -> int:
        """Start all workers, the first alone so that it enrols for the others."""
        gallery_size = 0
        for _ in range(self._settings.workers):
            worker, ready = await self._start_worker()
            self._idle.put_nowait(worker)
            gallery_size = ready.gallery_size
        return gallery_size

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        """Compare in the next idle worker; raises ProbeRefused or SystemFailed."""
        if len(probe) > FILE_BYTES_MAX:
            raise ProbeRefused("IMAGE_TOO_LARGE")
        worker = await self._idle.get()
        sound = False
        try:
            if worker is None or not worker.alive:
                worker = await self._replace(worker)
            reply = await self._search_in(worker, probe, candidates_max)
            sound = True
        finally:
            # Also on cancellation: a worker in the middle of a search is of no use to the next.
            if worker is not None and not sound:
                await self._bury(worker)
            self._idle.put_nowait(worker if sound else None)
        if isinstance(reply, Found):
            return reply.findings
        if isinstance(reply, Refused):
            raise ProbeRefused(reply.reason)
        raise SystemFailed("the comparison failed")

    async def close(self) -> None:
        """End all workers."""
        self._closed = True
        for worker in list(self._workers):
            await self._bury(worker)

    async def _search_in(self, worker: WorkerProcess, probe: bytes, candidates_max: int) -> Reply:
        try:
            async with asyncio.timeout(self._settings.search_s_max):
                return await worker.search(probe, candidates_max)
        except TimeoutError:
            await self._bury(worker)
            if not worker.decoded:
                raise ProbeRefused("IMAGE_TOO_LARGE") from None
            raise SystemFailed("the comparison took too long") from None
        except _WorkerGone as error:
            ended = await self._bury(worker)
            if ended == -signal.SIGXCPU and not worker.decoded:
                raise ProbeRefused("IMAGE_TOO_LARGE") from None
            raise SystemFailed("the worker process ended during the search") from error

    async def _replace(self, worker: WorkerProcess | None) -> WorkerProcess:
        if worker is not None:
            await self._bury(worker)
        try:
            fresh, _ = await self._start_worker()
        except SystemUnusable as error:
            raise SystemFailed("no worker process could be started") from error
        return fresh

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        if self._closed:
            raise SystemUnusable("the system was closed")
        worker, ready = await WorkerProcess.start(self._settings)
        self._workers.add(worker)
        _log.info(
            "worker ready",
            extra={
                "fields": {
                    "pid": worker.pid,
                    "gallery_size": ready.gallery_size,
                    "unusable_pictures": ready.unusable,
                    "loaded_bytes": ready.loaded_bytes,
                }
            },
        )
        return worker, ready

    async def _bury(self, worker: WorkerProcess) -> int | None:
        ended = await worker.end()
        if worker in self._workers:
            self._workers.discard(worker)
            if not self._closed:
                _log.warning(
                    "worker ended", extra={"fields": {"pid": worker.pid, "exit_code": ended}}
                )
        return ended


def _check(findings: Findings, probe: bytes, candidates_max: int) -> None:
    """Raises _WorkerGone unless the findings can be of this probe."""
    if findings.probe_sha256 != hashlib.sha256(probe).digest():
        raise _WorkerGone("the worker's reply is about another probe")
    if len(findings.resemblances) > candidates_max:
        raise _WorkerGone("the worker's reply has more candidates than asked for")


def _environment() -> dict[str, str]:
    """What the worker needs of the environment, and none of the connector's secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    # A linear-algebra library with a thread for each core would take address space for each.
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
