"""The broker's lists and look-ups, page by page and agency by agency."""

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.rpc import Context
from support.brokers import LAPD, LASD, BrokerOnTheTable
from support.waiting import WAIT_S_MAX


@dataclass
class CallFrom:
    """As much of a gRPC context as tells the caller."""

    agency: str

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the TLS handshake found in the certificate."""
        uri = f"spiffe://countersign.test/agency/{self.agency}".encode()
        return {"x509_subject_alternative_name": [uri]}


def call_from(agency: str) -> Context:
    return cast(Context, CallFrom(agency))


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


async def submitted(broker: BrokerOnTheTable, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        prepared = broker.prepared()
        await broker.searching.submit(broker.call(), broker.request(prepared))
        ids.append(prepared.search_id)
    return ids


async def test_pages_hold_every_search_once_newest_first(broker: BrokerOnTheTable) -> None:
    ids = await submitted(broker, 125)
    seen: list[str] = []
    request = pb.ListSearchesRequest(page_size=200)
    while True:
        page = await broker.servicer.ListSearches(request, call_from(LAPD))
        seen += [search.search_id for search in page.searches]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == ids[::-1]


@pytest.mark.promise(7)
async def test_an_agency_lists_and_gets_its_own_searches_only(broker: BrokerOnTheTable) -> None:
    (search_id,) = await submitted(broker, 1)
    listed = await broker.servicer.ListSearches(pb.ListSearchesRequest(), call_from(LASD))
    assert not listed.searches
    for ask in (
        broker.servicer.GetSearch(pb.GetSearchRequest(search_id=search_id), call_from(LASD)),
        broker.servicer.CancelSearch(pb.CancelSearchRequest(search_id=search_id), call_from(LASD)),
    ):
        with pytest.raises(NotFound):
            await ask
    mine = await broker.servicer.GetSearch(
        pb.GetSearchRequest(search_id=search_id), call_from(LAPD)
    )
    assert mine.search.state == pb.SEARCH_STATE_PENDING


@pytest.mark.parametrize("asks", ["waits", "watches"])
async def test_what_another_broker_ended_is_never_told_as_open(
    broker: BrokerOnTheTable, asks: str
) -> None:
    (search_id,) = await submitted(broker, 1)
    other = broker.replica()
    decided = await other.ledger.look_up(search_id)
    assert decided is not None
    await other.ending.withdraw(decided)
    if asks == "waits":
        request = pb.GetSearchRequest(search_id=search_id)
        request.wait.FromMilliseconds(1)
        got = await broker.servicer.GetSearch(request, call_from(LAPD))
        told = [got.search.state]
    else:
        watched = pb.WatchSearchRequest(search_id=search_id)
        states = broker.servicer.WatchSearch(watched, call_from(LAPD))
        told = [one.search.state async for one in states]
    assert told == [pb.SEARCH_STATE_WITHDRAWN]


async def test_a_wait_ends_soon_after_another_broker_has_ended_the_search(
    broker: BrokerOnTheTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.service.WATCH_POLL_S", 0.02)
    (search_id,) = await submitted(broker, 1)
    request = pb.GetSearchRequest(search_id=search_id)
    request.wait.FromSeconds(10 * int(WAIT_S_MAX))
    waiting = asyncio.create_task(broker.servicer.GetSearch(request, call_from(LAPD)))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done(), "it is open, whatever is asked of the ledger meanwhile"
    other = broker.replica()
    decided = await other.ledger.look_up(search_id)
    assert decided is not None
    await other.ending.withdraw(decided)
    async with asyncio.timeout(WAIT_S_MAX):
        assert (await waiting).search.state == pb.SEARCH_STATE_WITHDRAWN


async def test_nobody_waits_for_an_end_at_a_broker_that_stops(broker: BrokerOnTheTable) -> None:
    (search_id,) = await submitted(broker, 1)
    request = pb.GetSearchRequest(search_id=search_id)
    request.wait.FromSeconds(10 * int(WAIT_S_MAX))
    getting = asyncio.ensure_future(broker.servicer.GetSearch(request, call_from(LAPD)))
    watched = broker.servicer.WatchSearch(
        pb.WatchSearchRequest(search_id=search_id), call_from(LAPD)
    )
    assert (await anext(watched)).search.state == pb.SEARCH_STATE_PENDING
    watching = asyncio.ensure_future(anext(watched))
    await asyncio.wait({getting}, timeout=0.1)
    broker.known.stop()
    async with asyncio.timeout(WAIT_S_MAX):
        assert (await getting).search.state == pb.SEARCH_STATE_PENDING
        with pytest.raises(Unavailable) as told:
            await watching
    assert told.value.reason == "BROKER_STOPPING"
    assert told.value.retry_after_s


@pytest.mark.parametrize("token", ["x", "djE6LTE=", "djI6MQ==", "djE6MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="])
async def test_a_page_token_that_was_not_given_is_refused(
    broker: BrokerOnTheTable, token: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await broker.servicer.ListSystems(pb.ListSystemsRequest(page_token=token), call_from(LAPD))
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


async def test_get_that_waits_is_held_until_the_end(broker: BrokerOnTheTable) -> None:
    (search_id,) = await submitted(broker, 1)
    request = pb.GetSearchRequest(search_id=search_id)
    request.wait.FromSeconds(30)
    waiting = asyncio.create_task(broker.servicer.GetSearch(request, call_from(LAPD)))
    await asyncio.sleep(0)
    assert not waiting.done()
    delivery = broker.delivery(search_id, broker.answer(search_id))
    await broker.answers.take_in(delivery)
    async with asyncio.timeout(WAIT_S_MAX):
        ended = await waiting
    assert ended.search.state == pb.SEARCH_STATE_ANSWERED
    assert ended.search.HasField("answer")
