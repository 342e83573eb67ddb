"""A system can be sent orders as soon as agencies are told of it, on a real server."""

import pytest

from broker.config import BrokerSettings
from broker.streams import OrderQueues, order_subject, orders_stream
from shared.bus import Bus, connected
from shared.errors import Unavailable
from support.brokers import BrokerOnTheTable
from support.nats_servers import NatsUnderTest

SETTINGS = BrokerSettings.model_construct(streams_replicas=1, orders_bytes_max=2**30)


async def send(bus: Bus, search: str) -> None:
    subject = order_subject("lacris", search)
    await bus.publish_durable(subject, b"an order", search, "orders.{system}.{search}")


async def test_a_queue_is_made_for_the_first_order_if_the_broker_did_not_come_to_it(
    nats_server: NatsUnderTest,
) -> None:
    as_broker = nats_server.bus_settings("service", "broker")
    async with connected(as_broker, "broker") as bus:
        queues = OrderQueues(bus, BrokerOnTheTable().participants.current, SETTINGS)
        with pytest.raises(Unavailable):
            await send(bus, "early")
        await queues.make("lacris")
        await queues.make("lacris")
        await send(bus, "late")
        assert (await bus.waiting(orders_stream("lacris"))).messages == 1
