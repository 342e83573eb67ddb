"""Ctrl-C at a chosen moment of a command that runs in the test's own process."""

import asyncio
import contextlib
import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from countersign.installation.ports import url
from support.installations import InstallationUnderTest
from support.waiting import until


@contextlib.contextmanager
def interrupted_after(installation: InstallationUnderTest, entries_more: int) -> Iterator[None]:
    """Whatever runs is interrupted as by Ctrl-C once there are more than so many new entries."""
    checkpoint = f"{url(installation.ports.ledger_http)}/checkpoint"

    def entries() -> int:
        with urllib.request.urlopen(checkpoint) as response:
            return int(response.read().splitlines()[1])

    begun_with = entries()

    async def has_grown() -> bool:
        return entries() > begun_with + entries_more

    def interrupt() -> None:
        asyncio.run(until(has_grown))
        os.kill(os.getpid(), signal.SIGINT)

    # Whoever starts a program in the background has it ignore Ctrl-C, and what that starts as well.
    as_it_was = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(1) as thread:
            interrupted = thread.submit(interrupt)
            yield
            interrupted.result()
    finally:
        signal.signal(signal.SIGINT, as_it_was)
