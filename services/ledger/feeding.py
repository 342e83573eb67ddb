"""The witnesses of a configuration: asked for their sizes before the log is opened, fed while it runs."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from ledger.config import WitnessingSettings
from ledger.cosigned import CosignedFile
from ledger.keys import LogKeys
from ledger.last_signed import SigningRefused
from ledger.log import OpenLog
from ledger.witness_client import WitnessClient, ask_sizes, endpoints, shown
from ledger.witness_follower import Follower, LogView, SecondHistory
from ledger.witnessing import Times, Witnessing, feeding
from shared.settings import SettingsError
from tlog.checkpoint import Checkpoint
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT
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
    empty_note: str
    """The log's signed checkpoint of the empty tree."""

    async def sizes(self) -> dict[str, int]:
        """Give the size that each witness cosigned last, by its name; see `ask_sizes`.

        What is kept here of witnesses' lines speaks for those that do not answer.
        """
        said = await ask_sizes(self.clients, self.empty_note)
        with contextlib.suppress(TlogError, OSError):
            kept = self._store.load(self.policy)
            if kept is not None:
                for name in kept.cosigned:
                    said[shown(name)] = max(kept.size, said.get(shown(name), 0))
        return said

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

        async def prove(first: int, second: int) -> Sequence[bytes]:
            _, hashes = await log.archive.consistency_proof(first, second)
            return hashes

        view = LogView(
            published=lambda: log.sequencer.published,
            grown=log.sequencer.grown,
            prove=prove,
            root=log.archive.root,
            logs=self.logs,
        )
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
    empty_note = keys.sign(Checkpoint(keys.origin, 0, EMPTY_ROOT))
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=_trusted(settings))
    async with aiohttp.ClientSession(
        connector=connector,
        # Unpacking would undo the bound on an answer.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "countersign-ledger"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        clients = [WitnessClient(session, one, settings.timeout_s) for one in endpoints(policy)]
        yield Witnesses(policy, settings, clients, Policy.of_logs(keys.verifiers), empty_note)


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


def _trusted(settings: WitnessingSettings) -> ssl.SSLContext:
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
