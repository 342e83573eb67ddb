"""A load of appends: clients with one entry under way each, alone or gathered, or entries at a steady rate.

It takes as little of the machine as a load can, since it shares two cores with what it measures. Entries
are copies of one, each with a search id and an idempotency key of its own. Every answer is read and its
receipts are counted; of every so many answers one receipt is verified as a client would, and not all.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from ledger_appends import Figures, figures_of, pending_entry
from tlog.note import Verifier
from tlog.proof import verify_receipt

Send = Callable[[AppendRequest], Awaitable[AppendResponse]]

GROUP: Final = 64
"""Clients whose appends travel together: those of one broker, say."""
MESSAGES: Final = 2
"""Messages under way at a time, where entries come at a steady rate."""
ENTRIES_MAX: Final = 256
"""The ledger takes no more in one message."""
VERIFIED_EVERY: Final = 32
"""Answers of which one is verified: a signature and a proof would be half the load's work."""
PACE_S: Final = 0.002
"""How exactly a steady rate is kept."""
_PLACE: Final = pending_entry(0).entry.search_id.encode()
_TEMPLATE: Final = AppendRequest(entries=[pending_entry(0)]).SerializeToString()


def fresh(count: int) -> AppendRequest:
    """Give a request with entries that nobody has appended."""
    parts = (_TEMPLATE.replace(_PLACE, str(uuid.uuid4()).encode()) for _ in range(count))
    return AppendRequest.FromString(b"".join(parts))


class Load:
    """Appends by one way, and keeps how long each entry waited for its receipt."""

    def __init__(self, send: Send, verifier: Verifier) -> None:
        self._send = send
        self._verifier = verifier
        self._waits: list[float] = []
        self._answers = 0

    async def clients(self, count: int, group: int, seconds: float) -> Figures:
        """So many clients, each of which asks again when it has its receipt, for a time."""
        end = time.perf_counter() + seconds

        async def together(size: int) -> None:
            while (asked := time.perf_counter()) < end:
                await self._append([asked] * size)

        whole, rest = divmod(count, group)
        sizes = [group] * whole + [rest] * (rest > 0)
        return await self._measured(asyncio.gather(*(together(size) for size in sizes)))

    async def steady(self, per_second: float, seconds: float) -> Figures:
        """Entries that come at a rate, whether or not the ledger keeps up: waits count from their coming."""
        waiting: deque[float] = deque()
        under_way = 0

        async def carry() -> None:
            nonlocal under_way
            while waiting:
                await self._append(
                    [waiting.popleft() for _ in range(min(len(waiting), ENTRIES_MAX))]
                )
            under_way -= 1

        async def come() -> None:
            nonlocal under_way
            began = time.perf_counter()
            async with asyncio.TaskGroup() as carrying:
                for number in range(int(per_second * seconds)):
                    due = began + number / per_second
                    if (early := due - time.perf_counter()) > 0:
                        await asyncio.sleep(max(early, PACE_S))
                    waiting.append(due)
                    if under_way < MESSAGES:
                        under_way += 1
                        carrying.create_task(carry())

        return await self._measured(come())

    async def _append(self, asked: list[float]) -> None:
        response = await self._send(fresh(len(asked)))
        now = time.perf_counter()
        if len(response.appended) != len(asked) or any(one.existing for one in response.appended):
            raise SystemExit("the ledger answered with other receipts than were asked for")
        if self._answers % VERIFIED_EVERY == 0:
            last = response.appended[-1].receipt
            verify_receipt(last.leaf, last.tlog_proof, self._verifier)
        self._answers += 1
        self._waits += [now - one for one in asked]

    async def _measured(self, work: Awaitable[object]) -> Figures:
        self._waits = []
        began, cpu = time.perf_counter(), time.process_time()
        await work
        took = time.perf_counter() - began
        return figures_of(self._waits, took, time.process_time() - cpu)
