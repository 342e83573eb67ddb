"""Traces and metrics by OpenTelemetry: off unless the settings say where they go.

Invariants:
- Span and attribute names follow the semantic conventions for RPC and messaging and come from closed
  sets; no payload, officer or case is ever in a signal, and no search id in a metric.
- A failed span bears the type or stable reason of its error, never the error's text, which may quote
  what it was given.
- Trace context never enters what is signed or hashed, and nothing else is taken over from a sender:
  baggage is dropped.
- A collector that does not answer costs nothing while we run, and a bounded time when we end.
"""

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Thread
from typing import Final, Protocol, TextIO

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from shared.errors import ServiceError
from shared.settings import TelemetrySettings

SCOPE: Final = "countersign"
SHUTDOWN_TIMEOUT_S: Final = 3.0
"""A dead collector must not hold up the end of a process."""
DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

tracer: Final = trace.get_tracer(SCOPE)
meter: Final = metrics.get_meter(SCOPE)
_trace_context: Final = TraceContextTextMapPropagator()
TRACE_HEADERS: Final = frozenset(_trace_context.fields)
"""What of a sender's headers `span` reads, in lower case."""
_TRACED: Final = "traceparent"
_NO_TRACE: Final = Context()


class _Switch:
    """Whether signals go anywhere. Most installations send none, and each search passes it often."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


switch: Final = _Switch()
"""Set by `start`, and by whoever sets the providers in its place."""


class Provider(Protocol):
    """What sends, until it is told to end."""

    def shutdown(self) -> object:
        """Send what is left; may take long."""


@dataclass(frozen=True)
class Telemetry:
    """What was started, to be stopped at the end."""

    providers: tuple[Provider, ...] = ()

    def stop(self) -> None:
        """Sends what is left, for a bounded time."""
        # The SDK waits for half a minute and takes no other time for spans, so it waits elsewhere.
        endings = [Thread(target=provider.shutdown, daemon=True) for provider in self.providers]
        for ending in endings:
            ending.start()
        until = time.monotonic() + SHUTDOWN_TIMEOUT_S
        for ending in endings:
            ending.join(max(0.0, until - time.monotonic()))


def start(
    service_name: str, settings: TelemetrySettings, console: TextIO | None = None
) -> Telemetry:
    """Starts what the settings ask for. Called once, at the start of a process. Raises SettingsError.

    What goes to the console goes to standard output; a command whose results go there names another.
    """
    if (settings.exporter == "none" and settings.scrape is None) or _standard_switch_is_off():
        return Telemetry()
    # Only here: see there.
    from shared.telemetry_sdk import send

    providers = send(service_name, settings, console or sys.stdout)
    switch.on = True
    return Telemetry(providers)


def _standard_switch_is_off() -> bool:
    """OTEL_SDK_DISABLED, which the SDK's own providers heed; what is ours heeds it too."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


class _Spanning:
    """A span while it is the current one. No generator: every message and every call has several."""

    __slots__ = ("_attributes", "_before", "_kind", "_name", "_sender", "_span")

    def __init__(
        self, name: str, kind: SpanKind, attributes: Attributes, sender: Mapping[str, str] | None
    ) -> None:
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._sender = sender
        self._before: Context | None = None
        self._span: Span = trace.INVALID_SPAN

    def __enter__(self) -> Span:
        context: Context | None = None
        if self._sender is not None:
            context = _trace_context.extract(self._sender) if _TRACED in self._sender else _NO_TRACE
        self._span = tracer.start_span(self._name, context, self._kind, self._attributes)
        # Without telemetry and without a trace to hand on there is nothing to make current.
        if (
            self._span is not trace.INVALID_SPAN
            or trace.get_current_span() is not trace.INVALID_SPAN
        ):
            self._before = otel_context.get_current()
            otel_context.attach(trace.set_span_in_context(self._span, context))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, Exception):
            failed(self._span, reason_of(error))
        self._span.end()
        # Not by token: a generator that is dropped half-way is closed in another task, where a token
        # of this one would be refused.
        if self._before is not None:
            otel_context.attach(self._before)


class _NoSpan:
    """Stands for a span that nobody will see."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return trace.INVALID_SPAN

    def __exit__(self, *_: object) -> None:
        return None


_NO_SPAN: Final = _NoSpan()


def _untraced() -> bool:
    """Whether nothing is sent and there is no trace to hand on."""
    return not switch.on and not otel_context.get_current()


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes = None,
    sender: Mapping[str, str] | None = None,
) -> AbstractContextManager[Span]:
    """A span, made the current one. `sender` are headers whose trace it continues."""
    if (sender is None or _TRACED not in sender) and _untraced():
        return _NO_SPAN
    return _Spanning(name, kind, attributes, sender)


def reason_of(error: Exception) -> str:
    """The stable reason of an expected failure, the type of any other."""
    return error.reason if isinstance(error, ServiceError) else type(error).__name__


def failed(span: Span, reason: str) -> None:
    """Marks the span as failed, for a reason out of a closed set."""
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", reason)


def inject(headers: MutableMapping[str, str], span: Span | None = None) -> None:
    """Adds the trace context of the span, or of the current one, to headers (W3C traceparent)."""
    if span is None and _untraced():
        return
    _trace_context.inject(headers, None if span is None else trace.set_span_in_context(span))
