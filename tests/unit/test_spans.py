"""One span at a time: whose it continues, and what it says when it fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from shared import telemetry
from shared.errors import NotFound
from support.signals import Signals

SECRET: Final = "Jane-Doe-26-0001"


async def test_exception_that_passes_a_span_leaves_its_type(signals: Signals) -> None:
    with pytest.raises(ValueError, match=SECRET), telemetry.span("work"):
        raise ValueError(SECRET)
    with pytest.raises(NotFound), telemetry.span("other work"):
        raise NotFound("ENTRY_UNKNOWN", SECRET)
    assert (signals.named("work").attributes or {})["error.type"] == "ValueError"
    assert (signals.named("other work").attributes or {})["error.type"] == "ENTRY_UNKNOWN"
    assert SECRET not in signals.everything()


async def test_baggage_of_a_stranger_is_dropped(signals: Signals) -> None:
    sender = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "baggage": f"case={SECRET}",
    }
    onwards: dict[str, str] = {}
    with telemetry.span("work", sender=sender):
        telemetry.inject(onwards)
    assert set(onwards) == {"traceparent"}
    assert onwards["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.parametrize(
    "traceparent", ["", "00-0-0-0", "\N{SNOWMAN}", "00-" + "0" * 60, "x" * 9999]
)
async def test_trace_context_that_is_none_begins_a_new_trace(
    signals: Signals, traceparent: str
) -> None:
    with telemetry.span("work", sender={"traceparent": traceparent}):
        pass
    assert signals.named("work").parent is None


async def test_generator_that_is_dropped_leaves_the_current_span_alone(signals: Signals) -> None:
    async def works() -> AsyncIterator[int]:
        with telemetry.span("dropped"):
            yield 1
            yield 2

    async def takes_one() -> None:
        async for _ in works():
            break

    with telemetry.span("outer"):
        await asyncio.create_task(takes_one())
        with telemetry.span("inner"):
            pass
    assert signals.lineage(signals.named("inner")) == ["outer", "inner"]
    assert not [line for line in signals.lines if line["logger"].startswith("opentelemetry")]
