"""Traces and metrics by OpenTelemetry: off unless the settings say where they go.

Span and attribute names follow the semantic conventions for RPC and messaging. Attributes come from
closed sets: no payload, officer, case or search id is ever an attribute of a metric, and trace
context never enters what is signed or hashed.
"""

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from shared.settings import TelemetrySettings

SCOPE: Final = "countersign"
SHUTDOWN_TIMEOUT_MS: Final = 3000
"""A dead collector must not hold up the end of a process."""
DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

tracer: Final = trace.get_tracer(SCOPE)
meter: Final = metrics.get_meter(SCOPE)


@dataclass(frozen=True)
class Telemetry:
    """What was started, to be stopped at the end."""

    traces: TracerProvider | None = None
    measurements: MeterProvider | None = None

    def stop(self) -> None:
        """Sends what is left, for a bounded time."""
        if self.traces:
            self.traces.force_flush(SHUTDOWN_TIMEOUT_MS)
            self.traces.shutdown()
        if self.measurements:
            self.measurements.shutdown(timeout_millis=SHUTDOWN_TIMEOUT_MS)


def start(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Starts what the settings ask for. Called once, at the start of a process."""
    if settings.exporter == "none":
        return Telemetry()
    spans: SpanExporter
    numbers: MetricExporter
    if settings.exporter == "console":
        spans, numbers = ConsoleSpanExporter(), ConsoleMetricExporter()
    else:
        spans, numbers = OTLPSpanExporter(), OTLPMetricExporter()
    resource = Resource.create({"service.name": service_name, "service.namespace": "countersign"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(spans))
    measurements = MeterProvider(
        resource=resource, metric_readers=[PeriodicExportingMetricReader(numbers)]
    )
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(measurements)
    return Telemetry(traces, measurements)


def inject(headers: MutableMapping[str, str]) -> None:
    """Adds the current trace context to headers (W3C traceparent)."""
    propagate.inject(headers)


@contextlib.contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Makes the sender's trace the current one."""
    token = otel_context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        otel_context.detach(token)
