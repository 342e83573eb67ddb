"""The requests behind decisions are read by right, proved, and on record before the first of them leaves."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest

from countersign.client import ClientSettings, VerificationError
from countersign.client.reading import VerifiedReading
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from ledger.entry import CompletedEntry
from ledger.sequencer import Placed, Sequencer
from shared.clock import stamp
from shared.errors import Conflict, InvalidRequest, NotAllowed, NotAuthentic, NotReady, ServiceError
from shared.registry import TrustRoots
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
from support.ledgers import LAPD, decided, search_id
from support.terminals import Terminal

TEXAS = "TX0000001"
Read = list[tuple[int, dict[str, str]]]


def checked(number: int, agency: str = LAPD) -> PendingEntry:
    """A dry run of search `number`."""
    pending = decided(number, agency=agency, key="")
    event = pending.entry.search_decided
    summary, decision = event.summary, event.decision
    pending.entry.search_id = ""
    pending.entry.search_checked.summary.CopyFrom(summary)
    pending.entry.search_checked.decision.CopyFrom(decision)
    pending.sensitive.add(field="search_id", value=search_id(number))
    return pending


def asked(ledger: LedgerUnderTest, who: Caller, **changes: Any) -> pb.ReadRequestsRequest:
    whole = {"fields": ["officer", "case_number"], "ground": ledger.ground(who), **changes}
    return pb.ReadRequestsRequest(**whole)


async def read(ledger: LedgerUnderTest, who: Caller, **changes: Any) -> Read:
    async with ledger.client(who) as client:
        return [
            (row.index, {one.field: one.value for one in row.openings})
            async for row, _ in client.read_requests(asked(ledger, who, **changes))
        ]


def opened(*numbers: int) -> Read:
    return [
        (number, {"officer": f"officer-{number}", "case_number": f"case-{number}"})
        for number in numbers
    ]


@pytest.mark.promise(7)
async def test_each_reader_reads_the_requests_that_are_theirs(ledger: LedgerUnderTest) -> None:
    await ledger.append(checked(5), checked(6, agency=TEXAS))
    assert await read(ledger, COMMISSION) == opened(0, 1, 2)
    assert await read(ledger, POLICE) == opened(0, 1)
    assert await read(ledger, ("oversight", "texas"), with_checks=True) == opened(3, 6)
    assert await read(ledger, COMMISSION, with_checks=True) == opened(0, 1, 2, 5)
    assert await read(ledger, COMMISSION, agencies=[LASD]) == opened(2)
    for who, agencies in (
        (INSPECTOR, []),
        (("oversight", "auditor"), []),
        (("oversight", "unregistered"), []),
        (COMMISSION, [TEXAS]),
        (COMMISSION, [LAPD, TEXAS]),
        (POLICE, [LASD]),
    ):
        with pytest.raises(NotAllowed):
            await read(ledger, who, agencies=agencies)
    for stranger in (("service", "broker"), ("connector", "lacris"), ("operator", "up")):
        with pytest.raises(ServiceError):
            await read(ledger, stranger)
    refused = [one.request_rejected.rpc for _, one in await ledger.entries("request_rejected")]
    assert len([rpc for rpc in refused if rpc.endswith("/ReadRequests")]) == 6


@pytest.mark.promise(7)
async def test_a_reading_is_one_entry_that_says_who_and_what_but_names_nobody(
    ledger: LedgerUnderTest,
) -> None:
    since = stamp(datetime(2020, 1, 1, tzinfo=UTC))
    await read(ledger, POLICE, recorded_from=since, fields=["officer"])
    ((index, entry),) = await ledger.entries("requests_read")
    event = entry.requests_read
    assert event.caller.endswith(f"/agency/{LAPD}")
    assert (list(event.agencies), list(event.fields), event.authority) == (
        *([LAPD], ["officer"]),
        AUTHORITY,
    )
    assert (event.recorded_from, event.HasField("recorded_until")) == (since, False)
    assert (event.tree_size, event.found, event.with_checks) == (5, 2, False)
    indexes = b"".join(number.to_bytes(8, "big") for number in (0, 1))
    assert event.indexes_sha256 == sha256(indexes).digest()
    assert sorted(one.field for one in entry.commitments) == ["officer", "reason"]
    assert b"SECRET-ORDER" not in entry.SerializeToString()
    assert await ledger.disclose(COMMISSION, index, "officer") == ["lapd-40123"]
    assert await ledger.disclose(POLICE, index, "reason") == [REASON]


async def fails(_: Sequencer, entries: Sequence[CompletedEntry]) -> list[Placed]:
    """An append that records nothing."""
    raise NotReady("LEDGER_WRITE_FAILED", f"{len(entries)} entries were not written")


@pytest.mark.promise(7)
async def test_no_request_leaves_when_the_reading_cannot_be_recorded(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sequencer, "append", fails)
        async with ledger.client(COMMISSION) as client:
            received = client.read_requests(asked(ledger, COMMISSION))
            with pytest.raises(ServiceError, match="were not written"):
                await anext(received)
    assert not await ledger.entries("requests_read")


async def test_only_what_was_asked_for_leaves(ledger: LedgerUnderTest) -> None:
    assert await read(ledger, COMMISSION, agencies=[LASD], fields=["officer"]) == [
        (2, {"officer": "officer-2"})
    ]
    assert await read(ledger, COMMISSION, agencies=[LASD], fields=["weather"]) == [(2, {})]
    assert await read(ledger, COMMISSION, start_index=1) == opened(1, 2)
    late = stamp(datetime(2999, 1, 1, tzinfo=UTC))
    assert await read(ledger, COMMISSION, recorded_from=late) == []
    assert await read(ledger, COMMISSION, recorded_until=late) == opened(0, 1, 2)
    requested = await ledger.request(COMMISSION, 1)
    await ledger.approve(POLICE, requested)
    assert await read(ledger, COMMISSION) == [*opened(0), (1, {}), *opened(2)]


async def test_what_is_asked_wrongly_is_refused(ledger: LedgerUnderTest) -> None:
    ground = ledger.ground(POLICE)
    await read(ledger, POLICE, ground=ground)
    with pytest.raises(Conflict, match="was made already"):
        await read(ledger, POLICE, ground=ground)
    unbound = pb.Ground(
        request_id=str(uuid4()),
        authority=AUTHORITY,
        reason=REASON,
        officer_token=ledger.ground(POLICE).officer_token,
    )
    for bad in (unbound, ledger.ground(COMMISSION)):
        with pytest.raises(NotAuthentic):
            await read(ledger, POLICE, ground=bad)
    wrongly: list[dict[str, Any]] = [
        {"fields": []},
        {"agencies": ["LAPD"]},
        {"start_index": 2**64 - 1},
    ]
    for wrong in wrongly:
        with pytest.raises(InvalidRequest):
            await read(ledger, COMMISSION, **wrong)
    assert len(await ledger.entries("requests_read")) == 1


async def test_a_reading_that_is_not_what_was_recorded_is_not_believed(
    ledger: LedgerUnderTest,
) -> None:
    trust = TrustRoots.load(ClientSettings.load(ledger.config(COMMISSION)).trust_roots)
    request = asked(ledger, COMMISSION)
    async with ledger.client(COMMISSION) as client:
        parts = [part async for part in client._stub.ReadRequests(request)]
    beginning, (*_, last) = parts[0].beginning, parts
    rows = list(last.requests.requests)

    def verified(*given: pb.RecordedRequest, of: pb.ReadRequestsRequest = request) -> None:
        reading = VerifiedReading(beginning, of, trust)
        for row in given:
            reading.entry(row)
        reading.finish()

    def changed(number: int, **how: Any) -> list[pb.RecordedRequest]:
        some = [pb.RecordedRequest.FromString(row.SerializeToString()) for row in rows]
        for name, value in how.items():
            setattr(some[number], name, value)
        return some

    verified(*rows)
    lied = changed(0)
    lied[0].openings[0].value = "somebody else"
    others = pb.ReadRequestsRequest.FromString(request.SerializeToString())
    others.with_checks = True
    for wrong, message in (
        (rows[:-1], "other entries"),
        ([rows[1], rows[0], rows[2]], "not in order"),
        (changed(0, leaf=rows[1].leaf), "does not lead to the root"),
        (lied, "is not what was committed to"),
    ):
        with pytest.raises(VerificationError, match=message):
            verified(*wrong)
    with pytest.raises(VerificationError, match="not on record"):
        verified(*rows, of=others)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "narrower",
    [
        {"agencies": [TEXAS]},
        {"recorded_from": stamp(datetime(2999, 1, 1, tzinfo=UTC))},
        {"recorded_until": stamp(datetime(2020, 1, 1, tzinfo=UTC))},
        {"start_index": 2},
        {"registrations": True},
    ],
    ids=lambda narrower: next(iter(narrower)),
)
async def test_attack_a_reading_is_padded_with_what_nobody_asked_for(
    ledger: LedgerUnderTest, narrower: dict[str, Any]
) -> None:
    """A ledger that records the question as it was asked, and gives others' searches for an answer."""
    trust = TrustRoots.load(ClientSettings.load(ledger.config(COMMISSION)).trust_roots)
    request = asked(ledger, COMMISSION)
    async with ledger.client(COMMISSION) as client:
        parts = [part async for part in client._stub.ReadRequests(request)]
    reading = VerifiedReading(parts[0].beginning, request, trust)
    for name, value in narrower.items():
        request.ClearField(name)  # type: ignore[arg-type]
        request.MergeFrom(pb.ReadRequestsRequest(**{name: value}))
    first = parts[-1].requests.requests[0]
    with pytest.raises(VerificationError, match="is not one that was asked for"):
        reading.entry(first)


@pytest.mark.promise(7)
async def test_searches_are_counted_by_officer_and_case_by_right_and_on_record(
    ledger: LedgerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    again = decided(10)
    again.sensitive[0].value = "officer-0"
    await ledger.append(again, checked(11))
    commission = Terminal(ledger.config(COMMISSION), capsys)
    on = ("--authority", AUTHORITY, "--reason", REASON)
    said = await commission.read("count-openings", "--by", "officer", *on)
    assert said.code == 0, said.err
    assert "VERIFIED: 4 entries" in said.err
    by_officer = (
        await commission.read("count-openings", "--by", "officer", *on, "--agency", LAPD, "--json")
    ).document
    assert by_officer["entries"] == 3
    assert [(one["officer"], one["entries"]) for one in by_officer["groups"]] == [
        ("officer-0", 2),
        ("officer-1", 1),
    ]
    by_case = await commission.read(
        *("count-openings", "--by", "case-number", "--and-by", "kind", "--and-by", "year"),
        *("--with-checks", "--agency", LAPD, *on, "--json"),
    )
    (dry,) = (one for one in by_case.document["groups"] if one["kind"] == "search_checked")
    assert (dry["origin_agency"], dry["case_number"], dry["entries"]) == (LAPD, "case-11", 1)
    read_by = [one.requests_read for _, one in await ledger.entries("requests_read")]
    assert [(list(one.fields), one.found) for one in read_by] == [
        (["officer"], 4),
        (["officer"], 3),
        (["case_number"], 4),
    ]
    inspector = Terminal(ledger.config(INSPECTOR), capsys)
    assert (await inspector.read("count-openings", "--by", "officer", *on)).code == 3


@pytest.mark.promise(5)
async def test_searches_whose_openings_were_destroyed_are_counted_and_name_nobody(
    ledger: LedgerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    await ledger.approve(POLICE, await ledger.request(POLICE, 1))
    commission = Terminal(ledger.config(COMMISSION), capsys)
    said = await commission.read(
        *("count-openings", "--by", "officer", "--agency", LAPD, "--json"),
        *("--authority", AUTHORITY, "--reason", REASON),
    )
    assert [(one["officer"], one["entries"]) for one in said.document["groups"]] == [
        ("-", 1),
        ("officer-0", 1),
    ]
