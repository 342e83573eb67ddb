"""The broker behind its real door: what the client's deadline reaches, and readers that do not read."""

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import pytest

from broker.limits import LimitSettings
from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import (
    BrokerServiceStub,
    add_BrokerServiceServicer_to_server,
)
from shared import rpc
from shared.errors import Overloaded, TooLate
from shared.settings import ListenSettings
from support.brokers import LAPD, BrokerOnTheTable
from support.doors import SERVICE, TRUST_DOMAIN, Pki
from support.waiting import until

CLIENT_DEADLINE_S: Final = 2.0
READERS: Final = 200
CHANGES: Final = 2000
GROWTH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Were each change kept for each reader, it would be hundreds of megabytes."""


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


@contextlib.asynccontextmanager
async def served(broker: BrokerOnTheTable, pki: Pki) -> AsyncIterator[grpc.aio.Channel]:
    """LAPD's channel to it."""
    running = await rpc.start_server(
        lambda server: add_BrokerServiceServicer_to_server(broker.servicer, server),
        services=[SERVICE],
        listen=ListenSettings(
            address="127.0.0.1:0", tls=pki.issue("service", "broker", listens=True)
        ),
        trust_domain=TRUST_DOMAIN,
        access={
            f"/{SERVICE}/{name}": lambda who: who.kind == "agency"
            for name in ("SubmitSearch", "CheckSearch", "WatchSearch", "ListSystems")
        },
        limit=broker.limits.call,
    )
    try:
        async with rpc.open_channel(f"127.0.0.1:{running.port}", pki.issue("agency", LAPD)) as own:
            yield own
    finally:
        await running.stop(0)


async def submit(channel: grpc.aio.Channel, request: pb.SubmitSearchRequest, **how: Any) -> str:
    try:
        response = await BrokerServiceStub(channel).SubmitSearch(request, **how)
    except grpc.aio.AioRpcError as error:
        raise rpc.service_error(error) from error
    return response.search.search_id


async def test_the_clients_deadline_reaches_policy_and_ledger(
    broker: BrokerOnTheTable, pki: Pki
) -> None:
    async with served(broker, pki) as channel:
        request = broker.request(broker.prepared())
        await submit(channel, request, timeout=CLIENT_DEADLINE_S)
        within_s = dict(broker.bus.begun_within_s)
        for subject in ("policy.evaluate", "ledger.append"):
            assert 0 < (within_s[subject] or 0) <= CLIENT_DEADLINE_S, subject
        await submit(channel, broker.request(broker.prepared()))
        for subject in ("policy.evaluate", "ledger.append"):
            assert (broker.bus.begun_within_s[subject] or 0) > CLIENT_DEADLINE_S, subject


@pytest.mark.promise(1)
async def test_an_entry_that_was_begun_when_the_client_gave_up_still_gets_its_order(
    broker: BrokerOnTheTable, pki: Pki
) -> None:
    go_on = asyncio.Event()

    async def slowly() -> None:
        await go_on.wait()

    broker.bus.before["ledger.append"] = slowly
    async with served(broker, pki) as channel:
        prepared = broker.prepared()
        with pytest.raises(TooLate):
            await submit(channel, broker.request(prepared), timeout=CLIENT_DEADLINE_S)
        go_on.set()

        async def sent() -> bool:
            return f"orders.lacris.{prepared.search_id}" in broker.bus.published

        assert await until(sent)
    assert broker.bus.ledger.kinds() == ["search_decided"]


async def test_readers_that_do_not_read_cost_no_memory(broker: BrokerOnTheTable, pki: Pki) -> None:
    """A watched search changes as often as it likes: what is not read is never kept."""
    prepared = broker.prepared()
    async with served(broker, pki) as channel:
        await submit(channel, broker.request(prepared))
        record = broker.known.get(prepared.search_id)
        assert record is not None
        watch = BrokerServiceStub(channel).WatchSearch
        # Nobody asks any of these streams for a message.
        calls = [watch(pb.WatchSearchRequest(search_id=record.search_id)) for _ in range(READERS)]

        async def all_watch() -> bool:
            return len(broker.known._changes.get(record.search_id, ())) == READERS

        await until(all_watch)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(CHANGES):
                broker.known.put(record)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < GROWTH_BYTES_MAX
        for call in calls:
            call.cancel()

        async def all_left() -> bool:
            return not broker.known._changes

        await until(all_left)


async def test_an_agency_past_its_limit_is_told_when_to_come_back(pki: Pki) -> None:
    limits = LimitSettings(agency_calls_per_s=0.5, agency_calls_burst=3)
    async with served(BrokerOnTheTable(limit_settings=limits), pki) as channel:
        systems = BrokerServiceStub(channel).ListSystems
        for _ in range(3):
            await systems(pb.ListSystemsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await systems(pb.ListSystemsRequest())
        refused = rpc.service_error(caught.value)
        assert (type(refused), refused.reason) == (Overloaded, "AGENCY_CALLS_LIMIT")
        assert refused.retry_after_s == pytest.approx(2)
