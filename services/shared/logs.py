"""Logs: one JSON line for each event on standard error, with the trace that it belongs to.

The message names the event in words that do not change; what changes goes in fields:
`log.warning("answer refused", extra={"fields": {"reason": "ANSWER_SIGNATURE"}})`. Faces, names, case
numbers and tokens are never logged.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from opentelemetry import trace


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, service_name: str) -> None:
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "service": self._service_name,
            "logger": record.name,
            # The event, in one line: what asyncio adds below it quotes exceptions, and with them
            # whatever they were given.
            "message": record.getMessage().partition("\n")[0],
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update((key, value) for key, value in fields.items() if key not in line)
        if record.exc_info and record.exc_info[0] is not None:
            # The type and the place, not the text: an exception's text may quote what it was given.
            line["exception"] = record.exc_info[0].__qualname__
            line["stack"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(service_name: str, level: str) -> None:
    """Sends every log of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service_name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("nats").setLevel(logging.WARNING)
