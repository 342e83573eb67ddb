"""Disclosing and expunging on a real ledger: who may, what goes on record first, and what is left after."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
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
from ledger.sqlite_storage import SqliteDatabase
from shared.bus import Bus
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    NotFound,
    ServiceError,
)
from shared.identity import Kind
from shared.signing import SigningKey
from shared.tokens import AUDIENCE, LEDGER_AUDIENCE
from support.ledgers import (
    LAPD,
    assert_whole,
    decided,
    rejected,
    run_program,
    search_id,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.terminals import VKEY, Terminal, write_client

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

    async def append(self, *pending: PendingEntry) -> None:
        await self.bus.request(
            "ledger.append", AppendRequest(entries=pending), AppendResponse, timeout_s=20
        )

    def config(self, who: Caller) -> Path:
        return write_client(self.folder, self.nats, self.port, VKEY, who)

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


def settings_in(folder: Path, nats: NatsUnderTest, provider: DevelopmentIdentityProvider) -> Path:
    config = write_settings(folder, nats)
    (folder / "registry.toml").write_text(REGISTRY)
    trust = {
        "log_verifier_keys": [VKEY],
        "broker_verify_keys": ["A" * 43 + "="],
        "identity_providers": {LAPD: provider.registration()},
    }
    (folder / "ledger-trust.json").write_text(json.dumps(trust))
    own = 'registry = "registry.toml"\ntrust_roots = "ledger-trust.json"\n'
    config.write_text(own + config.read_text())
    return config


@contextlib.asynccontextmanager
async def ledger_in(folder: Path, nats: NatsUnderTest) -> AsyncIterator[LedgerUnderTest]:
    key = folder / "provider.pem"
    if not key.exists():
        key.write_bytes(SigningKey.generate().pem())
        key.chmod(0o600)
    provider = DevelopmentIdentityProvider("https://lapd.example", SigningKey.load(key))
    settings = LedgerSettings.load(settings_in(folder, nats, provider))
    async with running(settings) as ledger:
        bus = await Bus.connect(nats.bus_settings("service", "broker"), "broker")
        yield LedgerUnderTest(folder, nats, ledger.server.port, provider, bus)
        await bus.close()


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[LedgerUnderTest]:
    """A ledger with searches of LAPD (0, 1), LASD (2) and Texas (3), and a call turned away (4)."""
    async with ledger_in(tmp_path, nats_server) as ledger:
        await ledger.append(
            decided(0),
            decided(1),
            decided(2, agency=LASD),
            decided(3, agency="TX0000001"),
            rejected(),
        )
        yield ledger


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("who", "readable"),
    [
        (COMMISSION, {0, 1, 2}),
        (("oversight", "texas"), {3}),
        (INSPECTOR, set()),
        (("oversight", "auditor"), set()),
        (("oversight", "unregistered"), set()),
        (POLICE, {0, 1}),
        (("agency", LASD), set()),
        (("connector", "lacris"), set()),
        (("service", "broker"), set()),
        (("operator", "up"), set()),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
async def test_each_reader_reads_what_is_theirs(
    ledger: LedgerUnderTest, who: Caller, readable: set[int]
) -> None:
    """LASD has the right to its own, but no identity provider that vouches for its officers."""
    read = set()
    for index in range(4):
        try:
            assert await ledger.disclose(who, index, "officer") == [f"officer-{index}"]
            read.add(index)
        except (NotAllowed, NotAuthentic):
            pass
    assert read == readable
    on_record = [entry.opening_read for _, entry in await ledger.entries("opening_read")]
    assert {one.entry_index for one in on_record} == readable
    refusals = [entry.request_rejected for _, entry in await ledger.entries("request_rejected")]
    # Who may not even ask is turned away at the door, as at every other method.
    expected = 4 - len(readable) if who[0] in ("agency", "oversight") else 0
    assert len([one for one in refusals if one.rpc.endswith("/Disclose")]) == expected


@pytest.mark.promise(7)
async def test_reading_is_an_entry_that_says_who_and_why_but_names_nobody(
    ledger: LedgerUnderTest,
) -> None:
    values = await ledger.disclose(POLICE, 1, "case_number", "officer")
    assert values == ["case-1", "officer-1"]
    ((index, entry),) = await ledger.entries("opening_read")
    read = entry.opening_read
    assert (read.entry_index, read.origin_agency, list(read.fields)) == (
        *(1, LAPD),
        ["case_number", "officer"],
    )
    assert read.caller.endswith(f"/agency/{LAPD}")
    assert read.authority == AUTHORITY
    assert sorted(one.field for one in entry.commitments) == ["officer", "reason"]
    assert entry.recorded_by.endswith("/service/ledger")
    assert b"SECRET-ORDER" not in entry.SerializeToString()
    # The reading's own reason is the reader's, and its overseers may ask for it.
    assert await ledger.disclose(POLICE, index, "reason") == [REASON]
    assert await ledger.disclose(COMMISSION, index, "officer") == ["lapd-40123"]


@pytest.mark.promise(7)
async def test_agency_cannot_read_why_oversight_looked(ledger: LedgerUnderTest) -> None:
    await ledger.disclose(COMMISSION, 0, "officer")
    ((index, _),) = await ledger.entries("opening_read")
    assert await ledger.disclose(COMMISSION, index, "reason") == [REASON]
    with pytest.raises(NotAllowed):
        await ledger.disclose(POLICE, index, "reason")


async def test_officer_token_must_be_for_this_ledger_and_this_request(
    ledger: LedgerUnderTest,
) -> None:
    for ground in (
        ledger.ground(COMMISSION),
        ledger.ground(POLICE, audience=AUDIENCE),
        pb.Ground(
            request_id=str(uuid4()),
            authority=AUTHORITY,
            reason=REASON,
            officer_token=ledger.ground(POLICE).officer_token,
        ),
    ):
        with pytest.raises(NotAuthentic):
            await ledger.disclose(POLICE, 0, "officer", ground=ground)
    ground = ledger.ground(POLICE)
    await ledger.disclose(POLICE, 0, "officer", ground=ground)
    with pytest.raises(Conflict, match="was made already"):
        await ledger.disclose(POLICE, 1, "officer", ground=ground)


async def test_what_is_not_there_is_said(ledger: LedgerUnderTest) -> None:
    with pytest.raises(NotFound):
        await ledger.disclose(COMMISSION, 99, "officer")
    with pytest.raises(InvalidRequest, match="no sensitive field 'weather'"):
        await ledger.disclose(COMMISSION, 0, "weather")
    for bad in (
        pb.Ground(request_id="x", authority=AUTHORITY, reason=REASON),
        pb.Ground(request_id=str(uuid4()), authority="", reason=REASON),
        pb.Ground(request_id=str(uuid4()), authority="a\nb", reason=REASON),
        pb.Ground(request_id=str(uuid4()), authority=AUTHORITY, reason=""),
    ):
        with pytest.raises(InvalidRequest):
            await ledger.disclose(COMMISSION, 0, "officer", ground=bad)
    async with ledger.client(COMMISSION) as client:
        with pytest.raises(InvalidRequest, match="either"):
            await client.request_expunge([], "", ledger.ground())
        with pytest.raises(InvalidRequest, match="several agencies"):
            await client.request_expunge([0, 2], "", ledger.ground())
        with pytest.raises(NotFound, match="no request to expunge"):
            await client.approve_expunge(0, ledger.ground())


@pytest.mark.promise(5)
async def test_expungement_leaves_no_byte_of_the_value_and_every_proof(
    ledger: LedgerUnderTest, tmp_path: Path
) -> None:
    sealed = sealed_in(tmp_path, 1)
    assert sealed
    assert holding(tmp_path, sealed[0]), "the search for bytes would find it"
    requested = await ledger.request(COMMISSION, 1)
    assert await ledger.disclose(COMMISSION, 1, "officer") == ["officer-1"], "not approved yet"
    done = await ledger.approve(INSPECTOR, requested)
    assert (done.openings_destroyed, list(done.request.indexes)) == (3, [1])
    assert done.request.state == pb.EXPUNGE_STATE_EXPUNGED
    with pytest.raises(NotFound, match="was destroyed"):
        await ledger.disclose(COMMISSION, 1, "officer")
    assert await ledger.disclose(COMMISSION, 0, "officer") == ["officer-0"]
    for secret in (*sealed, b"officer-1", b"case-1", b"SECRET-ORDER"):
        assert not holding(tmp_path, secret)
    async with LedgerClient.connect(ClientSettings.load(ledger.config(COMMISSION))) as client:
        newest = (await client.checkpoint()).checkpoint
        assert (await client.inclusion_proof(1, 0)).tlog_proof.endswith(newest)
    ((_, entry),) = await ledger.entries("openings_expunged")
    assert entry.openings_expunged.requested_index == requested
    database = SqliteDatabase(tmp_path / "ledger.sqlite")
    # The check knows of the expungement from the entries.
    assert await asyncio.to_thread(lambda: assert_whole(database).openings) > 0


@pytest.mark.promise(5)
async def test_backup_of_the_database_after_and_before_opens_nothing_without_its_keys(
    ledger: LedgerUnderTest, tmp_path: Path
) -> None:
    """What the backup's format is, whatever it is called: a copy of the database, and no key."""
    before = backup_of(tmp_path)
    requested = await ledger.request(COMMISSION, 1)
    await ledger.approve(INSPECTOR, requested)
    after = backup_of(tmp_path)
    for copy in (before, after):
        assert not [secret for secret in (b"officer-1", b"case-1") if secret in copy]
    key = (tmp_path / "ledger.sqlite.opening-keys" / "v1.key").read_bytes().strip()
    assert key not in before
    assert bytes.fromhex(key.decode()) not in before


@pytest.mark.parametrize(
    ("asks", "approves", "officers", "allowed"),
    [
        (COMMISSION, COMMISSION, ("", ""), False),
        (COMMISSION, INSPECTOR, ("", ""), True),
        (COMMISSION, POLICE, ("", "lapd-40123"), True),
        (POLICE, POLICE, ("lapd-40123", "lapd-40123"), False),
        (POLICE, POLICE, ("lapd-40123", "lapd-40777"), True),
        (POLICE, COMMISSION, ("lapd-40123", ""), True),
        (COMMISSION, ("oversight", "auditor"), ("", ""), False),
        (COMMISSION, ("oversight", "texas"), ("", ""), False),
        (COMMISSION, ("agency", LASD), ("", "lasd-1"), False),
    ],
)
async def test_a_second_person_approves(
    ledger: LedgerUnderTest,
    asks: Caller,
    approves: Caller,
    officers: tuple[str, str],
    allowed: bool,
) -> None:
    requested = await ledger.request(asks, 0, officer=officers[0])
    if allowed:
        done = await ledger.approve(approves, requested, officer=officers[1])
        assert done.openings_destroyed == 3
        again = await ledger.approve(approves, requested, officer=officers[1])
        assert (again.receipt.index, again.openings_destroyed) == (done.receipt.index, 0)
        return
    with pytest.raises(NotAllowed):
        await ledger.approve(approves, requested, officer=officers[1])
    assert await ledger.disclose(COMMISSION, 0, "officer") == ["officer-0"]
    ((_, refusal),) = [
        one
        for one in await ledger.entries("request_rejected")
        if one[1].request_rejected.rpc.endswith("/ApproveExpunge")
    ]
    assert refusal.request_rejected.caller.endswith("/".join(approves))


async def test_approval_names_the_authority_of_the_request(ledger: LedgerUnderTest) -> None:
    requested = await ledger.request(COMMISSION, 0)
    ground = ledger.ground(INSPECTOR)
    ground.authority = "another"
    async with ledger.client(INSPECTOR) as client:
        with pytest.raises(InvalidRequest, match="not that of the request"):
            await client.approve_expunge(requested, ground)


async def test_requests_are_listed_to_who_may_approve_them(ledger: LedgerUnderTest) -> None:
    first = await ledger.request(COMMISSION, 0)
    async with ledger.client(COMMISSION) as client:
        second = (await client.request_expunge([], search_id(1), ledger.ground())).request
    assert list(second.indexes) == [1]
    await ledger.approve(INSPECTOR, first)
    states = {}
    for who in (COMMISSION, INSPECTOR, POLICE, ("oversight", "texas"), ("oversight", "auditor")):
        async with ledger.client(who) as client:
            states[who[1]] = [
                (one.requested_index, one.state) for one in await client.expunge_requests()
            ]
    both = [
        (second.requested_index, pb.EXPUNGE_STATE_PENDING),
        (first, pb.EXPUNGE_STATE_EXPUNGED),
    ]
    assert states["police-commission"] == states["inspector-general"] == states[LAPD] == both
    assert states["texas"] == states["auditor"] == []


async def test_without_a_registry_nobody_reads_openings(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    async with running(settings) as running_ledger:
        bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        provider = DevelopmentIdentityProvider("https://lapd.example", SigningKey.generate())
        ledger = LedgerUnderTest(tmp_path, nats_server, running_ledger.server.port, provider, bus)
        await ledger.append(decided(0))
        for who in (COMMISSION, POLICE):
            with pytest.raises(ServiceError):
                await ledger.disclose(who, 0, "officer")
        await bus.close()


async def test_keys_are_rotated_beside_the_service(ledger: LedgerUnderTest, tmp_path: Path) -> None:
    rotated = await asyncio.to_thread(
        run_program, "rotate-opening-keys", tmp_path / "ledger.toml", "--destroy-old"
    )
    assert (rotated.returncode, rotated.stdout) == (
        0,
        "ROTATED: version 2 wraps from now on; 1 destroyed\n",
    )
    assert await ledger.disclose(COMMISSION, 0, "officer") == ["officer-0"]
    await ledger.append(decided(7))
    assert await ledger.disclose(COMMISSION, 0, "case_number") == ["case-0"]
    nowhere = await asyncio.to_thread(run_program, "rotate-opening-keys", tmp_path / "none.toml")
    assert nowhere.returncode == 2


async def test_commands_disclose_and_expunge(
    ledger: LedgerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ("--authority", AUTHORITY, "--reason", REASON)
    commission = Terminal(ledger.config(COMMISSION), capsys)
    said = await commission.read("disclose", 0, "--field", "officer", *on)
    assert said.code == 0, said.err
    assert "officer-0" in said.out
    assert "VERIFIED" in said.out
    said = await commission.read("disclose", 1, "--field", "case_number", *on, "--json")
    assert said.document["openings"][0]["value"] == "case-1"
    asked = await commission.read("expunge", "request", 1, *on, "--json")
    requested = asked.document["request"]["requested_index"]
    assert (await commission.read("expunge", "approve", requested, *on)).code == 3
    inspector = Terminal(ledger.config(INSPECTOR), capsys)
    listed = await inspector.read("expunge", "list")
    assert (listed.code, "PENDING" in listed.out) == (0, True)
    done = await inspector.read("expunge", "approve", requested, *on)
    assert (done.code, "3 openings destroyed" in done.out) == (0, True)
    listed = await commission.read("expunge", "list", "--json")
    assert listed.document["requests"][0]["state"] == "EXPUNGE_STATE_EXPUNGED"
    assert (await commission.read("disclose", 1, "--field", "officer", *on)).code == 3
    shown = await commission.read("list", "--kind", "openings_expunged")
    assert "entry 1" in shown.out
    for usage in (
        ("expunge", "request", *on),
        ("expunge", "request", 1, "--search", search_id(1), *on),
        ("disclose", 0, "--field", "officer", *on, "--officer", "x"),
    ):
        assert (await commission.read(*usage)).code == 2


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
