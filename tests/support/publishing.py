"""Policy services that follow a real ledger over a real bus.

async def test_it(scene):
    async with scene.policy() as policy, scene.client(policy) as client: ...
"""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from countersign.client.documents import DirectiveClient
from countersign.installation.ports import address
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import DecisionOutcome, Receipt
from directive.holdings import Held
from ledger.__main__ import running as running_ledger
from ledger.config import LedgerSettings
from ledger.sqlite_storage import SqliteDatabase
from policy.__main__ import RunningPolicy, following_of, running
from policy.config import PolicySettings
from policy.deciding import Deciding
from policy.recording import Recording
from shared.bus import connected
from shared.errors import Unavailable
from shared.settings import ListenSettings
from support.directives import DIRECTIVES, LAPD, TRAINED, ordinary
from support.documents import KNOWN, NAME, handed_in, held_of, published
from support.ledgers import SIGNER, write_settings
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.registrars import REGISTRARS
from support.registrations import demonstration, signer
from support.waiting import until
from tlog.proof import verify_receipt

TIMEOUT_S = 60.0
ALL = (NAME, "lasd-lacris-operator", "us-ca-no-restriction")
"""What permits an ordinary search."""
OTHERS = ALL[1:]


class LedgerOfAScene:
    """The ledger in the test's own process: starting another takes two seconds of processor time."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._running = contextlib.AsyncExitStack()

    @property
    def database(self) -> SqliteDatabase:
        """The file it writes."""
        return SqliteDatabase(self._config.with_name("ledger.sqlite"))

    async def start(self) -> None:
        """Starts it on what it has written."""
        await self._running.enter_async_context(running_ledger(LedgerSettings.load(self._config)))

    async def stop(self) -> None:
        """Has it let go of everything."""
        await self._running.aclose()


@dataclass
class Scene:
    """A bus, a ledger, and policy services that follow it."""

    nats: NatsUnderTest
    ledger: LedgerOfAScene
    folder: Path
    registry: Path | None = DIRECTIVES / "demo-registry.toml"
    """None for a registry that owners publish."""

    def settings(self) -> PolicySettings:
        bus = self.nats.bus_settings("service", "policy")
        tls = self.nats.certificates.tls("service", "policy", listens=True)
        return PolicySettings(
            trust_domain=TRUST_DOMAIN,
            listen=ListenSettings(address="127.0.0.1:0", tls=tls),
            bus=bus.model_copy(update={"tls": tls}),
            registry=self.registry,
            vocabulary=DIRECTIVES,
            trust_roots=self.folder / "trust-roots.json",
        )

    @contextlib.asynccontextmanager
    async def policy(self) -> AsyncIterator[RunningPolicy]:
        async with running(self.settings()) as policy:
            yield policy

    @contextlib.asynccontextmanager
    async def client(
        self, policy: RunningPolicy, kind: Any = "agency", name: str = LAPD
    ) -> AsyncIterator[DirectiveClient]:
        tls = self.nats.certificates.tls(kind, name)
        async with DirectiveClient.connect(address(policy.server.port), tls) as client:
            yield client

    @contextlib.asynccontextmanager
    async def deciding_alone(self) -> AsyncIterator[Deciding]:
        """What decides in a policy service, caught up once and then only when it is told to."""
        settings = self.settings()
        async with connected(settings.bus, "policy") as bus:
            following = following_of(settings, bus)
            await following.catch_up()
            yield Deciding(following.current, following.catch_up)

    def question(self, documents_index: int | None = None) -> pb.EvaluateRequest:
        """What is permitted by the shipped directives."""
        request = pb.EvaluateRequest(
            facts=ordinary(), officer=TRAINED, documents_index=documents_index
        )
        request.at.FromDatetime(datetime.now(UTC))
        return request

    async def evaluated(self) -> pb.EvaluateResponse:
        request = self.question()
        async with connected(self.nats.bus_settings("service", "broker"), "broker") as bus:
            batch = pb.EvaluateBatchRequest(requests=[request])
            heard = await bus.request("policy.evaluate", batch, pb.EvaluateBatchResponse, TIMEOUT_S)
        return heard.responses[0]

    def documents(self) -> list[Entry]:
        """What is on record, as the database has it."""
        reading = self.ledger.database.open_for_reading()
        try:
            entries = [Entry.FromString(leaf) for leaf in reading.leaves(0, 1000)]
        finally:
            reading.close()
        return [entry for entry in entries if entry.WhichOneof("event") != "heartbeat"]


def write_trust(folder: Path) -> None:
    """The policy service's trust roots."""
    trust = {
        "log_verifier_keys": [SIGNER.verifier.vkey],
        "broker_verify_keys": ["A" * 43 + "="],
        "directive_signers": {
            party: [key.vkey for key in keys] for party, keys in KNOWN.by_party.items()
        },
        "registry_signers": {party: [signer(party).vkey] for party in demonstration()},
        "registrars": [REGISTRARS.model_dump(mode="json")],
    }
    (folder / "trust-roots.json").write_text(json.dumps(trust))


@pytest.fixture(name="scene")
async def _documents_scene(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[Scene]:
    write_trust(tmp_path)
    ledger = LedgerOfAScene(write_settings(tmp_path, nats_server))
    await ledger.start()
    yield Scene(nats_server, ledger, tmp_path)
    await ledger.stop()


async def ready(ask: Callable[[], Awaitable[object]]) -> None:
    """Waits until the service has heard from the ledger."""

    async def answers() -> bool:
        try:
            await ask()
        except Unavailable:
            return False
        return True

    await until(answers)


def proved(receipt: Receipt) -> Entry:
    index, _ = verify_receipt(receipt.leaf, receipt.tlog_proof, SIGNER.verifier)
    assert index == receipt.index
    return Entry.FromString(receipt.leaf)


def outcome(response: pb.EvaluateResponse) -> str:
    return DecisionOutcome.Name(response.decision.outcome).removeprefix("DECISION_OUTCOME_")


async def on_record(policy: RunningPolicy, *names: str) -> None:
    """As if another service had reviewed them: a review is a process of its own for each."""
    await put_on_record(policy, *(handed_in(name) for name in names))


async def put_on_record(policy: RunningPolicy, *requests: pb.PublishDirectiveRequest) -> None:
    assert policy.following is not None
    recording = Recording(policy.bus)
    for request in requests:
        now = (await policy.following.catch_up()).holdings
        assert now is not None
        pending = PendingEntry(entry=published(request, now))
        pending.entry.ClearField("recorded_at")  # the ledger's to say
        assert await recording.after(now.head, pending) is not None
    await policy.following.catch_up()


async def held_by(client: DirectiveClient) -> Held:
    return held_of(await client.get(NAME))
