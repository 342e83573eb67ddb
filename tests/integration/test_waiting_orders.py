"""How many orders wait for a system, asked of a real NATS server."""

from datetime import UTC, datetime, timedelta
from typing import Final

from nats.js import api

from broker import waiting
from shared.bus import connected
from support.clocks import ClockThatStandsStill
from support.nats_servers import NatsUnderTest
from support.signals import Signals

ORDERS: Final = "orders.{system}.{search}"
SOON_S: Final = 300


async def test_orders_that_wait_are_counted_with_the_age_of_the_oldest(
    signals: Signals, nats_server: NatsUnderTest
) -> None:
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as broker:
        await broker.ensure_stream(
            api.StreamConfig(name="ORDERS_LACRIS", subjects=["orders.lacris.*"])
        )
        for search in ("1", "2"):
            await broker.publish_durable(f"orders.lacris.{search}", b"order", search, ORDERS)
        clock = ClockThatStandsStill(datetime.now(UTC) + timedelta(hours=1))
        # A system whose queue the bus does not have keeps no other from being counted.
        await waiting.look(broker, lambda: ["burbank", "lacris"], clock)
        points = signals.points()
        (orders,) = points["countersign.orders.waiting"]
        (age,) = points["countersign.orders.waiting.age"]
        assert (dict(orders.attributes), orders.value) == ({"system": "lacris"}, 2)
        assert 3600 - SOON_S < age.value < 3600 + SOON_S
        for search in ("1", "2"):
            await broker.purge("ORDERS_LACRIS", f"orders.lacris.{search}")
        await waiting.look(broker, lambda: ["lacris"], clock)
        points = signals.points()
        found = [points[f"countersign.orders.waiting{one}"][0].value for one in ("", ".age")]
        assert found == [0, 0]
