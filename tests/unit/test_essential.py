"""What happens when the work ends that a process cannot go on without."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from shared.essential import essential


async def fails() -> None:
    """As a defect would."""
    raise ValueError("unforeseen")


async def was_cancelled_within() -> None:
    """As a request is whose connection goes away."""
    raise asyncio.CancelledError


async def is_done() -> None:
    """Though it was to go on for ever."""


@pytest.mark.parametrize(
    ("work", "why"), [(fails, "unforeseen"), (was_cancelled_within, "None"), (is_done, "None")]
)
async def test_work_that_ends_by_itself_ends_the_process_and_the_log_says_why(
    work: Callable[[], Coroutine[None, None, None]], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    task = essential(work(), "the sweep", ended)
    await ended.wait()
    await asyncio.gather(task, return_exceptions=True)
    (said,) = caplog.records
    assert said.levelname == "CRITICAL"
    assert said.exc_info is None or why in str(said.exc_info[1])
    assert (said.exc_info is None) == (why == "None")


async def goes_on() -> None:
    """For ever."""
    await asyncio.Event().wait()


async def test_work_that_is_cancelled_at_the_end_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = asyncio.Event()
    task = essential(goes_on(), "the sweep", ended)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not ended.is_set()
    assert not caplog.records
