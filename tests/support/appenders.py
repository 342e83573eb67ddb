"""Callers who append without end, and remember what they were told."""

import asyncio
import contextlib

from countersign.ledger.v1.append_pb2 import Appended, AppendRequest, AppendResponse
from shared.bus import Bus
from shared.errors import ServiceError
from support.ledgers import decided
from support.waiting import until

TIMEOUT_S = 2


class Appenders:
    """Appends without end and keeps what was acknowledged."""

    def __init__(self, broker: Bus) -> None:
        self._broker = broker
        self._next = iter(range(10_000_000))
        self.acknowledged: dict[int, Appended] = {}
        self.asked: set[int] = set()
        self.stopped = False

    async def append(self, number: int) -> Appended:
        """One entry in one request."""
        response = await self._broker.request(
            "ledger.append", AppendRequest(entries=[decided(number)]), AppendResponse, TIMEOUT_S
        )
        return response.appended[0]

    async def run(self) -> None:
        """Appends until stopped; failures are expected and not retried."""
        while not self.stopped:
            number = next(self._next)
            self.asked.add(number)
            try:
                self.acknowledged[number] = await self.append(number)
            except ServiceError:
                await asyncio.sleep(0)

    async def append_surely(self, number: int) -> Appended:
        """Asks until it is answered, as after a takeover."""

        async def answered() -> Appended | None:
            with contextlib.suppress(ServiceError):
                return await self.append(number)
            return None

        return await until(answered)
