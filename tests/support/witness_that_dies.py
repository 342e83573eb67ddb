"""The real witness, but that it dies at a commit: `python FILE before|after CONFIG.toml`."""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

from shared.process import run_process
from witness.__main__ import RunningWitness, open_store, running
from witness.config import WitnessSettings
from witness.store import Store

WHEN = sys.argv.pop(1)


class StoreThatDies(Store):
    """Is killed before or after it has made a transaction durable."""

    def commit(self) -> None:
        if WHEN == "after":
            super().commit()
        os.kill(os.getpid(), signal.SIGKILL)


def _opened(settings: WitnessSettings) -> Store:
    open_store(settings).close()
    return StoreThatDies.open(settings.database, create=False)


@contextlib.asynccontextmanager
async def _running(settings: WitnessSettings) -> AsyncIterator[RunningWitness]:
    async with running(settings, _opened) as one:
        yield one


if __name__ == "__main__":
    run_process("witness", "Dies at a commit.", WitnessSettings, _running)
