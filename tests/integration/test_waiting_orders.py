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
        before: set[str] = set()
        await waiting.look(broker, lambda: ["burbank", "lacris"], clock, before)
        waiting_now, age = measured(signals)
        assert waiting_now == 2
        assert 3600 - SOON_S < age < 3600 + SOON_S
        for search in ("1", "2"):
            await broker.purge("ORDERS_LACRIS", f"orders.lacris.{search}")
        # Its queue is there though it no longer takes part.
        await waiting.look(broker, lambda: ["burbank"], clock, before)
        assert measured(signals) == [0, 0]


def measured(signals: Signals) -> list[float]:
    """Orders that wait for LACRIS, and the age of the oldest; other tests may have left other systems."""
    points = signals.points()
    return [
        point.value
        for what in ("", ".age")
        for point in points[f"countersign.orders.waiting{what}"]
        if point.attributes["system"] == "lacris"
    ]
