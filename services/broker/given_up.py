"""Orders that the bus will deliver no more, though nobody answered them: counted and logged.

Either a connector failed DELIVERIES_MAX times, or it told the bus to forget the order, which none of ours
does. The search itself goes on to its deadline and is on record as expired: whoever had the order
last may still answer it, and news of this kind is sent once and may be lost, so no end may hang on it.
"""

import json
import logging
from typing import Final

from broker.streams import ORDERS_CONSUMER
from shared import telemetry
from shared.bus import Bus
from shared.errors import Unavailable

log = logging.getLogger(__name__)

ADVISORIES: Final = {
    "MAX_DELIVERIES": "delivered too often",
    "MSG_TERMINATED": "refused by its connector",
}
"""What the server calls it, and what we do."""
QUEUE: Final = "broker"
"""Of several brokers, one hears of each."""

_given_up = telemetry.meter.create_counter(
    "countersign.orders.given_up",
    unit="{order}",
    description="Orders that the bus will deliver no more, though nobody answered them",
)


def count_from_zero(stream: str) -> None:
    """From 0, so that the very first order that is given up is a rise that an alert sees."""
    for why in ADVISORIES.values():
        _given_up.add(0, {"stream": stream, "why": why})


async def hear_of_given_up(bus: Bus) -> None:
    """Counts and logs, until the bus is closed. Raises Unavailable."""

    async def heard(data: bytes, why: str) -> None:
        said = json.loads(data)
        stream, sequence = str(said["stream"]), int(said["stream_seq"])
        _given_up.add(1, {"stream": stream, "why": why})
        fields = {"stream": stream, "why": why, "deliveries": said.get("deliveries")}
        try:
            subject = await bus.subject_of(stream, sequence)
        except Unavailable:
            subject = None
        if subject is not None:
            fields["search_id"] = subject.rpartition(".")[2]
        log.error("order given up", extra={"fields": fields})

    for kind, why in ADVISORIES.items():
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.*.{ORDERS_CONSUMER}"

        async def one(data: bytes, why: str = why) -> None:
            await heard(data, why)

        await bus.hear(subject, QUEUE, one)
