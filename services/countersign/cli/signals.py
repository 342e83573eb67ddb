"""Ends long work in order when the process is told to stop."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def until_told(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs the work; SIGINT or SIGTERM cancels it, and it ends in its own order.

    Raises asyncio.CancelledError when it was told to stop.
    """
    task = asyncio.create_task(work)

    def stop() -> None:
        # A second signal changes nothing: stopping has its own bounds.
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await task
