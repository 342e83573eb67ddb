"""Log lines are JSON, say which trace they belong to, and never quote an exception."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

from shared import logs

SECRET = "a case number"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a configured process writes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("countersign-broker", "INFO")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_line_says_what_when_and_where(written: io.StringIO) -> None:
    log = logging.getLogger("broker.answers")
    log.warning("answer refused", extra={"fields": {"reason": "ANSWER_SIGNATURE"}})
    (line,) = lines(written)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "severity": "WARNING",
        "service": "countersign-broker",
        "logger": "broker.answers",
        "message": "answer refused",
        "reason": "ANSWER_SIGNATURE",
    }


def test_line_below_the_level_is_not_written(written: io.StringIO) -> None:
    logging.getLogger("broker").debug("detail")
    assert not written.getvalue()


def test_line_within_a_span_bears_its_trace(written: io.StringIO) -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=True))
    with trace.use_span(span):
        logging.getLogger("broker").info("inside")
    logging.getLogger("broker").info("outside")
    inside, outside = lines(written)
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert "trace_id" not in outside


def test_exception_gives_its_type_and_place_and_not_its_text(written: io.StringIO) -> None:
    def fails() -> None:
        raise ValueError(SECRET) from KeyError(SECRET)

    try:
        fails()
    except ValueError:
        logging.getLogger("broker").exception("call failed")
    (line,) = lines(written)
    assert line["exception"] == "ValueError"
    assert line["stack"][-1].endswith("fails")
    assert SECRET not in written.getvalue()


async def test_exception_that_nobody_fetched_is_not_quoted(written: io.StringIO) -> None:
    """asyncio puts the repr of the exception into its message."""

    async def fails() -> None:
        raise ValueError(SECRET)

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    error = task.exception()
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": error, "future": task}
    )
    (line,) = lines(written)
    assert (line["message"], line["exception"]) == (
        "Task exception was never retrieved",
        "ValueError",
    )
    assert SECRET not in written.getvalue()


def test_fields_do_not_replace_what_the_line_itself_says(written: io.StringIO) -> None:
    logging.getLogger("broker").info("event", extra={"fields": {"severity": "FATAL", "size": 5}})
    (line,) = lines(written)
    assert (line["severity"], line["size"]) == ("INFO", 5)


def test_each_event_is_one_line_whatever_is_in_it(written: io.StringIO) -> None:
    odd = {"text": "one\ntwo", "bytes": b"\xff", "path": sys, "letters": "Häß"}
    logging.getLogger("broker").info("event", extra={"fields": odd})
    (line,) = lines(written)
    assert line["text"] == "one\ntwo"
    assert "Häß" in written.getvalue()
