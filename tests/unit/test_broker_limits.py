"""How much one agency and one officer may ask of a broker; what is too much leaves nothing behind."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from broker.limits import PEER_CALLS, LimitSettings
from countersign.broker.v1 import broker_pb2 as pb
from countersign.ledger.v1.entry_pb2 import RequestRejected
from shared.errors import NotAllowed, NotAuthentic, Overloaded, Unavailable
from shared.identity import SpiffeId
from shared.rejections import RATE
from support.brokers import LAPD, LASD, OFFICER, BrokerOnTheTable, own_case
from support.waiting import until


def broker_with(**limits: float) -> BrokerOnTheTable:
    return BrokerOnTheTable(limit_settings=LimitSettings.model_validate(limits))


async def submit(broker: BrokerOnTheTable, officer: str = OFFICER) -> str:
    prepared = broker.prepared()
    token = broker.provider.token(officer, prepared.search_id)
    await broker.searching.submit(broker.call(), prepared.request(token))
    return prepared.search_id


async def check(broker: BrokerOnTheTable, officer: str = OFFICER) -> None:
    facts = own_case()
    token = broker.provider.token(officer, facts.search_id)
    request = pb.CheckSearchRequest(facts=facts, officer_token=token)
    await broker.searching.check(broker.call(rpc="CheckSearch"), request)


async def refused_by(broker: BrokerOnTheTable, reason: str, officer: str = OFFICER) -> float:
    """Asks in both ways; gives the seconds that it is told to wait."""
    happened, entries = list(broker.bus.happened), len(broker.bus.ledger.entries)
    with pytest.raises(Overloaded) as caught:
        await submit(broker, officer)
    assert caught.value.reason == reason
    assert (broker.bus.happened, len(broker.bus.ledger.entries)) == (happened, entries)
    assert caught.value.retry_after_s
    return caught.value.retry_after_s


async def test_an_agency_that_searches_too_often_waits_and_then_gets_through() -> None:
    broker = broker_with(agency_searches_per_minute=60, agency_searches_burst=3)
    for officer in ("lapd-1", "lapd-2", "lapd-3"):
        await submit(broker, officer)
    wait_s = await refused_by(broker, "AGENCY_SEARCHES_LIMIT", "lapd-4")
    with pytest.raises(Overloaded):
        await check(broker, "lapd-4")
    broker.clock.advance(seconds=wait_s)
    await submit(broker, "lapd-4")


async def test_an_officer_who_searches_too_often_waits_and_nobody_else_does() -> None:
    broker = broker_with(officer_searches_per_minute=60, officer_searches_burst=2)
    await submit(broker)
    await check(broker)
    wait_s = await refused_by(broker, "OFFICER_SEARCHES_LIMIT")
    await submit(broker, "lapd-50999")
    broker.clock.advance(seconds=wait_s)
    await submit(broker)


@pytest.mark.parametrize("whose", ["agency", "officer"])
async def test_searches_without_an_end_are_bounded_until_they_end(whose: str) -> None:
    broker = broker_with(**{f"{whose}_in_flight_max": 2})
    first, _ = [await submit(broker) for _ in range(2)]
    await refused_by(broker, f"{whose.upper()}_IN_FLIGHT_LIMIT")
    await check(broker)  # a dry run is never in flight
    record = broker.known.get(first)
    assert record is not None
    await broker.ending.withdraw(record)
    await submit(broker)
    await refused_by(broker, f"{whose.upper()}_IN_FLIGHT_LIMIT")


async def test_a_search_that_is_in_flight_may_be_submitted_again_at_the_bound() -> None:
    broker = broker_with(agency_in_flight_max=1, officer_in_flight_max=1)
    request = broker.request(broker.prepared())
    first = await broker.searching.submit(broker.call(), request)
    assert await broker.searching.submit(broker.call(), request) == first


async def test_a_search_that_fails_to_be_decided_holds_no_place() -> None:
    broker = broker_with(agency_in_flight_max=1, officer_in_flight_max=1)
    broker.bus.ledger.lost = 3
    for _ in range(3):
        with pytest.raises(Unavailable):
            await submit(broker)
    await submit(broker)
    assert set(broker.known.in_flight.values()) == {1}


async def test_submissions_that_are_being_decided_count() -> None:
    broker = broker_with(officer_in_flight_max=2)
    go_on = asyncio.Event()

    async def slowly() -> None:
        await go_on.wait()

    broker.bus.before["ledger.append"] = slowly
    submitting = [asyncio.create_task(submit(broker)) for _ in range(5)]

    async def three_are_refused() -> bool:
        return sum(task.done() for task in submitting) == 3

    await until(three_are_refused)
    go_on.set()
    results = await asyncio.gather(*submitting, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 3


async def test_what_ended_at_another_broker_is_not_in_flight_here() -> None:
    here = broker_with(agency_in_flight_max=1)
    there = BrokerOnTheTable(
        bus=here.bus,
        clock=here.clock,
        order_key=here.order_key,
        provider_key=here.provider_key,
        connector_key=here.connector_key,
        sealing_key=here.sealing_key,
    )
    record = here.known.get(await submit(here))
    assert record is not None
    await there.ending.withdraw(record)
    await refused_by(here, "AGENCY_IN_FLIGHT_LIMIT")
    sweeping = asyncio.create_task(here.ending.keep_sweeping())

    async def closed() -> bool:
        return not here.known.open

    try:
        await until(closed)
    finally:
        sweeping.cancel()
    await submit(here)


@pytest.mark.promise(1)
async def test_calls_that_are_turned_away_cannot_fill_the_ledger() -> None:
    """A certificate and a bad token are all that it takes to try."""
    broker = broker_with(agency_searches_burst=100_000)
    prepared = broker.prepared()
    told = Counter[str]()
    for _ in range(RATE.burst * 5):
        with pytest.raises((NotAuthentic, Overloaded)) as caught:
            await broker.searching.submit(broker.call(), prepared.request("a.b.c"))
        told[caught.value.reason] += 1
    assert told == {"OFFICER_TOKEN_INVALID": RATE.burst, "REJECTED_TOO_OFTEN": RATE.burst * 4}
    assert caught.value.retry_after_s
    assert len(broker.bus.ledger.entries) == RATE.burst
    # Whoever is who they say is not kept waiting, and nor is another agency's mistake kept off the record.
    await submit(broker)
    with pytest.raises(NotAllowed):
        await broker.searching.submit(broker.call(LASD), broker.request(broker.prepared()))
    broker.clock.advance(seconds=1 / RATE.per_s)
    broker.bus.ledger.lost = 1
    with pytest.raises(Unavailable):
        await broker.searching.submit(broker.call(), prepared.request("a.b.c"))
    broker.clock.advance(seconds=1 / RATE.per_s)
    with pytest.raises(NotAuthentic):
        await broker.searching.submit(broker.call(), prepared.request("a.b.c"))
    *_, last = broker.bus.ledger.entries
    assert last.request_rejected.unrecorded_before == RATE.burst * 4, "the next says how many"


@pytest.mark.parametrize("to", ["none", "another systems search"])
async def test_answers_that_are_set_aside_cannot_fill_the_ledger_nor_the_log(
    caplog: pytest.LogCaptureFixture, to: str
) -> None:
    broker = broker_with()
    search_id = await submit(broker)
    signed = broker.answer(search_id)
    caplog.clear()

    async def stray() -> None:
        if to == "none":
            await broker.answers.take_in(broker.delivery(own_case().search_id, signed))
        else:
            await broker.answers.take_in(broker.delivery(search_id, signed, system="facefind"))

    for _ in range(RATE.burst * 3):
        await stray()
    rejected: list[RequestRejected] = [
        entry.request_rejected
        for entry in broker.bus.ledger.entries
        if entry.HasField("request_rejected")
    ]
    assert len(rejected) == RATE.burst
    assert caplog.messages == ["answer refused"] * RATE.burst
    broker.clock.advance(seconds=1 / RATE.per_s)
    await stray()
    assert caplog.records[-1].fields["unrecorded_before"] == RATE.burst * 2  # type: ignore[attr-defined]
    await broker.answers.take_in(broker.delivery(search_id, signed))
    assert broker.bus.ledger.kinds()[-1] == "search_answered"


def test_an_agency_that_calls_too_often_waits() -> None:
    broker = broker_with(agency_calls_per_s=10, agency_calls_burst=20)
    who = broker.call().caller
    for _ in range(20):
        broker.limits.call(who)
    with pytest.raises(Overloaded) as caught:
        broker.limits.call(who)
    assert caught.value.reason == "AGENCY_CALLS_LIMIT"
    broker.limits.call(broker.call(LASD).caller)
    broker.clock.time += timedelta(seconds=caught.value.retry_after_s or 0)
    broker.limits.call(who)


def test_the_limits_left_out_suit_a_state() -> None:
    limits = LimitSettings()
    day = 24 * 60
    assert limits.agency_searches_per_minute * day * 365 > 1_000_000
    assert limits.officer_searches_burst < limits.agency_searches_burst
    assert limits.officer_in_flight_max < limits.agency_in_flight_max
    assert LAPD


def test_peer_that_calls_too_often_is_refused_and_no_other() -> None:
    broker = BrokerOnTheTable()
    west, north = (SpiffeId(name, "service", "broker") for name in ("west.test", "north.test"))
    for _ in range(PEER_CALLS.burst):
        broker.limits.peer(west)
    with pytest.raises(Overloaded) as refused:
        broker.limits.peer(west)
    assert refused.value.reason == "PEER_CALLS_LIMIT"
    broker.limits.peer(north)
    broker.clock.advance(seconds=1 / PEER_CALLS.per_s)
    broker.limits.peer(west)
