"""A ledger that discloses openings, with readers of every right, and what lies in its files."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from countersign.client import ClientSettings
from countersign.client.disclosure import DisclosureClient
from countersign.client.ledger import LedgerClient
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse, PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from shared.identity import Kind
from shared.signing import SigningKey
from shared.tokens import LEDGER_AUDIENCE
from support.databases import DatabaseUnderTest
from support.ledgers import (
    LAPD,
    decided,
    rejected,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.terminals import VKEY, write_client

LASD = "CA0190000"
AUTHORITY = "Cal. Penal Code s. 851.91"
REASON = "The arrest was sealed by order 26-SECRET-ORDER"
REGISTRY = f"""
[agencies.{LAPD}]
name = "LAPD"
jurisdiction = "US-CA"
[agencies.{LASD}]
name = "LASD"
jurisdiction = "US-CA"
[agencies.TX0000001]
name = "A department in Texas"
jurisdiction = "US-TX"
[oversight.police-commission]
name = "Commission"
jurisdictions = ["US-CA"]
rights = ["disclose", "find", "expunge"]
[oversight.inspector-general]
name = "Inspector general"
jurisdictions = ["US"]
rights = ["expunge"]
[oversight.auditor]
name = "Auditor, who reads public fields"
jurisdictions = ["US-CA"]
[oversight.texas]
name = "A commission in Texas"
jurisdictions = ["US-TX"]
rights = ["disclose", "find", "expunge"]
"""

Caller = tuple[Kind, str]
COMMISSION: Caller = ("oversight", "police-commission")
INSPECTOR: Caller = ("oversight", "inspector-general")
POLICE: Caller = ("agency", LAPD)


@dataclass
class LedgerUnderTest:
    """A ledger that serves, and clients of it."""

    folder: Path
    nats: NatsUnderTest
    port: int
    provider: DevelopmentIdentityProvider
    bus: Bus
    signers: Mapping[str, Sequence[str]] | None = None

    async def append(self, *pending: PendingEntry) -> None:
        await self.bus.request(
            "ledger.append", AppendRequest(entries=pending), AppendResponse, timeout_s=20
        )

    def config(self, who: Caller) -> Path:
        return write_client(self.folder, self.nats, self.port, VKEY, who, self.signers)

    @contextlib.asynccontextmanager
    async def client(self, who: Caller) -> AsyncIterator[DisclosureClient]:
        settings = ClientSettings.load(self.config(who))
        async with DisclosureClient.connect(settings) as client:
            yield client

    async def entries(self, kind: str = "") -> list[tuple[int, Entry]]:
        async with LedgerClient.connect(ClientSettings.load(self.config(COMMISSION))) as client:
            found = client.entries(ListEntriesRequest(kind=kind))
            return [(one.index, one.entry) async for one in found]

    def ground(
        self,
        who: Caller = COMMISSION,
        officer: str = "lapd-40123",
        request_id: str = "",
        audience: str = LEDGER_AUDIENCE,
    ) -> pb.Ground:
        ground = pb.Ground(
            request_id=request_id or str(uuid4()), authority=AUTHORITY, reason=REASON
        )
        if who[0] == "agency":
            ground.officer_token = self.provider.token(
                officer, ground.request_id, audience=audience
            )
        return ground

    async def disclose(
        self, who: Caller, index: int, *fields: str, ground: pb.Ground | None = None
    ) -> list[str]:
        async with self.client(who) as client:
            response = await client.disclose(index, fields, ground or self.ground(who))
        return [one.value for one in response.openings]

    async def request(self, who: Caller, *indexes: int, officer: str = "lapd-40123") -> int:
        async with self.client(who) as client:
            response = await client.request_expunge(indexes, "", self.ground(who, officer))
        return response.request.requested_index

    async def approve(
        self, who: Caller, requested: int, officer: str = "lapd-40777"
    ) -> pb.ApproveExpungeResponse:
        async with self.client(who) as client:
            return await client.approve_expunge(requested, self.ground(who, officer))

    async def decline(
        self, who: Caller, requested: int, officer: str = "lapd-40777"
    ) -> pb.DeclineExpungeResponse:
        async with self.client(who) as client:
            return await client.decline_expunge(requested, self.ground(who, officer))


def settings_in(
    folder: Path,
    nats: NatsUnderTest,
    provider: DevelopmentIdentityProvider,
    database: object = None,
    signers: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """`signers` for owners who register in the ledger, where there is no file then."""
    config = write_settings(folder, nats, database)
    (folder / "registry.toml").write_text(REGISTRY)
    trust: dict[str, object] = {
        "log_verifier_keys": [VKEY],
        "broker_verify_keys": ["A" * 43 + "="],
        "identity_providers": {LAPD: provider.registration()},
    }
    (folder / "ledger-trust.json").write_text(json.dumps(trust))
    own = 'registry = "registry.toml"\ntrust_roots = "ledger-trust.json"\n'
    if signers is not None:  # owners register, and nobody's provider is known otherwise
        own = 'trust_roots = "ledger-trust.json"\n'
        trust |= {"identity_providers": {}, "registry_signers": signers}
        (folder / "ledger-trust.json").write_text(json.dumps(trust))
    config.write_text(own + config.read_text())
    return config


@contextlib.asynccontextmanager
async def ledger_in(
    folder: Path,
    nats: NatsUnderTest,
    database: object = None,
    signers: Mapping[str, Sequence[str]] | None = None,
) -> AsyncIterator[LedgerUnderTest]:
    key = folder / "provider.pem"
    if not key.exists():
        key.write_bytes(SigningKey.generate().pem())
        key.chmod(0o600)
    provider = DevelopmentIdentityProvider("https://lapd.example", SigningKey.load(key))
    settings = LedgerSettings.load(settings_in(folder, nats, provider, database, signers))
    async with running(settings) as ledger:
        bus = await Bus.connect(nats.bus_settings("service", "broker"), "broker")
        yield LedgerUnderTest(folder, nats, ledger.server.port, provider, bus, signers)
        await bus.close()


def sealed_in(folder: Path, index: int) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        rows = connection.execute("SELECT sealed FROM openings WHERE entry_index = ?", (index,))
        return [row[0] for row in rows]


def holding(folder: Path, needle: bytes) -> list[str]:
    """The ledger's own files that hold these bytes: database, write-ahead logs, key store, index, log."""
    return [
        path.name for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()
    ]


def backup_of(folder: Path) -> bytes:
    with (
        contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as connection,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        connection.backup(copy)
        return copy.serialize()


@pytest.fixture(name="kept")
def _kept() -> DatabaseUnderTest | None:
    """Where the ledger keeps its log: by default in a SQLite file. A test may say otherwise."""
    return None


@pytest.fixture(name="ledger")
async def _ledger(
    tmp_path: Path, nats_server: NatsUnderTest, kept: DatabaseUnderTest | None
) -> AsyncIterator[LedgerUnderTest]:
    """A ledger with searches of LAPD (0, 1), LASD (2) and Texas (3), and a call turned away (4)."""
    async with ledger_in(tmp_path, nats_server, kept) as ledger:
        await ledger.append(
            decided(0),
            decided(1),
            decided(2, agency=LASD),
            decided(3, agency="TX0000001"),
            rejected(),
        )
        yield ledger
