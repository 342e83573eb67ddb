"""The durable streams of the bus: orders to each system, answers from all."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from nats.js import api

from broker.config import BrokerSettings
from broker.participants import Participants
from shared.backoff import Backoff, PutOff
from shared.bus import Bus
from shared.errors import Unavailable

log = logging.getLogger(__name__)

ANSWERS_STREAM: Final = "ANSWERS"
ANSWERS_CONSUMER: Final = "broker"
ORDERS_CONSUMER: Final = "connector"
DUPLICATE_WINDOW: Final = timedelta(minutes=10)
"""A client that retries within it cannot make a second order."""
ACK_WAIT: Final = timedelta(seconds=60)
"""A connector that says nothing for so long has lost the order; it is delivered again."""
DELIVERIES_MAX: Final = 1000
"""An order is tried again until its deadline, also through a long outage of bus or disk; this only
bounds what breaks its connector each time."""
ORDERS_IN_FLIGHT_MAX: Final = 256
QUEUES_POLL_S: Final = 0.5
"""How soon a system that is registered while the broker runs can be sent an order."""
QUEUES_AGAIN: Final = Backoff(first_s=1.0, most_s=30.0)
"""After the bus did not let us make one: until its configuration has the system, it will not."""
ANSWERS_BYTES_MAX: Final = 4 * 1024**3
ANSWER_BYTES_MAX: Final = 256 * 1024
"""Fifty candidates take a twentieth of it. All systems share the stream, and none may fill it in no time."""
ANSWERS_DUPLICATE_WINDOW: Final = timedelta(milliseconds=100)
"""The least that the server takes. For so long it keeps each message's id in memory, whatever a connector
publishes, up to 64 KiB and also of what was taken off; and one's id would keep out another's answer.
An answer that is published again, within seconds at the soonest, does no harm: the first is on record."""
ANSWERS_OF_A_SEARCH_MAX: Final = 8
"""A connector publishes one; a few more if it has lost its record, or was sent forged orders."""


def orders_stream(system: str) -> str:
    """Name of the stream with a system's orders."""
    return f"ORDERS_{system.upper().replace('-', '_')}"


def order_subject(system: str, search_id: str) -> str:
    """Subject of one order."""
    return f"orders.{system}.{search_id}"


def answer_subject(system: str, search_id: str) -> str:
    """Subject of one answer."""
    return f"answers.{system}.{search_id}"


async def ensure_orders(bus: Bus, system: str, settings: BrokerSettings) -> None:
    """Makes the work queue of one system. Raises Unavailable."""
    stream = orders_stream(system)
    await bus.ensure_stream(
        api.StreamConfig(
            name=stream,
            subjects=[f"orders.{system}.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            discard=api.DiscardPolicy.NEW,
            storage=api.StorageType.FILE,
            num_replicas=settings.streams_replicas,
            max_bytes=settings.orders_bytes_max,
            max_age=timedelta(days=7).total_seconds(),
            duplicate_window=DUPLICATE_WINDOW.total_seconds(),
        )
    )
    await bus.ensure_consumer(
        stream,
        api.ConsumerConfig(
            durable_name=ORDERS_CONSUMER,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT.total_seconds(),
            max_deliver=DELIVERIES_MAX,
            max_ack_pending=ORDERS_IN_FLIGHT_MAX,
        ),
    )


class OrderQueues:
    """Makes the queue of each system as soon as that is registered."""

    def __init__(
        self, bus: Bus, current: Callable[[], Participants], settings: BrokerSettings
    ) -> None:
        self._bus = bus
        self._current = current
        self._settings = settings
        self._made: set[str] = set()
        self._put_off = PutOff(QUEUES_AGAIN)
        """Systems of which the bus took no queue."""
        self.tried = asyncio.Event()
        """Set once those that are registered at first have their queues, as far as the bus lets us."""

    async def make(self, system: str) -> None:
        """Has it made now, if it is not and was not refused lately: agencies are told of a system before."""
        if system not in self._made and self._put_off.is_due(system):
            await self._make(system)

    async def keep(self) -> None:
        """Look again and again. Never ends by itself."""
        while True:
            await self._make_new()
            await asyncio.sleep(QUEUES_POLL_S)

    async def _make_new(self) -> None:
        try:
            systems = self._current().registry.systems.keys() - self._made
        except Unavailable:
            return
        for system in sorted(systems):
            await self.make(system)
        self.tried.set()

    async def _make(self, system: str) -> None:
        try:
            await ensure_orders(self._bus, system, self._settings)
            self._made.add(system)
        except Unavailable as error:
            # An owner has registered it; the operator gives it an account on the bus.
            fields = {"system": system, "why": error.message}
            log.warning("a system has no queue on the bus", extra={"fields": fields})
            self._put_off.failed(system)


async def ensure_answers(bus: Bus, settings: BrokerSettings) -> None:
    """Makes the stream of answers, from which requesters are served. Raises Unavailable."""
    await bus.ensure_stream(
        api.StreamConfig(
            name=ANSWERS_STREAM,
            subjects=["answers.*.*"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            storage=api.StorageType.FILE,
            num_replicas=settings.streams_replicas,
            max_bytes=ANSWERS_BYTES_MAX,
            max_msg_size=ANSWER_BYTES_MAX,
            max_msgs_per_subject=ANSWERS_OF_A_SEARCH_MAX,
            # The recorded answer is never pushed out by later ones.
            discard_new_per_subject=True,
            max_age=settings.answers_kept.total_seconds(),
            duplicate_window=ANSWERS_DUPLICATE_WINDOW.total_seconds(),
        )
    )
    await bus.ensure_consumer(
        ANSWERS_STREAM,
        api.ConsumerConfig(
            durable_name=ANSWERS_CONSUMER,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT.total_seconds(),
            max_ack_pending=1024,
        ),
    )
