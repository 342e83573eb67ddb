"""The part of telemetry that sends: OpenTelemetry's SDK, exporters, and the port for Prometheus.

Read only where signals are wanted: it takes longer than most of what a process reads at its start.
"""

import logging
import uuid
from importlib.metadata import version
from typing import TextIO

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from shared.scrape import Scraped, ScrapedReader
from shared.settings import SettingsError, TelemetrySettings

log = logging.getLogger(__name__)


def send(
    service_name: str, settings: TelemetrySettings, console: TextIO
) -> tuple[TracerProvider | MeterProvider | Scraped, ...]:
    """Sets the providers and starts what the settings ask for; gives what is to be shut down.

    Raises SettingsError.
    """
    resource = describe(service_name)
    # Spans are made without an exporter too: exemplars and logs name them.
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    readers: list[MetricReader] = []
    parts: list[TracerProvider | MeterProvider | Scraped] = [traces]
    if settings.exporter != "none":
        span_exporter, metric_exporter = _exporters(settings, console)
        traces.add_span_processor(BatchSpanProcessor(span_exporter))
        readers.append(PeriodicExportingMetricReader(metric_exporter))
    if settings.scrape is not None:
        scraped = ScrapedReader()
        readers.append(scraped)
        parts.append(_listening(settings.scrape, scraped))
    measurements = MeterProvider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
    parts.append(measurements)
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(measurements)
    return tuple(parts)


def _exporters(settings: TelemetrySettings, console: TextIO) -> tuple[SpanExporter, MetricExporter]:
    if settings.exporter == "console":
        return ConsoleSpanExporter(out=console), ConsoleMetricExporter(out=console)
    # Only here: reading them takes longer than all else.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(), OTLPMetricExporter()


def _listening(address: str, reader: ScrapedReader) -> Scraped:
    try:
        scraped = Scraped(address, reader)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"telemetry.scrape: cannot listen on {address}: {error}") from error
    log.info("metrics can be fetched", extra={"fields": {"port": scraped.port}})
    return scraped


def describe(service_name: str) -> Resource:
    """Who sends: our own account, which OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override."""
    ours = {
        "service.name": service_name,
        "service.namespace": "countersign",
        "service.version": version("countersign"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())
