"""What is done for searches at peers, so much of it at once for each peer that none can hold up another."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial

from broker.record import Record
from shared.backoff import PutOff

log = logging.getLogger(__name__)


class AtOnce:
    """One task for each search, no more than `most` for each peer, and none for one that is not due."""

    def __init__(self, most: int, away: PutOff) -> None:
        """`away` are the peers that could not be heard."""
        self._most = most
        self._away = away
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._busy: Counter[str] = Counter()

    def start(self, record: Record, work: Callable[[Record], Coroutine[None, None, None]]) -> bool:
        """Begins it; False when it is under way, or when the peer's turn has not come."""
        peer = record.referred_to
        if record.search_id in self._tasks or self._busy[peer] >= self._most:
            return False
        if not self._away.is_due(peer):
            return False
        task = asyncio.create_task(work(record), name=record.search_id)
        self._tasks[record.search_id] = task
        self._busy[peer] += 1
        task.add_done_callback(partial(self._ended, peer))
        return True

    def _ended(self, peer: str, task: asyncio.Task[None]) -> None:
        del self._tasks[task.get_name()]
        self._busy[peer] -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a referred search could not be followed", exc_info=error)

    async def stop(self) -> None:
        """Ends all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
