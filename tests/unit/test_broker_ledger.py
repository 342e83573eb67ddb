"""Appends that travel together: each is answered for itself, and always."""

import asyncio

import pytest

from broker.ledger import Ledger
from broker.record import rejected_entry
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import RequestRejected
from shared.errors import Broken, InvalidRequest
from support.buses import BusInMemory
from support.waiting import WAIT_S_MAX


class LedgerThatRefusesOneEntry(BusInMemory):
    """Refuses any message that holds an entry with the reason BAD."""

    async def request(self, subject: str, message: object, *others: object) -> object:
        """Asks the ledger."""
        if b"BAD" in message.SerializeToString():  # type: ignore[attr-defined]  # a protobuf message
            raise InvalidRequest("ENTRY_TOO_LARGE", "the ledger does not take this entry")
        return await super().request(subject, message, *others)  # type: ignore[arg-type]


class LedgerThatBreaks(BusInMemory):
    """Fails in a way that is no expected error."""

    async def request(self, subject: str, message: object, *others: object) -> object:
        """Breaks."""
        raise RuntimeError("a bug")


def entry(reason: str) -> PendingEntry:
    return rejected_entry(RequestRejected(reason=reason), "", spent=True)


async def test_one_bad_entry_does_not_sink_those_it_travels_with() -> None:
    bus = LedgerThatRefusesOneEntry()
    ledger = Ledger(bus)  # type: ignore[arg-type]  # stands in for the real bus
    outcomes = await asyncio.gather(
        *(ledger.append(entry(reason)) for reason in ("ONE", "BAD", "TWO")), return_exceptions=True
    )
    assert isinstance(outcomes[1], InvalidRequest)
    assert [e.request_rejected.reason for e in bus.ledger.entries] == ["ONE", "TWO"]


async def test_nobody_waits_for_ever_for_an_append_that_broke() -> None:
    ledger = Ledger(LedgerThatBreaks())  # type: ignore[arg-type]  # stands in for the real bus
    async with asyncio.timeout(WAIT_S_MAX):
        with pytest.raises(Broken):
            await ledger.append(entry("ONE"))
