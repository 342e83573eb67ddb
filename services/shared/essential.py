"""Work that a process cannot go on without."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


def essential(
    work: Coroutine[Any, Any, None], what: str, ended: asyncio.Event
) -> asyncio.Task[None]:
    """Begins it. When it ends though nobody cancelled the task, the log says why, and `ended` is set."""

    def say_why(done: asyncio.Task[None]) -> None:
        if done.cancelling():
            return
        error = None if done.cancelled() else done.exception()
        log.critical("cannot go on", exc_info=error, extra={"fields": {"without": what}})
        ended.set()

    task = asyncio.create_task(work)
    task.add_done_callback(say_why)
    return task
