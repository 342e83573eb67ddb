"""The witnesses of a configuration: asked what they know before anything is signed, fed from then on."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from ledger.archive import Archive
from ledger.config import WitnessingSettings
from ledger.cosigned import CosignedFile
from ledger.heard import Contradiction, Heard, WitnessesAtStart
from ledger.keys import LogKeys
from ledger.last_signed import SigningRefused
from ledger.log import OpenLog
from ledger.tree import Published
from ledger.witness_client import Alarm, Cosigned, Fault, WitnessClient, endpoints, shown
from ledger.witness_follower import Follower, LogView, SecondHistory
from ledger.witnessing import Times, Witnessing, feeding
from shared.errors import ServiceError
from shared.settings import SettingsError
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.policy import Policy

CONNECTIONS_MAX: Final = 64
"""A policy with more witnesses asks them in turns."""


@dataclass(frozen=True)
class Witnesses:
    """The witnesses that this ledger is configured with."""

    policy: Policy
    settings: WitnessingSettings
    clients: Sequence[WitnessClient]
    logs: Policy
    """Knows the log's own keys only."""

    @property
    def at_start(self) -> WitnessesAtStart:
        """What has to be heard before the first signature."""
        return WitnessesAtStart(self.heard, always=self.settings.heard_at_start == "always")

    async def heard(self, published: Published, archive: Archive) -> Heard:
        """Ask each witness to cosign the stored checkpoint, from whatever it has cosigned last.

        Who has cosigned more, or another tree, cannot; the answer of one that does says that all it knows
        of is here. What is kept of their lines speaks besides, but for none that is silent.
        """
        view = _view(self.logs, lambda: published, _never, archive)
        followers = [Follower(client, view) for client in self.clients]
        answers = await asyncio.gather(*(_answer(one, published) for one in followers))
        found = [one for one in (*answers, await self._kept(published, archive)) if one is not None]
        contradictions = [one for one in found if isinstance(one, Contradiction)]
        spoke = {name for one in found if isinstance(one, Cosigned) for name in one.by}
        said = {
            name: one.detail for one in found if isinstance(one, _Silence) for name in one.names
        }
        silent = {
            name: said.get(name, "it has no URL" if one.url is None else "no valid line of its key")
            for name, one in self.policy.witnesses.items()
            if name not in spoke
        }
        enough = self.policy.satisfied_by(()) or not self.policy.satisfied_by(silent)
        return Heard(tuple(contradictions), {shown(k): v for k, v in silent.items()}, enough)

    async def _kept(self, published: Published, archive: Archive) -> Contradiction | None:
        try:
            kept = await asyncio.to_thread(self._store.load, self.policy)
            if kept is None or not kept.cosigned:
                return None
            ahead = kept.size > published.size
            if not ahead and kept.checkpoint.root == await archive.root(kept.size):
                return None
        except (TlogError, OSError, ServiceError):
            return None
        names = ", ".join(map(shown, kept.cosigned))
        detail = f"{self._store.path} keeps its line on {kept.size} entries"
        return Contradiction(names, ahead, detail, kept.note)

    @property
    def _store(self) -> CosignedFile:
        return CosignedFile(self.settings.cosigned_checkpoint)

    @contextlib.asynccontextmanager
    async def fed(
        self, log: OpenLog, on_health: Callable[[str, bool], None]
    ) -> AsyncIterator[Witnessing]:
        """Feed them from an open log while the context lasts.

        `on_health` is told of "witnesses" as a whole, and of "witness/" with each name. Proof of a second
        history stops the signing.
        """

        view = _view(self.logs, lambda: log.sequencer.published, log.sequencer.grown, log.archive)
        settings = self.settings
        times = Times(
            settings.interval_s,
            settings.heartbeat_s,
            settings.alarm_after_s,
            settings.unhealthy_after_s,
        )
        followers = [Follower(client, view) for client in self.clients]
        witnessing = Witnessing(self.policy, followers, self._store, view, times)
        witnessing.on_health = on_health
        witnessing.on_second_history = lambda proof: log.sequencer.refuse_to_sign(_refusal(proof))
        async with feeding(witnessing):
            yield witnessing


@contextlib.asynccontextmanager
async def configured(
    settings: WitnessingSettings | None, keys: LogKeys
) -> AsyncIterator[Witnesses | None]:
    """Read the policy; None without one. Raises SettingsError."""
    if settings is None:
        yield None
        return
    policy = load_policy(settings, keys.verifiers)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=trusted(settings))
    async with aiohttp.ClientSession(
        connector=connector,
        # Unpacking would undo the bound on an answer.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "countersign-ledger"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        clients = [WitnessClient(session, one, settings.timeout_s) for one in endpoints(policy)]
        yield Witnesses(policy, settings, clients, Policy.of_logs(keys.verifiers))


@dataclass(frozen=True)
class _Silence:
    """An endpoint of which nothing was learnt."""

    names: Sequence[str]
    detail: str


async def _answer(follower: Follower, published: Published) -> Cosigned | Contradiction | _Silence:
    try:
        outcome = await follower.compare(published)
        if isinstance(outcome, Cosigned):
            return outcome
        names = [one.name for one in follower.client.endpoint.witnesses]
        if not isinstance(outcome, Fault):
            return _Silence(names, "it names one size after the other")
        if not outcome.alarm.final:
            return _Silence(names, outcome.detail)
        proof = await follower.proof(published.checkpoint.origin)
    except ServiceError as error:
        # Our own store does not give the proof: that is for others to say, and no word of a witness.
        return _Silence([], error.message)
    return Contradiction(
        follower.name,
        ahead=outcome.alarm is Alarm.AHEAD,
        detail=outcome.detail,
        note=None if proof is None else proof.note,
    )


def _view(
    logs: Policy,
    published: Callable[[], Published],
    grown: Callable[[int], Awaitable[Published]],
    archive: Archive,
) -> LogView:
    async def prove(first: int, second: int) -> Sequence[bytes]:
        _, hashes = await archive.consistency_proof(first, second)
        return hashes

    return LogView(published, grown, prove, archive.root, logs)


async def _never(_: int) -> Published:
    raise AssertionError("what is stored does not grow before it is opened")


def load_policy(settings: WitnessingSettings, keys: Sequence[LogVerifier]) -> Policy:
    """Read the policy and see that it is one of this log. Raises SettingsError."""
    try:
        policy = Policy.parse(settings.policy.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {settings.policy}: {error.strerror}") from error
    except TlogError as error:
        raise SettingsError(f"{settings.policy}: {error}") from error
    if not policy.logs:
        return policy.with_logs(keys)
    if not {one.verifier.vkey for one in policy.logs} & {one.vkey for one in keys}:
        raise SettingsError(f"{settings.policy}: no log line has a key of this ledger")
    return policy


def trusted(settings: WitnessingSettings) -> ssl.SSLContext:
    """What witnesses' certificates are checked against. Raises SettingsError."""
    try:
        return ssl.create_default_context(
            cafile=None if settings.authority is None else str(settings.authority)
        )
    except OSError as error:
        raise SettingsError(f"cannot read {settings.authority}: {error}") from error


def _refusal(proof: SecondHistory) -> SigningRefused:
    return SigningRefused(
        "SECOND_HISTORY_SIGNED",
        f"{proof.witness} shows a checkpoint of {proof.size} entries that our key has signed and that does "
        "not go with this database: another copy of the log was written to, or the key is in other hands",
    )
