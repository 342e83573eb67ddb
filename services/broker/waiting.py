"""How many orders wait for each system, and for how long: what first shows that a connector is away."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from broker.given_up import count_from_zero
from broker.streams import orders_stream
from shared import telemetry
from shared.bus import Bus
from shared.clock import Clock
from shared.errors import ServiceError

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""Two questions to the bus for each system; scrapes come no more often."""

_orders = telemetry.meter.create_gauge(
    "countersign.orders.waiting",
    unit="{order}",
    description="Orders of a system that its connector has not finished",
)
_age = telemetry.meter.create_gauge(
    "countersign.orders.waiting.age",
    unit="s",
    description="How long the oldest of them has waited; 0 when there is none",
)


async def keep_looking(bus: Bus, systems: Callable[[], Iterable[str]], clock: Clock) -> None:
    """Look again and again, for ever. Every broker tells the same: take the greatest of them."""
    measured: set[str] = set()
    while True:
        if telemetry.switch.on:
            await look(bus, systems, clock, measured)
        await asyncio.sleep(LOOK_S)


async def look(
    bus: Bus, systems: Callable[[], Iterable[str]], clock: Clock, measured: set[str]
) -> None:
    """Measure every system's queue. One that cannot be asked keeps no other from being measured.

    `measured` are those that ever were: a system that no longer takes part has its queue emptied yet, and
    what was said of it last would be said for ever.
    """
    try:
        measured |= set(systems())
    except ServiceError:
        return  # who takes part is not known at the moment, and health says so
    for system in sorted(measured):
        count_from_zero(orders_stream(system))
        try:
            found = await bus.waiting(orders_stream(system))
        except ServiceError as error:
            log.debug(
                "waiting orders are not counted",
                extra={"fields": {"system": system, "why": error.message}},
            )
            continue
        oldest = found.oldest
        age_s = 0.0 if oldest is None else (clock.now() - oldest).total_seconds()
        _orders.set(found.messages, {"system": system})
        _age.set(max(0.0, age_s), {"system": system})
