"""Records an entry when nothing else happened for a while, so that a silent log is told from a dead one.

Each says before when the next sign of life comes, so that a monitor can hold the log to it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Final

from countersign.ledger.v1.append_pb2 import PendingEntry
from ledger.entry import Completer
from ledger.sequencer import Sequencer
from ledger.witnessing import Witnessing
from shared import telemetry
from shared.clock import Clock, SystemClock
from shared.errors import ServiceError
from shared.identity import SpiffeId

log = logging.getLogger(__name__)

_interval = telemetry.meter.create_gauge(
    "countersign.ledger.heartbeat.interval",
    unit="s",
    description="How often the log grows though nothing happens; absent when it does not",
)

BEATS_PROMISED: Final = 2
"""The next one comes within so many times the interval: one may be missed at a restart."""


@contextlib.asynccontextmanager
async def beating(
    every_s: float | None,
    trust_domain: str,
    sequencer: Sequencer,
    witnessing: Witnessing | None,
    clock: Clock | None = None,
) -> AsyncIterator[None]:
    """Beat until the end; not at all when there is no interval."""
    if every_s is None:
        yield
        return

    def witnessed_size() -> int:
        cosigned = None if witnessing is None else witnessing.cosigned
        return 0 if cosigned is None else cosigned.size

    _interval.set(every_s)
    own = str(SpiffeId(trust_domain, "service", "ledger"))
    clock = clock or SystemClock()
    completer = Completer(own, clock, own=True)
    task = asyncio.create_task(_beat(every_s, sequencer, completer, clock, witnessed_size))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(
    every_s: float,
    sequencer: Sequencer,
    completer: Completer,
    clock: Clock,
    witnessed_size: Callable[[], int],
) -> None:
    while True:
        size = sequencer.published.size
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await sequencer.grown(size)
        if sequencer.published.size != size:
            continue
        pending = PendingEntry()
        beat = pending.entry.heartbeat
        beat.next_before.FromDatetime(clock.now() + timedelta(seconds=every_s * BEATS_PROMISED))
        beat.witnessed_size = witnessed_size()
        try:
            await sequencer.append([completer.complete(pending, "heartbeat")])
        except ServiceError as error:
            log.warning("no heartbeat recorded", extra={"fields": {"reason": error.reason}})
