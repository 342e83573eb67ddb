"""What was referred to a peer and ended here without it comes back to the broker from a real ledger."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.ledger import Ledger
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1 import append_pb2
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_REFERRED
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus, connected
from support.databases import DatabaseUnderTest
from support.ledgers import LAPD, decided, failed, search_id, write_settings
from support.nats_servers import NatsUnderTest

TIMEOUT_S = 20


@pytest.fixture(name="bus")
async def _bus(
    tmp_path: Path, nats_server: NatsUnderTest, no_log: DatabaseUnderTest
) -> AsyncIterator[Bus]:
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server, no_log))
    over_the_bus = nats_server.bus_settings("service", "broker")
    async with running(settings), connected(over_the_bus, "broker") as bus:
        yield bus


async def append(bus: Bus, *pending: append_pb2.PendingEntry) -> None:
    request = append_pb2.AppendRequest(entries=pending)
    await bus.request("ledger.append", request, append_pb2.AppendResponse, TIMEOUT_S)


def referred(number: int, lasts_s: int = 900) -> append_pb2.PendingEntry:
    """The decision on a search that a peer is to decide further."""
    pending = decided(number)
    event = pending.entry.search_decided
    event.decision.outcome = DECISION_OUTCOME_REFERRED
    event.referred_to = "east.test"
    event.deadline.FromSeconds(int(time.time()) + lasts_s)
    return pending


def withdrawn(number: int, decided_index: int) -> append_pb2.PendingEntry:
    pending = append_pb2.PendingEntry(idempotency_key=f"end/{search_id(number)}")
    pending.entry.search_id = search_id(number)
    pending.entry.search_withdrawn.origin_agency = LAPD
    pending.entry.search_withdrawn.decided_index = decided_index
    return pending


def failed_at_peer(number: int, decided_index: int, reason: int) -> append_pb2.PendingEntry:
    pending = failed(number)
    pending.entry.search_failed.decided_index = decided_index
    pending.entry.search_failed.reason = reason  # type: ignore[assignment]  # one of them
    return pending


async def test_what_a_peer_may_still_run_is_told_to_the_broker_page_by_page(bus: Bus) -> None:
    ledger = Ledger(bus)
    await append(
        bus, *(referred(number) for number in range(5)), decided(5), referred(6, lasts_s=-1)
    )
    await append(
        bus,
        withdrawn(0, 0),
        failed_at_peer(1, 1, FailureReason.FAILURE_REASON_PEER_REJECTED),
        failed_at_peer(2, 2, FailureReason.FAILURE_REASON_PEER_REFUSED),
        withdrawn(5, 5),  # one of our own systems'
        withdrawn(6, 6),  # past its deadline
    )
    for start in range(1000, 1600, 200):  # more than is looked at in one go
        numbers = range(start, start + 200)
        await append(bus, *(failed(number) for number in numbers))
    await append(bus, withdrawn(3, 3))
    records, size = await ledger.taken_back(0, datetime.now(UTC))
    assert [record.search_id for record in records] == [search_id(n) for n in (3, 1, 0)]
    assert all(record.referred_to == "east.test" and record.ended for record in records)
    assert await ledger.taken_back(size, datetime.now(UTC)) == ([], size)
    await append(bus, withdrawn(4, 4))
    records, _ = await ledger.taken_back(size, datetime.now(UTC))
    assert [record.search_id for record in records] == [search_id(4)]
