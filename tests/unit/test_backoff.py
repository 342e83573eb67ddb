"""What fails is tried again ever later, up to a bound, and not by everybody at once."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from broker import answers, ending, referring, streams
from broker.at_once import AtOnce
from broker.config import BrokerSettings
from broker.record import Record
from broker.streams import OrderQueues
from connector import orders as connector_orders
from connector.runs import RunStore
from countersign.broker.v1 import broker_pb2 as pb
from countersign.client import calls
from countersign.client.calls import Client
from countersign.ledger.v1.entry_pb2 import Entry
from shared import backoff
from shared.backoff import Backoff, PutOff, jittered
from shared.bus import Bus, Retry
from shared.errors import Unavailable
from support.backoffs import STEP_S, TIMES, NoWait, assert_backs_off
from support.brokers import BrokerOnTheTable
from support.connectors import BusThatKeeps, SystemThatAnswers, delivery, orders
from support.orders import OrderWorkshop
from support.peers import PeerThatKnowsNothing
from support.referrals import EAST, ReferralWorkshop


def test_waits_double_up_to_the_bound() -> None:
    by = Backoff(first_s=1, most_s=10)
    assert_backs_off([by.wait_s(number + 1) for number in range(TIMES)], by)
    assert 5 <= by.wait_s(1_000_000) <= 10
    assert len({jittered(1) for _ in range(TIMES)}) > 1


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of what was put off, in the list's only place."""
    now = [1000.0]
    monkeypatch.setattr(backoff, "monotonic", lambda: now[0])
    return now


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


async def test_an_order_comes_again_ever_later_while_the_bus_takes_no_answer(
    tmp_path: Path,
) -> None:
    workshop, runs = OrderWorkshop(), RunStore(tmp_path / "runs.sqlite")
    desk = orders(workshop, SystemThatAnswers(), runs, BusThatKeeps(failures=TIMES))
    order = delivery(workshop.sign(workshop.order()))
    waits_s = []
    for number in range(TIMES):
        with pytest.raises(Retry) as again:
            await desk.take(replace(order, deliveries=number + 1))
        waits_s.append(again.value.delay_s)
    await runs.close()
    assert_backs_off(waits_s, connector_orders.AGAIN)


async def test_an_answer_comes_again_ever_later_while_the_ledger_takes_it_not(
    broker: BrokerOnTheTable,
) -> None:
    prepared = broker.prepared()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    answer = broker.delivery(prepared.search_id, broker.answer(prepared.search_id))
    broker.bus.ledger.lost = TIMES
    waits_s = []
    for number in range(TIMES):
        with pytest.raises(Retry) as again:
            await broker.answers.take_in(replace(answer, deliveries=number + 1))
        waits_s.append(again.value.delay_s)
    assert_backs_off(waits_s, answers.AGAIN)


async def test_the_end_of_a_search_is_tried_ever_later_while_the_ledger_takes_it_not(
    broker: BrokerOnTheTable, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "SWEEP_S", 0)
    prepared = broker.prepared()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    broker.clock.advance(minutes=16)
    broker.bus.ledger.lost = TIMES
    tried_at = []

    async def tried() -> None:
        tried_at.append(clock[0])

    broker.bus.before["ledger.append"] = tried
    sweeping = asyncio.create_task(broker.ending.keep_sweeping())
    while broker.known.open:
        clock[0] += STEP_S
        await asyncio.sleep(0)
    sweeping.cancel()
    waits_s = [later - earlier for earlier, later in pairwise(tried_at)]
    assert len(waits_s) == TIMES
    for number, wait_s in enumerate(waits_s):
        assert wait_s >= min(ending.AGAIN.most_s, ending.AGAIN.first_s * 2**number) / 2


class BusWithoutRoom:
    """Makes no stream until it `has_room`."""

    def __init__(self) -> None:
        self.asked = 0
        self.has_room = False

    async def ensure_stream(self, *_: object) -> None:
        """Refuses before."""
        self.asked += 1
        if not self.has_room:
            raise Unavailable("BUS_UNAVAILABLE", "no account has it")

    async def ensure_consumer(self, *_: object) -> None:
        """Is made when there is a stream."""


async def test_a_queue_that_the_bus_refused_is_tried_again_ever_later(
    broker: BrokerOnTheTable, clock: list[float]
) -> None:
    bus = BusWithoutRoom()
    settings = BrokerSettings.model_construct(streams_replicas=1, orders_bytes_max=2**30)
    queues = OrderQueues(as_bus(bus), broker.participants.current, settings)
    at: list[float] = []
    while len(at) < TIMES:
        before = bus.asked
        await queues.make("lacris")
        if bus.asked > before:
            at.append(clock[0])
        clock[0] += STEP_S
    waits_s = [later - earlier for earlier, later in pairwise(at)]
    assert_backs_off(waits_s, streams.QUEUES_AGAIN)
    bus.has_room, clock[0] = True, clock[0] + streams.QUEUES_AGAIN.most_s
    await queues.make("lacris")
    made = bus.asked
    await queues.make("lacris")
    assert bus.asked == made


def as_bus(bus: object) -> Bus:
    """For what asks for the real one."""
    return bus  # type: ignore[return-value]


async def nothing(_: Record) -> None:
    """What is done for a search."""


def test_a_peer_that_is_away_is_left_alone_ever_longer_and_others_are_not(
    clock: list[float],
) -> None:
    away, waits_s = PutOff(referring.AGAIN), []
    for _ in range(TIMES):
        # Whatever was under way at once fails at once, and is one failure.
        for _ in range(64):
            away.failed("east.test")
        failed_at = clock[0]
        while not away.is_due("east.test"):
            assert away.is_due("north.test")
            clock[0] += STEP_S
        waits_s.append(clock[0] - failed_at)
    assert_backs_off(waits_s, referring.AGAIN)
    away.succeeded("east.test")
    away.failed("east.test")
    clock[0] += referring.AGAIN.first_s
    assert away.is_due("east.test"), "it had been heard: this was the first failure"


async def test_nothing_is_begun_at_a_peer_that_is_not_due(clock: list[float]) -> None:
    away = PutOff(referring.AGAIN)
    following = AtOnce(64, away)
    record = Record.from_receipts(ReferralWorkshop().referred().decision_receipt, None)
    away.failed(record.referred_to)
    assert not following.start(record, nothing)
    clock[0] += referring.AGAIN.first_s
    assert following.start(record, nothing)
    await following.stop()


class PeerThatStaysAway(PeerThatKnowsNothing):
    """Is out of reach, and notes when it was tried."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.tried_at: list[float] = []
        self._clock = clock

    async def withdraw(self, search_id: str) -> pb.Search:
        """Hears nothing."""
        self.tried_at.append(self._clock[0])
        raise Unavailable("PEER", "out of reach")


async def test_a_peer_that_is_away_is_told_of_a_withdrawal_ever_later(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referring, "FOLLOW_S", 0)
    client = PeerThatStaysAway(clock)
    broker = BrokerOnTheTable(peers=(ReferralWorkshop().east_as_peer,), clients={EAST: client})

    def later(entry: Entry) -> None:
        entry.search_decided.deadline.seconds = int(broker.clock.now().timestamp()) + 900

    referred = ReferralWorkshop().referred(later).decision_receipt
    await broker.referring.withdraw(Record.from_receipts(referred, None))
    async with broker.referring.following(asyncio.Event()):
        while len(client.tried_at) <= TIMES:
            clock[0] += STEP_S
            await asyncio.sleep(0)
    waits_s = [later - earlier for earlier, later in pairwise(client.tried_at)]
    assert_backs_off(waits_s, referring.AGAIN)


class BrokerThatWasAway(Client):
    """Is to be had after some calls."""

    def __init__(
        self, channel: grpc.aio.Channel, broker: BrokerOnTheTable, fails: list[bool]
    ) -> None:
        super().__init__(channel, broker.trust)
        self._fails = iter(fails)

    async def get(self, search_id: str, wait_s: float = 0) -> pb.Search:
        """Fails as it was told."""
        fails = next(self._fails, None)
        if fails:
            raise Unavailable("BROKER_UNAVAILABLE", "away")
        state = pb.SEARCH_STATE_ANSWERED if fails is None else pb.SEARCH_STATE_PENDING
        return pb.Search(search_id=search_id, state=state)


async def test_a_client_that_waits_asks_ever_later_while_its_broker_is_away(
    broker: BrokerOnTheTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "AGAIN", waited := NoWait())
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        client = BrokerThatWasAway(channel, broker, [True, True, True, False, True])
        assert (await client.wait("a search")).state == pb.SEARCH_STATE_ANSWERED
    assert waited.asked == [1, 2, 3, 1]
