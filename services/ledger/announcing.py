"""Puts on record what changed since the log was served last: its keys, and that it was brought back.

Before it serves, if it can write then. A log that waits for witnesses, for its clock or for room on the disk
serves readers meanwhile, and announces as soon as it writes again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from ledger.entry import Completer
from ledger.heard import ASK_AGAIN_S
from ledger.keys import LogKeys
from ledger.log import OpenLog
from ledger.restored import announce_restored
from ledger.restored_notes import Notes
from ledger.rotation import keys_rotated
from ledger.sequencer import Sequencer
from shared.clock import SystemClock
from shared.errors import NotReady, ServiceError, Unavailable
from shared.identity import SpiffeId

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def announcing(
    opened: OpenLog, keys: LogKeys, notes: Notes, trust_domain: str
) -> AsyncIterator[None]:
    """Announce, now or while the context lasts. Raises NotReady for a note that is damaged."""
    own = str(SpiffeId(trust_domain, "service", "ledger"))
    completer = Completer(own, SystemClock(), own=True)
    rotated = keys_rotated(opened, keys)

    async def announce() -> None:
        if rotated is not None:
            # Completed at each try; its key keeps it from being recorded twice.
            entry = completer.complete(rotated, "entry")
            opened.guard.announce(entry.leaf)
            await opened.sequencer.append([entry])
        await announce_restored(opened, notes, completer)

    later = None
    try:
        await announce()
    except Unavailable as error:
        log.warning("announced later", extra={"fields": {"reason": error.reason}})
        later = asyncio.create_task(_announced_at_last(announce, opened.sequencer))
    try:
        yield
    finally:
        if later is not None:
            later.cancel()
            await asyncio.gather(later, return_exceptions=True)


async def _announced_at_last(announce: Callable[[], Awaitable[None]], sequencer: Sequencer) -> None:
    while not sequencer.ended.is_set():
        await asyncio.sleep(ASK_AGAIN_S)
        if not sequencer.writable:
            continue
        try:
            await announce()
        except (NotReady, OSError):
            # What would have kept it from starting.
            log.exception("cannot go on")
            sequencer.ended.set()
        except ServiceError as error:
            log.warning("announced later", extra={"fields": {"reason": error.reason}})
        else:
            return
