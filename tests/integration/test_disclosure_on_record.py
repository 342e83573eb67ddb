"""No opening leaves, and none is looked for, without its record: also when there can be no record."""

from collections.abc import Sequence

import pytest

from countersign.client import ClientSettings
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2
from ledger.entry import CompletedEntry
from ledger.sequencer import Placed, Sequencer
from shared.errors import NotAllowed, NotReady, ServiceError
from support.disclosures import (
    AUTHORITY,
    COMMISSION,
    INSPECTOR,
    LASD,
    REASON,
    Caller,
    LedgerUnderTest,
)
from support.ledgers import LAPD


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


async def found_by_officer(ledger: LedgerUnderTest, who: Caller) -> list[int]:
    match = query_pb2.OpeningMatch(
        field="officer", value="officer-1", agency=LAPD, authority=AUTHORITY, reason=REASON
    )
    wanted = query_pb2.QueryEntriesRequest(filter=query_pb2.EntryFilter(opening=match))
    async with LedgerQueryClient.connect(ClientSettings.load(ledger.config(who))) as client:
        return [one.record.index for one in (await client.query(wanted)).entries]


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
