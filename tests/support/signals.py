"""What telemetry and logs say, kept in memory.

OpenTelemetry takes its providers once for a process, so they are installed by the first test that
wants them and keep nothing outside of such tests.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from shared import telemetry
from shared.logs import JsonLines

DELTA: dict[type, AggregationTemporality] = dict.fromkeys(
    (Counter, Histogram), AggregationTemporality.DELTA
)


class _Spans(SpanExporter):
    def __init__(self) -> None:
        self.keeping = False
        self.kept: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keeps them while a test wants them."""
        if self.keeping:
            self.kept += spans
        return SpanExportResult.SUCCESS


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines("countersign-test"))
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line."""
        self.kept.append(self.format(record))


class Signals:
    """Everything that was said during a test."""

    def __init__(self) -> None:
        self._spans = _Spans()
        self._numbers = InMemoryMetricReader(preferred_temporality=DELTA)
        self._lines = _Lines()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        telemetry.switch.on = True
        trace.set_tracer_provider(traces)
        metrics.set_meter_provider(MeterProvider(metric_readers=[self._numbers]))

    def __enter__(self) -> "Signals":
        """Begins to keep."""
        self._spans.kept, self._lines.kept = [], []
        self._spans.keeping = True
        self._numbers.get_metrics_data()
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger().addHandler(self._lines)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends keeping."""
        logging.getLogger().removeHandler(self._lines)
        logging.getLogger().setLevel(self._level)
        self._spans.keeping = False

    @property
    def spans(self) -> list[ReadableSpan]:
        """Spans that have ended, in the order of their starts."""
        return sorted(self._spans.kept, key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def lineage(self, span: ReadableSpan) -> list[str]:
        """Names from the root to the span, as far as they have ended."""
        by_id = {one.context.span_id: one for one in self.spans if one.context}
        names = [span.name]
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            names.insert(0, span.name)
        return names

    @property
    def traces(self) -> set[int]:
        """Ids of all traces."""
        return {span.context.trace_id for span in self.spans if span.context}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Log lines."""
        return [json.loads(line) for line in self._lines.kept]

    def points(self) -> dict[str, list[Any]]:
        """Data points since they were last asked for, by metric."""
        data = self._numbers.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def everything(self) -> str:
        """All that left in any signal, to be searched for what must not be there."""
        spans = [span.to_json() for span in self.spans]
        numbers = [f"{name} {point}" for name, all_of in self.points().items() for point in all_of]
        return "\n".join([*spans, *numbers, *self._lines.kept])


@pytest.fixture(scope="session")
def _signals_of_the_session() -> Signals:
    return Signals()


@pytest.fixture
def signals(_signals_of_the_session: Signals) -> Iterator[Signals]:
    """What is said during the test."""
    with _signals_of_the_session as kept:
        yield kept
