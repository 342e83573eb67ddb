"""A feeder before a log that grows or forks at will, and witnesses that answer as they are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web

from ledger.cosigned import CosignedFile
from ledger.tree import Published
from ledger.witness_client import WitnessClient, endpoints
from ledger.witness_follower import Follower, LogView, SecondHistory
from ledger.witnessing import Times, Witnessing, feeding
from support.waiting import until
from support.witnesses import COSIGNER, LOG_SIGNER, GrowingLog
from tlog.cosignature import Cosigner
from tlog.policy import Policy
from tlog.tiles import TreeEdge
from tlog.witness_protocol import AddCheckpoint

QUICK = Times(interval_s=0.05, heartbeat_s=0.3, alarm_after_s=0.6, unhealthy_after_s=0.9)
PATIENT = Times(interval_s=0.05)
TIMEOUT_S = 5.0
"""For one request: long, because the machine of a test may be slow."""


class PublishedLog:
    """What a ledger publishes, without a ledger."""

    def __init__(self, size: int, log: GrowingLog | None = None) -> None:
        self.log = log or GrowingLog()
        self._grown = asyncio.Event()
        self.published = self._at(size)
        self.proofs: list[tuple[int, int]] = []

    def _at(self, size: int) -> Published:
        return Published(TreeEdge.empty(), self.log.checkpoint(size), self.log.note(size))

    def grow(self, size: int) -> None:
        """Publishes a larger tree."""
        self.published = self._at(size)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def _wait(self, size: int) -> Published:
        while self.published.size <= size:
            await self._grown.wait()
        return self.published

    async def _prove(self, first: int, second: int) -> Sequence[bytes]:
        self.proofs.append((first, second))
        return self.log.tree(second).consistency_proof(first)

    async def _root(self, size: int) -> bytes:
        return self.log.tree(size).root

    def view(self) -> LogView:
        """What a feeder sees."""
        return LogView(
            published=lambda: self.published,
            grown=self._wait,
            prove=self._prove,
            root=self._root,
            logs=Policy.of_logs([LOG_SIGNER.verifier]),
        )


class Feeder:
    """A feeder that runs, and what it told."""

    def __init__(self, witnessing: Witnessing) -> None:
        self.witnessing = witnessing
        self.health: dict[str, bool] = {}
        self.second_histories: list[SecondHistory] = []
        witnessing.on_health = self.health.__setitem__
        witnessing.on_second_history = self.second_histories.append

    def follower(self, name: str) -> Follower:
        """The follower of a witness."""
        return next(one for one in self.witnessing.followers if one.name == name)

    async def alarm(self, name: str, kind: str) -> str:
        """Waits for an alarm; gives its detail."""

        async def raised() -> str | None:
            one = self.follower(name)
            return one.detail if one.alarm is not None and str(one.alarm) == kind else None

        return await until(raised)

    async def cosigned(self, size: int) -> frozenset[str]:
        """Waits for a quorum on a size; gives who is in it."""
        note = await self.witnessing.wait_for(size, 60)
        assert note is not None, "no quorum"
        return frozenset(note.cosigned)


def policy_text(quorum: str, *witnesses: tuple[str, Cosigner, str]) -> str:
    """A policy of these witnesses, of which so many ("1", "all", …) are needed."""
    lines = [f"log {LOG_SIGNER.verifier.vkey}"]
    lines += [f"witness {name} {one.verifier.vkey} {url}" for name, one, url in witnesses]
    names = " ".join(name for name, _, _ in witnesses)
    return "\n".join([*lines, f"group those {quorum} {names}", "quorum those", ""])


@contextlib.asynccontextmanager
async def feeder(
    log: PublishedLog,
    policy: str,
    folder: Path,
    times: Times = PATIENT,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[Feeder]:
    """A feeder for this log and policy."""
    parsed = Policy.parse(policy)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        view = log.view()
        followers = [
            Follower(WitnessClient(session, one, timeout_s), view) for one in endpoints(parsed)
        ]
        store = CosignedFile(folder / "cosigned-checkpoint")
        one = Feeder(Witnessing(parsed, followers, store, view, times))
        async with feeding(one.witnessing):
            yield one


Script = Callable[[bytes], web.Response | bytes | None]


class ScriptedWitness:
    """Answers each add-checkpoint as it is told; None is no answer at all."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[bytes] = []
        self.newest: str | None = None
        self._end = asyncio.Event()

    async def _add(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        answer = self.script(body)
        if answer is None:
            await self._end.wait()
            return web.Response(status=503)
        return web.Response(body=answer) if isinstance(answer, bytes) else answer

    async def _newest(self, _: web.Request) -> web.Response:
        return web.Response(status=404) if self.newest is None else web.Response(text=self.newest)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listens; gives the URL."""
        application = web.Application()
        application.router.add_post("/add-checkpoint", self._add)
        application.router.add_get("/{origin}/checkpoint", self._newest)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            self._end.set()
            await runner.cleanup()


LATER = 2_000_000_000
"""When a scripted witness says that it cosigned, POSIX seconds."""


def cosign(body: bytes, cosigner: Cosigner = COSIGNER) -> bytes:
    """What a witness that checks nothing answers."""
    return cosigner.cosign(AddCheckpoint.parse(body).unverified_checkpoint, LATER).encode()


def old_of(body: bytes) -> int:
    """The size that a request starts from."""
    return AddCheckpoint.parse(body).old_size


def size_answer(size: int, kind: str = "text/x.tlog.size") -> web.Response:
    """A 409 that says of which size the witness's last checkpoint is."""
    return web.Response(status=409, body=f"{size}\n".encode(), headers={"Content-Type": kind})
