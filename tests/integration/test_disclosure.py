"""Openings are disclosed by right, and every reading is on record before a value leaves."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.ledger.v1 import disclosure_pb2 as pb
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    NotFound,
    ServiceError,
)
from shared.signing import SigningKey
from shared.tokens import AUDIENCE
from support.disclosures import (
    AUTHORITY,
    COMMISSION,
    INSPECTOR,
    LASD,
    POLICE,
    REASON,
    Caller,
    LedgerUnderTest,
)
from support.ledgers import (
    LAPD,
    decided,
    run_program,
    write_settings,
)
from support.nats_servers import NatsUnderTest


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


async def test_an_entry_that_hides_nothing_is_not_called_forbidden(ledger: LedgerUnderTest) -> None:
    """Who takes the number of another entry hears that, and is not on record as turned away."""
    with pytest.raises(NotAllowed):
        await ledger.disclose(("oversight", "unregistered"), 1, "officer")
    turned_away = await ledger.entries("request_rejected")
    with pytest.raises(InvalidRequest, match="no sensitive field 'officer'"):
        await ledger.disclose(COMMISSION, turned_away[-1][0], "officer")
    assert await ledger.entries("request_rejected") == turned_away


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
