"""The thread that writes what a connector keeps."""

import asyncio
import threading
from functools import partial

import pytest

from connector.thread import WorkThread


async def test_work_is_done_in_order_and_elsewhere() -> None:
    thread = WorkThread("work")

    def told(number: int) -> tuple[int, int]:
        return number, threading.get_ident()

    done = await asyncio.gather(*(thread.do(partial(told, number)) for number in range(9)))

    assert [number for number, _ in done] == list(range(9))
    assert {where for _, where in done}.isdisjoint({threading.get_ident()})
    assert len({where for _, where in done}) == 1
    thread.close()


async def test_who_waits_gets_the_error_and_the_next_is_done() -> None:
    thread = WorkThread("work")

    with pytest.raises(ZeroDivisionError):
        await thread.do(lambda: 1 // 0)

    assert await thread.do(lambda: "done") == "done"
    thread.close()


async def test_what_nobody_waits_for_any_more_is_done() -> None:
    thread, begun, may_end = WorkThread("work"), threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait()
        done.append("work")

    waiting = asyncio.create_task(thread.do(work))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    may_end.set()

    await thread.do(lambda: done.append("next"))
    assert done == ["work", "next"]
    assert waiting.cancelled()
    thread.close()


def test_a_loop_that_has_ended_does_not_end_the_thread() -> None:
    thread, may_end = WorkThread("work"), threading.Event()

    async def leave() -> None:
        waiting = asyncio.create_task(thread.do(may_end.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    may_end.set()

    async def come_again() -> str:
        return await thread.do(lambda: "done")

    assert asyncio.run(come_again()) == "done"
    thread.close()
