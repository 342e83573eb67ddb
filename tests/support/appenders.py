"""Callers who append without end, and remember what they were told."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from countersign.ledger.v1.append_pb2 import Appended, AppendRequest, AppendResponse
from shared.bus import Bus
from shared.errors import ServiceError
from support.ledgers import decided
from support.waiting import until

TIMEOUT_S = 2
PAUSE_S = 0.1
"""Of each caller between two: what counts is how many are under way, and each one is verified at the end."""
AT_ONCE = 64
"""Entries of one request, where nothing is to happen between them."""


class Appenders:
    """Appends without end and keeps what was acknowledged."""

    def __init__(self, broker: Bus, first: int = 0) -> None:
        """Numbers the searches from the first on."""
        self._broker = broker
        self._next = itertools.count(first)
        self.acknowledged: dict[int, Appended] = {}
        self.asked: set[int] = set()
        self.stopped = False

    async def append(self, *numbers: int) -> list[Appended]:
        """Entries in one request."""
        entries = [decided(number) for number in numbers]
        response = await self._broker.request(
            "ledger.append", AppendRequest(entries=entries), AppendResponse, TIMEOUT_S
        )
        return list(response.appended)

    async def run(self) -> None:
        """Appends until stopped; failures are expected and not retried."""
        while not self.stopped:
            number = next(self._next)
            self.asked.add(number)
            with contextlib.suppress(ServiceError):
                (self.acknowledged[number],) = await self.append(number)
            await asyncio.sleep(PAUSE_S)

    def next_numbers(self, count: int) -> list[int]:
        """Of searches that nobody has appended."""
        return list(itertools.islice(self._next, count))

    async def append_surely(self, number: int) -> Appended:
        """Asks until it is answered, as after a takeover."""
        (appended,) = await self.all_surely([number])
        return appended

    async def all_surely(self, numbers: Sequence[int]) -> list[Appended]:
        """Of each, in order."""
        appended: list[Appended] = []
        for some in (numbers[at : at + AT_ONCE] for at in range(0, len(numbers), AT_ONCE)):

            async def answered(some: Sequence[int] = some) -> list[Appended]:
                with contextlib.suppress(ServiceError):
                    return await self.append(*some)
                return []

            appended += await until(answered)
        return appended
