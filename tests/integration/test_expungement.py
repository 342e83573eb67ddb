"""Openings are destroyed on the word of two people, for good, and every proof stands."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from countersign.client import ClientSettings
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import ExpungeRequested
from ledger.entry import Completer
from ledger.expungement import LOOKED_AT_MAX
from ledger.log import opened
from ledger.sqlite_storage import SqliteDatabase
from shared.clock import SystemClock
from shared.errors import (
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotReady,
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
    ledger_in,
    sealed_in,
)
from support.ledgers import (
    LAPD,
    SIGNER,
    assert_whole,
    decided,
    new_log,
    search_id,
)
from support.nats_servers import NatsUnderTest
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


@pytest.mark.parametrize(
    ("asks", "declines", "officers", "state"),
    [
        (COMMISSION, INSPECTOR, ("", ""), pb.EXPUNGE_STATE_DECLINED),
        (COMMISSION, POLICE, ("", "lapd-40123"), pb.EXPUNGE_STATE_DECLINED),
        (POLICE, POLICE, ("lapd-40123", "lapd-40777"), pb.EXPUNGE_STATE_DECLINED),
        (COMMISSION, COMMISSION, ("", ""), pb.EXPUNGE_STATE_WITHDRAWN),
        (POLICE, POLICE, ("lapd-40123", "lapd-40123"), pb.EXPUNGE_STATE_WITHDRAWN),
    ],
)
async def test_a_declined_request_cannot_be_approved(
    ledger: LedgerUnderTest,
    asks: Caller,
    declines: Caller,
    officers: tuple[str, str],
    state: pb.ExpungeState.ValueType,
) -> None:
    requested = await ledger.request(asks, 0, officer=officers[0])
    declined = await ledger.decline(declines, requested, officer=officers[1])
    assert declined.request.state == state
    again = await ledger.decline(declines, requested, officer=officers[1])
    assert again.receipt.index == declined.receipt.index == declined.request.declined_index
    for third in (INSPECTOR, POLICE):
        if third != asks:
            with pytest.raises(NotReady, match="was declined or taken back"):
                await ledger.approve(third, requested, officer="lapd-50999")
    assert await ledger.disclose(COMMISSION, 0, "officer") == ["officer-0"]
    assert not await ledger.entries("openings_expunged")
    ((_, entry),) = await ledger.entries("expunge_declined")
    event = entry.expunge_declined
    assert (event.requested_index, event.origin_agency, event.authority) == (
        *(requested, LAPD),
        AUTHORITY,
    )
    assert event.withdrawn == (state == pb.EXPUNGE_STATE_WITHDRAWN)
    assert [one.field for one in entry.commitments] == ["reason", "officer"]
    async with ledger.client(COMMISSION) as client:
        assert [one.state for one in await client.expunge_requests()] == [state]


async def test_what_was_approved_is_not_declined(ledger: LedgerUnderTest) -> None:
    requested = await ledger.request(COMMISSION, 0)
    await ledger.approve(INSPECTOR, requested)
    with pytest.raises(NotReady, match="was approved"):
        await ledger.decline(INSPECTOR, requested)
    assert not await ledger.entries("expunge_declined")


@pytest.mark.parametrize(
    "who", [("oversight", "auditor"), ("oversight", "texas"), ("agency", LASD)]
)
async def test_who_could_not_approve_cannot_decline(ledger: LedgerUnderTest, who: Caller) -> None:
    requested = await ledger.request(COMMISSION, 0)
    with pytest.raises(NotAllowed):
        await ledger.decline(who, requested, officer="lasd-1")
    (refused,) = [
        entry.request_rejected
        for _, entry in await ledger.entries("request_rejected")
        if entry.request_rejected.rpc.endswith("/DeclineExpunge")
    ]
    assert refused.caller.endswith("/".join(who))
    assert (await ledger.approve(INSPECTOR, requested)).openings_destroyed == 3


def _asked_for(agency: str) -> PendingEntry:
    event = ExpungeRequested(caller=f"spiffe://x/agency/{agency}", origin_agency=agency)
    event.lapses_at.FromDatetime(datetime(2100, 1, 1, tzinfo=UTC))
    return PendingEntry(entry=Entry(expunge_requested=event))


async def test_the_newest_request_is_listed_however_many_there_were(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    """Also to who may see few of them: what one page passes over is bounded, and the next goes on."""
    crowd = [_asked_for("TX0000001") for _ in range(LOOKED_AT_MAX + 100)]
    own = Completer("spiffe://x/service/ledger", SystemClock(), own=True)
    database = new_log(tmp_path)
    async with opened(database.open_for_writing(), SIGNER) as log:
        for one in (_asked_for(LAPD), *crowd):
            await log.sequencer.append([own.complete(one, "entry")])
    async with ledger_in(tmp_path, nats_server) as ledger:
        await ledger.append(decided(0))
        newest = await ledger.request(COMMISSION, len(crowd) + 1)
        async with ledger.client(COMMISSION) as client:
            assert [one.requested_index for one in await client.expunge_requests()] == [newest, 0]
        async with ledger.client(("oversight", "texas")) as client:
            listed = [one.requested_index for one in await client.expunge_requests()]
    assert listed == list(range(len(crowd), 0, -1))


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
    other = (await commission.read("expunge", "request", 0, *on, "--json")).document["request"]
    said = await inspector.read("expunge", "decline", other["requested_index"], *on)
    assert (said.code, "DECLINED" in said.out) == (0, True)
    assert (await inspector.read("expunge", "approve", other["requested_index"], *on)).code == 3
    shown = await commission.read("list", "--kind", "expunge_declined")
    assert f"request {other['requested_index']} declined oversight/inspector" in shown.out
    done = await inspector.read("expunge", "approve", requested, *on)
    assert (done.code, "3 openings destroyed" in done.out) == (0, True)
    listed = await commission.read("expunge", "list", "--json")
    states = [one["state"] for one in listed.document["requests"]]
    assert states == ["EXPUNGE_STATE_DECLINED", "EXPUNGE_STATE_EXPUNGED"]
    assert (await commission.read("disclose", 1, "--field", "officer", *on)).code == 3
    shown = await commission.read("list", "--kind", "openings_expunged")
    assert "entry 1" in shown.out
    for usage in (
        ("expunge", "request", *on),
        ("expunge", "request", 1, "--search", search_id(1), *on),
        ("disclose", 0, "--field", "officer", *on, "--officer", "x"),
    ):
        assert (await commission.read(*usage)).code == 2
