"""Spans and measurements of messages on the bus, by the conventions for messaging.

Names are templates, never subjects with identifiers in them, so that their number stays small.
"""

import functools
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, Self

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


class measured:  # noqa: N801  # used as a function
    """Measures publish, request or process on a destination, within its span, which an exemplar may name."""

    __slots__ = ("_operation", "_started", "_template", "failure")

    def __init__(self, template: str, operation: str) -> None:
        self._template = template
        self._operation = operation
        self._started = 0.0
        self.failure = ""
        """Why it failed, where that is no exception that passes: a stable reason, or a type."""

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if not telemetry.switch.on:
            return
        attributes = {
            "messaging.system": "nats",
            "messaging.destination.template": self._template,
        }
        if failure := self.failure or _failure(error):
            attributes["error.type"] = failure
        took_s = time.perf_counter() - self._started
        if self._operation == "process":
            process_duration.record(took_s, attributes)
        else:
            attributes["messaging.operation.name"] = self._operation
            operation_duration.record(took_s, attributes)


def _failure(error: BaseException | None) -> str:
    if isinstance(error, Exception):
        return telemetry.reason_of(error)
    return "" if error is None else type(error).__name__
