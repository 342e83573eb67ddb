"""Spans and measurements of messages on the bus, by the conventions for messaging.

Names are templates, never subjects with identifiers in them, so that their number stays small.
"""

import functools
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from opentelemetry.trace import Span, SpanKind

from shared import telemetry

TEMPLATES_MAX: Final = 256
"""Names kept ready; they come from a small closed set, and more would only be made again."""

operation_duration = telemetry.meter.create_histogram(
    "messaging.client.operation.duration",
    unit="s",
    description="Duration of publishing and requesting on the bus",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)
process_duration = telemetry.meter.create_histogram(
    "messaging.process.duration",
    unit="s",
    description="Duration of handling a message",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)
queue_age = telemetry.meter.create_histogram(
    "countersign.queue.age",
    unit="s",
    description="How long a durable message had waited when its handling began",
    explicit_bucket_boundaries_advisory=(*telemetry.DURATION_BUCKETS_S, 60, 600, 3600),
)


def span(
    kind: SpanKind, destination: str, operation: str, sender: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """A span around publish, request or process on a destination, made the current one.

    `sender` are the headers of a received message. One message is one unit of work here, so its
    sender's span is the parent, and no link is needed.
    """
    name, attributes = _described(destination, operation)
    return telemetry.span(name, kind, attributes, sender)


@functools.lru_cache(maxsize=TEMPLATES_MAX)
def _described(destination: str, operation: str) -> tuple[str, dict[str, str]]:
    return f"{operation} {destination}", {
        "messaging.system": "nats",
        "messaging.destination.template": destination,
        "messaging.operation.name": operation,
        "messaging.operation.type": "process" if operation == "process" else "send",
    }


def record_age(template: str, published_at: float) -> None:
    """Records how long a durable message had waited; `published_at` is of `time.time`."""
    if not telemetry.switch.on:
        return
    queue_age.record(
        max(0.0, time.time() - published_at), {"messaging.destination.template": template}
    )


def record_processing(template: str, started: float) -> None:
    """Records how long handling a message took; `started` is of `time.perf_counter`."""
    if not telemetry.switch.on:
        return
    process_duration.record(
        time.perf_counter() - started,
        {"messaging.system": "nats", "messaging.destination.template": template},
    )


def record_operation(template: str, operation: str, started: float) -> None:
    """Records how long publishing or requesting took; `started` is of `time.perf_counter`."""
    if not telemetry.switch.on:
        return
    operation_duration.record(
        time.perf_counter() - started,
        {
            "messaging.system": "nats",
            "messaging.destination.template": template,
            "messaging.operation.name": operation,
        },
    )
