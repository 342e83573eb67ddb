"""Metrics for Prometheus to fetch: what OpenTelemetry measured, in the two forms of text that scrapers know.

OpenTelemetry's own exporter leaves exemplars out, which lead from a slow call to its trace; hence this one.
Names follow OpenTelemetry's rules for Prometheus: `countersign.ledger.append.duration` in `s` becomes
`countersign_ledger_append_duration_seconds`, a counter ends in `_total`, and `rpc.method` is the label
`rpc_method`.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.metrics.export import (
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    Sum,
)

PATH: Final = "/metrics"
ANSWER_S_MAX: Final = 10.0
"""For one scrape, from its first byte to our last: who dawdles is cut off, so that the next is heard."""
UNITS: Final = {"s": "seconds", "d": "days", "By": "bytes"}
"""Those in braces, `{entry}`, say what is counted and are no part of a name."""
OPEN: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_]")
Point = NumberDataPoint | HistogramDataPoint


class ScrapedReader(MetricReader):
    """Gives what was measured until now, whenever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._asking = threading.Lock()
        self._data: MetricsData | None = None

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        del timeout_millis, kwargs
        self._data = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is kept here that could be lost."""

    def text(self, *, openly: bool) -> str:
        """All of it; `openly` in OpenMetrics, with exemplars."""
        with self._asking:
            self.collect()
            return "\n".join([*_lines(self._data, openly=openly), ""])


def _lines(data: MetricsData | None, *, openly: bool) -> Iterator[str]:
    if data is not None:
        for one in data.resource_metrics:
            told = {str(key): str(value) for key, value in one.resource.attributes.items()}
            yield from _head(
                "target" if openly else "target_info", "info", "", "Who measures", openly
            )
            yield f"target_info{_labels(told)} 1"
            for scope in one.scope_metrics:
                for metric in sorted(scope.metrics, key=lambda metric: metric.name):
                    yield from _family(metric, openly)
    if openly:
        yield "# EOF"


def _head(name: str, kind: str, unit: str, about: str, openly: bool) -> Iterator[str]:
    about = about.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind if openly or kind != 'info' else 'gauge'}"
    if openly and unit:
        yield f"# UNIT {name} {unit}"


def family_name(name: str, unit: str) -> str:
    """The name of a metric without what its kind adds."""
    plain = _NOT_IN_NAMES.sub("_", name)
    suffix = UNITS.get(unit, "")
    return f"{plain}_{suffix}" if suffix and not plain.endswith(f"_{suffix}") else plain


def _family(metric: Metric, openly: bool) -> Iterator[str]:
    name, unit = family_name(metric.name, metric.unit or ""), UNITS.get(metric.unit or "", "")
    counts = isinstance(metric.data, Sum) and metric.data.is_monotonic
    kind = "counter" if counts else "histogram" if isinstance(metric.data, Histogram) else "gauge"
    of_family = name if openly or not counts else f"{name}_total"
    yield from _head(of_family, kind, unit, metric.description or "", openly)
    for point in metric.data.data_points:
        if isinstance(point, HistogramDataPoint):
            yield from _buckets(name, point, openly)
        elif isinstance(point, NumberDataPoint):
            sample = f"{name}_total" if counts else name
            yield f"{sample}{_labels(point.attributes)} {_number(point.value)}"


def _buckets(name: str, point: HistogramDataPoint, openly: bool) -> Iterator[str]:
    # The newest of each bucket; more could not be said.
    latest = {
        _bucket(one.value, point.explicit_bounds): one
        for one in sorted(point.exemplars, key=lambda one: one.time_unix_nano)
        if one.trace_id and one.span_id
    }
    below = 0
    for number, count in enumerate(point.bucket_counts):
        below += count
        last = number == len(point.explicit_bounds)
        bound = "+Inf" if last else _number(float(point.explicit_bounds[number]))
        line = f"{name}_bucket{_labels(point.attributes, le=bound)} {below}"
        if openly and (one := latest.get(number)) is not None:
            ids = _labels(
                {
                    "trace_id": trace.format_trace_id(one.trace_id or 0),
                    "span_id": trace.format_span_id(one.span_id or 0),
                }
            )
            line += f" # {ids} {_number(one.value)} {one.time_unix_nano / 1e9:.3f}"
        yield line
    yield f"{name}_sum{_labels(point.attributes)} {_number(point.sum)}"
    yield f"{name}_count{_labels(point.attributes)} {point.count}"


def _bucket(value: float, bounds: Iterable[float]) -> int:
    """Upper bounds belong to their bucket."""
    return sum(1 for bound in bounds if value > bound)


def _labels(attributes: Mapping[str, Any] | None, **more: str) -> str:
    labels = {_NOT_IN_NAMES.sub("_", key): str(value) for key, value in (attributes or {}).items()}
    said = ",".join(f'{key}="{_escaped(value)}"' for key, value in (labels | more).items())
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value)


class Scraped:
    """Listens for scrapes, on a thread of its own: a busy process answers all the same."""

    def __init__(self, address: str, reader: ScrapedReader) -> None:
        """Raises OSError."""
        host, _, port = address.rpartition(":")

        class Handler(_Handler):
            """Of this reader."""

            text = staticmethod(reader.text)

        class Server(TCPServer):
            """For either family of addresses. No HTTPServer, which asks the DNS for its name at first."""

            allow_reuse_address = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self._server = Server((host.strip("[]"), int(port)), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def shutdown(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(ANSWER_S_MAX)


class _Handler(BaseHTTPRequestHandler):
    """Answers one scrape."""

    server_version = "countersign"
    sys_version = ""

    @staticmethod
    def text(*, openly: bool) -> str:
        """What there is to tell."""
        raise NotImplementedError

    def handle(self) -> None:
        """For a bounded time."""
        cut_off = threading.Timer(ANSWER_S_MAX, _shut, [self.connection])
        cut_off.daemon = True
        cut_off.start()
        try:
            with contextlib.suppress(OSError):  # it went away, or was cut off
                super().handle()
        finally:
            cut_off.cancel()

    def do_GET(self) -> None:
        """The metrics, in the form that is asked for."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        openly = "application/openmetrics-text" in self.headers.get("Accept", "")
        body = self.text(openly=openly).encode()
        self.send_response(200)
        self.send_header("Content-Type", OPEN if openly else PLAIN)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by http.server
        """Nothing: a line for each scrape would bury the others."""


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have gone already
        connection.shutdown(socket.SHUT_RDWR)
