"""Openings are destroyed on the word of two people, for good, and every proof stands."""

import asyncio
from pathlib import Path

import pytest

from countersign.client import ClientSettings
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1 import disclosure_pb2 as pb
from ledger.sqlite_storage import SqliteDatabase
from shared.errors import (
    InvalidRequest,
    NotAllowed,
    NotFound,
)
from support.disclosures import (
    AUTHORITY,
    COMMISSION,
    INSPECTOR,
    LASD,
    POLICE,
    REASON,
    Caller,
    LedgerUnderTest,
    backup_of,
    holding,
    sealed_in,
)
from support.ledgers import (
    LAPD,
    assert_whole,
    search_id,
)
from support.terminals import Terminal


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
