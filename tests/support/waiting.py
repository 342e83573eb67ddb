"""Waiting for something to be so, with a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

WAIT_S_MAX = 120.0
"""Longer than anything a test waits for takes on a busy machine; a broken thing fails by it."""

ASK_EVERY_S = 0.05


async def until(ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """The first answer that is not empty; fails the test when there is none in time."""
    deadline = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < deadline:
        found = await ask()
        if found:
            return found
        await asyncio.sleep(ASK_EVERY_S)
    raise AssertionError(f"nothing within {WAIT_S_MAX} s")
