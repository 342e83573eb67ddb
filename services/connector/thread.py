"""One thread beside the event loop, for work that waits for a disk.

An executor does the same with locks, conditions and a future of its own, and each of them has loop and thread
wait for one another: several times the cost of what a connector has written for an order.
"""

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, TypeVar

Returned = TypeVar("Returned")

_Work: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]


class WorkThread:
    """Does what it is given, one thing after the other."""

    def __init__(self, name: str) -> None:
        self._given: SimpleQueue[_Work | None] = SimpleQueue()
        # A daemon, as whoever is not closed must not keep the process from ending.
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[], Returned]) -> Returned:
        """Have it done, and return or raise what it did. It is done also if nobody waits any more."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Returned] = loop.create_future()
        self._given.put((loop, done, work))
        return await done

    def close(self) -> None:
        """End it, after all that was given before."""
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (given := self._given.get()) is not None:
            loop, done, work = given
            tell, told = _do(work)
            # A loop that has ended has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, done, told)


def _do(work: Callable[[], Any]) -> tuple[Callable[[asyncio.Future[Any], Any], None], Any]:
    try:
        return _return, work()
    except BaseException as error:  # noqa: BLE001  # whoever waits gets it
        return _raise, error


def _return(done: asyncio.Future[Any], returned: object) -> None:
    if not done.done():
        done.set_result(returned)


def _raise(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
