"""No opening leaves, and none is looked for, without its record: also when there can be no record."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from countersign.client import ClientSettings
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2
from ledger.entry import CompletedEntry
from ledger.sequencer import Placed, Sequencer
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    NotReady,
    ServiceError,
)
from shared.tokens import LEDGER_AUDIENCE
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
from support.ledgers import LAPD, decided
from support.terminals import Terminal


async def fails(_: Sequencer, entries: Sequence[CompletedEntry]) -> list[Placed]:
    """An append that records nothing."""
    raise NotReady("LEDGER_WRITE_FAILED", f"{len(entries)} entries were not written")


@pytest.mark.promise(7)
async def test_no_value_leaves_when_the_reading_cannot_be_recorded(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sequencer, "append", fails)
        with pytest.raises(ServiceError, match="were not written"):
            await ledger.disclose(COMMISSION, 0, "officer")
    assert not await ledger.entries("opening_read")


def officer_sought(ledger: LedgerUnderTest, **who: str) -> query_pb2.OpeningMatch:
    match = query_pb2.OpeningMatch(
        field="officer", value="officer-1", agency=LAPD, authority=AUTHORITY, reason=REASON
    )
    if who:
        match.request_id = who.get("request_id") or str(uuid4())
        match.officer_token = ledger.provider.token(
            who["officer"], match.request_id, audience=who.get("audience", LEDGER_AUDIENCE)
        )
    return match


async def found_by_officer(
    ledger: LedgerUnderTest, who: Caller, match: query_pb2.OpeningMatch | None = None
) -> list[int]:
    wanted = query_pb2.EntryFilter(opening=match or officer_sought(ledger))
    found: list[int] = []
    request = query_pb2.QueryEntriesRequest(filter=wanted, page_size=1)
    async with LedgerQueryClient.connect(ClientSettings.load(ledger.config(who))) as client:
        while True:
            page = await client.query(request)
            found += [one.record.index for one in page.entries]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


@pytest.mark.promise(7)
async def test_openings_are_looked_through_by_right_and_on_record(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in (INSPECTOR, ("oversight", "texas"), ("agency", LASD)):
        with pytest.raises(NotAllowed):
            await found_by_officer(ledger, who)
    assert not await ledger.entries("openings_searched")
    assert await found_by_officer(ledger, COMMISSION) == [1]
    ((index, entry),) = await ledger.entries("openings_searched")
    searched = entry.openings_searched
    assert searched.caller.endswith("/oversight/police-commission")
    assert (list(searched.agencies), searched.field, searched.found) == ([LAPD], "officer", 1)
    assert b"officer-1" not in entry.SerializeToString()
    assert await ledger.disclose(COMMISSION, index, "reason") == [REASON]

    with monkeypatch.context() as patch:
        patch.setattr(Sequencer, "append", fails)
        with pytest.raises(ServiceError, match="were not written"):
            await found_by_officer(ledger, COMMISSION)


@pytest.mark.promise(7)
async def test_an_agency_names_the_officer_who_looks_a_person_up(ledger: LedgerUnderTest) -> None:
    """One token is for one look-up with all its pages, and on record once, with who asked."""
    again = decided(1, key="again")  # of the same officer
    await ledger.append(again)
    asked = officer_sought(ledger, officer="lapd-40777")
    assert await found_by_officer(ledger, POLICE, asked) == [1, 5]
    assert await found_by_officer(ledger, POLICE, asked) == [1, 5], "an answer that was lost"
    ((index, entry),) = await ledger.entries("openings_searched")
    assert b"lapd-40777" not in entry.SerializeToString()
    assert await ledger.disclose(COMMISSION, index, "officer", "searched_value") == [
        *("lapd-40777", "officer-1")
    ]
    other = query_pb2.OpeningMatch()
    other.CopyFrom(asked)
    other.value = "officer-0"
    with pytest.raises(Conflict, match="was made already"):
        await found_by_officer(ledger, POLICE, other)
    assert len(await ledger.entries("openings_searched")) == 1


@pytest.mark.promise(7)
async def test_an_agency_without_its_officer_finds_nothing(ledger: LedgerUnderTest) -> None:
    bound = officer_sought(ledger, officer="lapd-40777")
    unbound = query_pb2.OpeningMatch()
    unbound.CopyFrom(bound)
    unbound.request_id = str(uuid4())
    for_broker = officer_sought(ledger, officer="lapd-40777", audience="countersign-broker")
    without = query_pb2.OpeningMatch()
    without.CopyFrom(bound)
    without.officer_token = ""
    for match in (without, unbound, for_broker):
        with pytest.raises(NotAuthentic):
            await found_by_officer(ledger, POLICE, match)
    with pytest.raises(InvalidRequest, match="request_id"):
        await found_by_officer(ledger, POLICE)
    assert not await ledger.entries("openings_searched")
    turned_away = await ledger.entries("request_rejected")
    reasons = [
        entry.request_rejected.reason for _, entry in turned_away if entry.request_rejected.rpc
    ]
    assert reasons == ["OFFICER_TOKEN_MISSING", "OFFICER_TOKEN_UNBOUND", "OFFICER_TOKEN_INVALID"]


async def test_the_command_says_which_officer_asks(
    ledger: LedgerUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    police = Terminal(ledger.config(POLICE), capsys)
    request_id = str(uuid4())
    token = tmp_path / "token"
    token.write_text(ledger.provider.token("lapd-40777", request_id, audience=LEDGER_AUDIENCE))
    sought = ("query", "--case", "case-1", "--agency", LAPD, "--authority", AUTHORITY)
    by_token = ("--officer-token", token, "--request-id", request_id)
    why = ("--why", "Complaint 26-114")
    said = await police.read(*sought, *by_token, *why, "--limit", 1, "--json")
    assert [one["index"] for one in said.document["entries"]] == [1]
    ((index, _),) = await ledger.entries("openings_searched")
    assert await ledger.disclose(COMMISSION, index, "officer") == ["lapd-40777"]
    assert await ledger.disclose(COMMISSION, index, "reason") == ["Complaint 26-114"]
    assert (await police.read("query", *why)).code == 2, "nothing is looked up"
    assert (await police.read(*sought)).code == 2, "nobody is named"
    assert (await police.read("query", *by_token)).code == 2, "public fields need nobody"
    commission = Terminal(ledger.config(COMMISSION), capsys)
    assert (await commission.read(*sought, *by_token)).code == 2, "a body has no officers"
    assert (await commission.read(*sought)).code == 0
