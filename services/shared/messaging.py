"""Spans and measurements of messages on the bus, by the conventions for messaging.

Names are templates, never subjects with identifiers in them, so that their number stays small.
"""

import contextlib
import time
from collections.abc import Iterator

from opentelemetry.trace import Span, SpanKind

from shared import telemetry

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


@contextlib.contextmanager
def span(name: str, kind: SpanKind, destination: str, operation: str) -> Iterator[Span]:
    """A span around one operation on a destination, made the current one."""
    attributes = {
        "messaging.system": "nats",
        "messaging.destination.template": destination,
        "messaging.operation.type": operation,
    }
    with telemetry.tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False
    ) as current:
        yield current


def record_operation(template: str, operation: str, started: float) -> None:
    """Records how long publishing or requesting took; `started` is of `time.perf_counter`."""
    operation_duration.record(
        time.perf_counter() - started,
        {"messaging.destination.template": template, "messaging.operation.type": operation},
    )
