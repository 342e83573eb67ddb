"""Questions gathered into few messages: what comes while others are under way travels together.

Invariants:
- Each asker gets the answer to its own question, or an error; nobody waits for ever, and nobody's wait
  begins after its patience is spent.
- A question that the other side refuses does not sink those that it travels with.
- A message says how long the last of its askers waits, so that the other side begins nothing for nobody.
- An asker that gives up takes nothing back: its question may be asked all the same.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from shared.errors import Broken, InvalidRequest, Overloaded, ServiceError, Unavailable

log = logging.getLogger(__name__)

LINGER_EACH_S: Final = 0.0003
"""For each search that is under way. Half of what a message costs is the same however many questions it
carries, on both sides of the bus, and for the ledger it is a commit. A machine that is busy with them takes
some 4 ms for each, so that the wait is a fraction of what a search takes anyway."""
LINGER_S_MAX: Final = 0.02
"""However many are under way: they may be waiting for a system that is away."""

Asked = TypeVar("Asked", bound=Message)
Answered = TypeVar("Answered", bound=Message)


@dataclass(frozen=True)
class Bounds:
    """How much may wait and travel."""

    items: int
    """In one message."""
    size: int
    """Bytes after which a message is full."""
    waiting: int
    """Past this new questions are refused instead of piling up."""
    messages: int
    """Under way at a time. Fewer means fuller messages, and a longer wait for a slow one."""
    patience_s: float
    """What has waited so long for its turn is not asked any more."""
    alongside: int = 1
    """So many must wait for a message to go while another is under way. Fewer wait for its answer."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Asked, Answered]):
    asked: Asked
    size: int
    until: float
    done: asyncio.Future[Answered]


class Batcher(Generic[Asked, Answered]):
    """Sends questions of one kind to one service."""

    def __init__(
        self,
        name: str,
        send: Callable[[list[Asked], float], Awaitable[Sequence[Answered]]],
        bounds: Bounds,
        under_way: Callable[[], int] = lambda: 0,
    ) -> None:
        """`name` begins the reasons of errors: LEDGER_BUSY.

        `send` is told within how many seconds the other side must begin. Raises ServiceError.
        `under_way` gives how many searches are: the more, the longer a message waits for company where the
        one before it had some.
        """
        self._name = name
        self._send = send
        self._bounds = bounds
        self._searches_under_way = under_way
        self._waiting: deque[_Waiting[Asked, Answered]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._more_expected = False
        self._lingering: asyncio.TimerHandle | None = None

    async def ask(self, asked: Asked, until: float | None = None) -> Answered:
        """The answer. Raises ServiceError. `until` is when the asker gives up, by the loop's clock."""
        bounds = self._bounds
        if len(self._waiting) >= bounds.waiting:
            raise Overloaded(
                f"{self._name}_BUSY", f"{bounds.waiting} others wait for an answer", retry_after_s=1
            )
        loop = asyncio.get_running_loop()
        patience = loop.time() + bounds.patience_s
        if until is None or patience < until:
            until = patience
        done: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append(_Waiting(asked, asked.ByteSize(), until, done))
        self._send_more()
        return await done

    def _send_more(self) -> None:
        bounds = self._bounds
        while self._waiting and len(self._under_way) < bounds.messages:
            if self._under_way and len(self._waiting) < bounds.alongside:
                break
            if self._more_expected and len(self._waiting) < bounds.items:
                self._linger()
                break
            task = asyncio.create_task(self._send_batch())
            self._under_way.add(task)
            task.add_done_callback(self._sent)
            if len(self._under_way) * bounds.items >= len(self._waiting):
                break

    def _linger(self) -> None:
        if self._lingering is None:
            linger_s = min(self._searches_under_way() * LINGER_EACH_S, LINGER_S_MAX)
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(linger_s, self._lingered)

    def _lingered(self) -> None:
        self._lingering = None
        self._more_expected = False
        self._send_more()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("batch failed", exc_info=error, extra={"fields": {"of": self._name}})
        self._send_more()

    async def _send_batch(self) -> None:
        # One turn of the loop, so that questions that come together go together.
        await asyncio.sleep(0)
        batch: list[_Waiting[Asked, Answered]] = []
        size = 0
        now = asyncio.get_running_loop().time()
        while self._waiting and len(batch) < self._bounds.items and size < self._bounds.size:
            waiting = self._waiting.popleft()
            if waiting.until < now:
                _fail([waiting], self._not_asked())
                continue
            batch.append(waiting)
            size += waiting.size
        if not batch:
            return
        # One that went alone was not worth waiting for: where little is asked, nothing waits.
        self._more_expected = len(batch) > 1
        try:
            await self._ask_together(batch)
        finally:
            # Whatever befell: nobody may wait for ever for a batch that is no longer under way.
            _fail(batch, Broken(f"{self._name}_ANSWER", "what became of the question is not known"))

    async def _ask_together(self, batch: list[_Waiting[Asked, Answered]]) -> None:
        try:
            last = max(waiting.until for waiting in batch)
            within_s = last - asyncio.get_running_loop().time()
            answers = await self._send([waiting.asked for waiting in batch], within_s)
            if len(answers) != len(batch):
                raise Broken(f"{self._name}_ANSWER", "the answer is to another number of questions")
        except ServiceError as error:
            if len(batch) == 1 or not isinstance(error, InvalidRequest):
                _fail(batch, error)
                return
            # One bad question must not sink the others.
            for waiting in batch:
                await self._ask_together([waiting])
            return
        for waiting, answered in zip(batch, answers, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(answered)

    def _not_asked(self) -> ServiceError:
        return Unavailable(
            f"{self._name}_UNAVAILABLE",
            f"not asked within {self._bounds.patience_s:.0f} s or the caller's deadline",
            retry_after_s=1,
        )


def _fail(batch: Sequence[_Waiting[Asked, Answered]], error: ServiceError) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)
            waiting.done.exception()  # a caller that has gone must not leave a warning
