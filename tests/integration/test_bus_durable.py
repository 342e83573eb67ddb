"""Durable messages over a real NATS server that keeps them on disk, and is killed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats.js.errors
import pytest
from nats.js import api

from broker.given_up import hear_of_given_up
from shared import nats_client
from shared.bus import Bus, Delivery, Poison, Retry, connected
from shared.errors import Unavailable
from shared.stored import Stored
from support.backoffs import NoWait
from support.nats_servers import NatsUnderTest
from support.signals import Signals
from support.waiting import until

STREAM, CONSUMER = "ORDERS_LACRIS", "connector"
TEMPLATE = "orders.{system}.{search}"
TIMEOUT_S = 30.0
ACK_WAIT_S = 1.0
"""How long the server waits before it takes a delivery for lost; in production a minute."""

STREAM_CONFIG = api.StreamConfig(
    name=STREAM,
    subjects=["orders.lacris.*"],
    retention=api.RetentionPolicy.WORK_QUEUE,
    duplicate_window=600,
)
CONSUMER_CONFIG = api.ConsumerConfig(
    durable_name=CONSUMER, ack_policy=api.AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S, max_deliver=5
)


@pytest.fixture
async def broker(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as bus:
        yield bus


@pytest.fixture
async def orders(broker: Bus) -> Bus:
    """The broker, once there is a queue of orders."""
    await broker.ensure_stream(STREAM_CONFIG)
    await broker.ensure_consumer(STREAM, CONSUMER_CONFIG)
    return broker


@pytest.fixture
async def connector(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    settings = nats_server.bus_settings("connector", "lacris")
    async with connected(settings, "connector-lacris") as bus:
        yield bus


async def test_the_first_messages_of_a_subject_come_oldest_first(orders: Bus) -> None:
    for name in ("one", "other"):
        await publish(orders, name)
    subject = "orders.lacris.one"
    assert await orders.first_messages(STREAM, subject, 8) == [Stored(1, b"one")]
    await publish(orders, "one", message_id="again")
    assert await orders.first_messages(STREAM, subject, 8) == [Stored(1, b"one"), Stored(3, b"one")]
    assert await orders.first_messages(STREAM, subject, 1) == [Stored(1, b"one")]
    assert await orders.first_messages(STREAM, "orders.lacris.none", 8) == []


async def publish(bus: Bus, name: str, message_id: str = "") -> None:
    await bus.publish_durable(
        f"orders.lacris.{name}", name.encode(), message_id or name, "orders.{system}.{search}"
    )


class Received:
    """What a consumer was handed, and what it then does."""

    def __init__(self, then: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._then = then
        self._changed = asyncio.Event()

    async def handle(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._changed.set()
        if self._then:
            await self._then(delivery)

    def names(self) -> list[str]:
        return [delivery.data.decode() for delivery in self.deliveries]

    async def count(self, number: int) -> None:
        """Returns once so many came."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.deliveries) < number:
                self._changed.clear()
                await self._changed.wait()


async def waiting(bus: Bus) -> int:
    """How many messages the queue holds, unfinished ones included."""
    info = await bus._jetstream.stream_info(STREAM)
    return int(info.state.messages)


async def emptied(bus: Bus) -> None:
    async def is_empty() -> bool:
        try:
            return await waiting(bus) == 0
        except (nats.errors.Error, TimeoutError):
            return False

    assert await until(is_empty)


async def cut_off(bus: Bus) -> None:
    async def is_cut_off() -> bool:
        return not bus.is_connected

    assert await until(is_cut_off)


async def consume(bus: Bus, received: Received, in_flight_max: int = 4) -> None:
    await bus.consume(STREAM, CONSUMER, received.handle, in_flight_max, TEMPLATE)


async def test_message_is_handled_and_gone(orders: Bus, connector: Bus) -> None:
    received = Received()
    await consume(connector, received)
    await publish(orders, "one")
    await received.count(1)
    (delivery,) = received.deliveries
    assert (delivery.subject, delivery.data, delivery.deliveries) == (
        "orders.lacris.one",
        b"one",
        1,
    )
    await emptied(orders)


async def test_message_published_twice_is_kept_once(orders: Bus) -> None:
    await publish(orders, "one")
    await publish(orders, "one")
    await publish(orders, "two", message_id="one")
    assert await waiting(orders) == 1


async def test_message_that_no_stream_holds_is_not_taken(broker: Bus) -> None:
    with pytest.raises(Unavailable) as caught:
        await publish(broker, "one")
    assert caught.value.reason == "BUS_UNAVAILABLE"


async def test_queue_that_is_full_takes_no_more(orders: Bus) -> None:
    full = STREAM_CONFIG.evolve(max_msgs=1, discard=api.DiscardPolicy.NEW)
    await orders.ensure_stream(full)
    await publish(orders, "one")
    with pytest.raises(Unavailable):
        await publish(orders, "two")


async def test_streams_and_consumers_may_be_ensured_again_and_changed(orders: Bus) -> None:
    await orders.ensure_stream(STREAM_CONFIG)
    await orders.ensure_stream(STREAM_CONFIG.evolve(max_msgs=7))
    await orders.ensure_consumer(STREAM, CONSUMER_CONFIG)
    await orders.ensure_consumer(STREAM, CONSUMER_CONFIG.evolve(ack_wait=7))
    info = await orders._jetstream.stream_info(STREAM)
    assert info.config.max_msgs == 7


async def test_newest_message_of_a_subject_is_found_until_it_is_purged(orders: Bus) -> None:
    assert await orders.last_message(STREAM, "orders.lacris.one") is None
    await publish(orders, "one")
    await publish(orders, "two")
    assert await orders.last_message(STREAM, "orders.lacris.one") == b"one"
    await orders.purge(STREAM, "orders.lacris.one")
    assert await orders.last_message(STREAM, "orders.lacris.one") is None
    assert await waiting(orders) == 1


async def test_retry_brings_it_again(orders: Bus, connector: Bus) -> None:
    async def at_the_second_time(delivery: Delivery) -> None:
        if delivery.deliveries < 2:
            raise Retry(0.01)

    received = Received(at_the_second_time)
    await consume(connector, received)
    await publish(orders, "one")
    await received.count(2)
    assert [delivery.deliveries for delivery in received.deliveries] == [1, 2]
    await emptied(orders)


async def test_poison_is_set_aside(orders: Bus, connector: Bus) -> None:
    async def refuses(delivery: Delivery) -> None:
        if delivery.data == b"bad":
            raise Poison

    received = Received(refuses)
    await consume(connector, received)
    await publish(orders, "bad")
    await publish(orders, "good")
    await emptied(orders)
    assert sorted(received.names()) == ["bad", "good"]


async def test_orders_that_the_bus_gives_up_are_counted_and_logged(
    orders: Bus, connector: Bus, signals: Signals
) -> None:
    async def fails(delivery: Delivery) -> None:
        if delivery.data == b"refused":
            raise Poison
        raise Retry(0.01)

    await hear_of_given_up(orders)
    await consume(connector, Received(fails))
    await publish(orders, "failed")
    await publish(orders, "refused")

    async def both() -> bool:
        return len(given_up(signals)) == 2

    await until(both)
    stream = {"stream": STREAM}
    assert given_up(signals) == [
        {**stream, "why": "delivered too often", "deliveries": 5, "search_id": "failed"},
        {**stream, "why": "refused by its connector", "deliveries": 1},
    ]
    counted = signals.points()["countersign.orders.given_up"]
    assert sorted((dict(point.attributes)["why"], point.value) for point in counted) == [
        ("delivered too often", 1),
        ("refused by its connector", 1),
    ]


def given_up(signals: Signals) -> list[dict[str, Any]]:
    """What was logged of orders that were given up, by the reason."""
    said = ("stream", "why", "deliveries", "search_id")
    lines = [line for line in signals.lines if line["message"] == "order given up"]
    return sorted(
        ({key: line[key] for key in said if key in line} for line in lines),
        key=lambda line: str(line["why"]),
    )


async def test_bug_in_a_handler_brings_it_again_and_hinders_no_other(
    orders: Bus, connector: Bus
) -> None:
    async def breaks_once(delivery: Delivery) -> None:
        if delivery.data == b"bad" and delivery.deliveries == 1:
            raise ValueError("a bug")

    received = Received(breaks_once)
    await consume(connector, received)
    await publish(orders, "bad")
    await publish(orders, "good")
    await emptied(orders)
    assert sorted(received.names()) == ["bad", "bad", "good"]


async def test_no_more_are_handled_at_once_than_allowed(orders: Bus, connector: Bus) -> None:
    at_once, most = 0, 0

    async def takes_turns(_: Delivery) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _turn in range(10):
            await asyncio.sleep(0)
        at_once -= 1

    received = Received(takes_turns)
    for number in range(30):
        await publish(orders, f"n{number}")
    await consume(connector, received, in_flight_max=3)
    await emptied(orders)
    assert most == 3
    assert len(set(received.names())) == 30


async def test_order_that_is_worked_on_is_not_brought_again(orders: Bus, connector: Bus) -> None:
    """The handler takes longer than the server waits, and says that it is alive."""
    loop = asyncio.get_running_loop()

    async def takes_long(delivery: Delivery) -> None:
        done_at = loop.time() + 2.5 * ACK_WAIT_S

        async def is_done() -> bool:
            await delivery.in_progress()
            return loop.time() >= done_at

        await until(is_done)

    received = Received(takes_long)
    await consume(connector, received)
    await publish(orders, "long")
    await emptied(orders)
    assert received.names() == ["long"]


async def test_consumer_may_start_before_its_queue_is_made(broker: Bus, connector: Bus) -> None:
    received = Received()
    await consume(connector, received)
    await broker.ensure_stream(STREAM_CONFIG)
    await broker.ensure_consumer(STREAM, CONSUMER_CONFIG)
    await publish(broker, "one")
    await received.count(1)


async def test_waiting_order_survives_a_killed_server_and_comes_after_it(
    nats_server: NatsUnderTest, orders: Bus, connector: Bus
) -> None:
    await publish(orders, "before")
    nats_server.kill()
    nats_server.start()
    received = Received()
    await consume(connector, received)
    await received.count(1)
    assert received.names()[0] == "before"
    await emptied(orders)


async def test_order_in_hand_when_the_server_is_killed_comes_again(
    nats_server: NatsUnderTest, orders: Bus, connector: Bus
) -> None:
    go_on = asyncio.Event()

    async def waits(_: Delivery) -> None:
        await go_on.wait()

    received = Received(waits)
    await consume(connector, received)
    await publish(orders, "in-hand")
    await received.count(1)
    nats_server.kill()
    await cut_off(connector)
    go_on.set()  # its acknowledgement goes nowhere
    nats_server.start()
    await received.count(2)
    assert set(received.names()) == {"in-hand"}
    await emptied(orders)


async def test_consumer_goes_on_after_each_of_several_restarts(
    nats_server: NatsUnderTest, orders: Bus, connector: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_client, "RECONNECT", waited := NoWait(takes_s=0.05))
    received = Received()
    await consume(connector, received)
    for number in range(3):
        nats_server.kill()
        await cut_off(orders)
        nats_server.start()

        async def published(name: str = f"n{number}") -> bool:
            try:
                await publish(orders, name)
            except Unavailable:
                return False
            return True

        assert await until(published)
        await received.count(number + 1)
    await emptied(orders)
    assert set(received.names()) == {"n0", "n1", "n2"}
    assert waited.asked.count(1) >= 2, "after each return it begins with the shortest wait"


async def test_publishing_without_a_server_fails_at_once_and_leaves_nothing_behind(
    nats_server: NatsUnderTest, orders: Bus
) -> None:
    nats_server.kill()
    await cut_off(orders)
    with pytest.raises(Unavailable):
        await publish(orders, "never")
    nats_server.start()

    async def now() -> int:
        try:
            await publish(orders, "now")
            return await waiting(orders)
        except (Unavailable, nats.errors.Error, TimeoutError):
            return 0

    assert await until(now) == 1
    assert await orders.last_message(STREAM, "orders.lacris.never") is None


async def test_stopped_consumer_takes_no_more(nats_server: NatsUnderTest, orders: Bus) -> None:
    settings = nats_server.bus_settings("connector", "lacris")
    received = Received()
    async with connected(settings, "connector-lacris") as first:
        await consume(first, received)
        await publish(orders, "one")
        await received.count(1)
        await emptied(orders)
    await publish(orders, "two")
    assert received.names() == ["one"]
    assert await waiting(orders) == 1
