"""A process that ends leaves its work to others: nothing waits for it, and nothing is answered by silence."""

import asyncio

import uvloop
from google.protobuf.wrappers_pb2 import StringValue
from nats.js import api

from countersign.installation.ports import LOOPBACK
from shared.bus import Bus, Delivery, connected
from support.links import Link
from support.nats_servers import NatsUnderTest
from support.waiting import WAIT_S_MAX, until

STREAM, CONSUMER, TEMPLATE = "ORDERS_LACRIS", "connector", "orders.{system}.{search}"
LOST_AFTER_S = 10 * WAIT_S_MAX
"""What is not handed back comes again after the test has failed."""
SUBJECT = "policy.evaluate"
ANSWER_S_MAX = 20.0


class Busy:
    """Works on the first that it is given until it is told to finish; takes note of the others."""

    def __init__(self) -> None:
        self.begun, self.may_finish = asyncio.Event(), asyncio.Event()
        self.given: asyncio.Queue[str] = asyncio.Queue()

    async def work(self, what: str) -> None:
        self.begun.set()
        await self.given.put(what)
        await self.may_finish.wait()

    async def take(self, delivery: Delivery) -> None:
        await self.work(delivery.data.decode())

    async def answer(self, request: StringValue) -> StringValue:
        await self.work(request.value)
        return request


async def order(bus: Bus, name: str) -> None:
    await bus.publish_durable(f"orders.lacris.{name}", name.encode(), name, TEMPLATE)


async def orders_to(bus: Bus, busy: Busy) -> None:
    await bus.consume(STREAM, CONSUMER, busy.take, 4, TEMPLATE)


async def test_what_comes_while_a_connector_finishes_goes_to_another(
    nats_server: NatsUnderTest,
) -> None:
    leaving, staying = Busy(), Busy()
    staying.may_finish.set()
    settings = nats_server.bus_settings("connector", "lacris")
    async with (
        connected(nats_server.bus_settings("service", "broker"), "broker") as broker,
        connected(settings, "connector-lacris") as other,
    ):
        await broker.ensure_stream(
            api.StreamConfig(
                name=STREAM,
                subjects=["orders.lacris.*"],
                retention=api.RetentionPolicy.WORK_QUEUE,
            )
        )
        await broker.ensure_consumer(
            STREAM,
            api.ConsumerConfig(
                durable_name=CONSUMER,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=LOST_AFTER_S,
            ),
        )
        one = await Bus.connect(settings, "connector-lacris")
        await orders_to(one, leaving)
        await order(broker, "first")
        async with asyncio.timeout(WAIT_S_MAX):
            await leaving.begun.wait()
        closing = asyncio.create_task(one.close())
        await orders_to(other, staying)
        for name in ("second", "third", "fourth"):
            await order(broker, name)
        async with asyncio.timeout(WAIT_S_MAX):
            later = {await staying.given.get() for _ in range(3)}
        leaving.may_finish.set()
        await closing
    assert later == {"second", "third", "fourth"}
    assert leaving.given.qsize() == 1


async def test_requests_while_a_service_finishes_are_answered_by_another(
    nats_server: NatsUnderTest,
) -> None:
    leaving, staying = Busy(), Busy()
    staying.may_finish.set()
    settings = nats_server.bus_settings("service", "policy")
    async with (
        connected(nats_server.bus_settings("service", "broker"), "broker") as broker,
        connected(settings, "policy") as other,
    ):
        one = await Bus.connect(settings, "policy")
        await one.serve(SUBJECT, "policy", StringValue, leaving.answer, 64)

        async def ask(what: str) -> str:
            asked = StringValue(value=what)
            return (await broker.request(SUBJECT, asked, StringValue, ANSWER_S_MAX)).value

        first = asyncio.create_task(ask("first"))
        async with asyncio.timeout(WAIT_S_MAX):
            await leaving.begun.wait()
        await other.serve(SUBJECT, "policy", StringValue, staying.answer, 64)
        closing = asyncio.create_task(one.close())
        leaving.may_finish.set()
        answers = []
        while not closing.done():
            answers += await asyncio.gather(*(ask(f"{number}") for number in range(8)))
        assert await first == "first"
        await closing
    assert answers
    assert not staying.given.empty()


def test_a_process_whose_bus_is_away_ends_all_the_same(nats_server: NatsUnderTest) -> None:
    async def leave(link: Link) -> None:
        settings = nats_server.bus_settings("service", "policy")
        there = settings.model_copy(update={"servers": (f"tls://{LOOPBACK}:{link.port}",)})
        bus = await Bus.connect(there, "policy")
        await bus.serve(SUBJECT, "policy", StringValue, Busy().answer, 64)
        link.cut()

        async def tried_in_vain() -> int:
            return bus._client._tried_in_vain

        # A connection that came to nothing is what the client then has.
        await until(tried_in_vain)
        await bus.close()

    with Link([nats_server.port]) as link:
        # Its loop, which the services have, says more of a connection that is gone than asyncio's.
        uvloop.run(leave(link))
