"""The appending process's side of the query index: starts the follower, and asks it.

When the follower ends, whoever waits for an answer is told to come again, and it is started anew after a
pause. Nothing here is waited for by an append.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any, Final

from ledger.index_messages import Answer, Ask, Behind, FollowerSettings, Progress, Unusable
from ledger.questions import (
    Counts,
    Dimension,
    Found,
    FoundShopping,
    OpenDuties,
    Question,
    ShoppingQuestion,
    SpanCounts,
)
from shared import telemetry
from shared.errors import Overloaded, Unavailable

log = logging.getLogger(__name__)

WAIT_S_MAX: Final = 5.0
"""How long a question waits for the index to come to the published size before it is told how far it is."""
ANSWER_S_MAX: Final = 30.0
"""A follower that has not answered by then is not waited for."""
START_AFTER_S: Final = 10.0
"""Who appends first waits for the writer, and not for the index's process beside it; whoever asks first is
waited for instead. No longer than entries wait in any case that nobody asks for (`follower.LATE_S`)."""
RESTART_PAUSE_S: Final = 2.0
QUESTIONS_MAX: Final = 256
"""Questions that may wait; each is some milliseconds of work."""
STOP_S_MAX: Final = 5.0

_indexed_entries = telemetry.meter.create_gauge(
    "countersign.ledger.index.entries", unit="{entry}", description="Entries in the query index"
)


class IndexProcess:
    """A follower that runs, and is started again when it ends."""

    def __init__(self, settings: FollowerSettings, wait_s: float = WAIT_S_MAX) -> None:
        self._settings = settings
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._peer: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unusable: Unusable | None = None
        self._again: asyncio.TimerHandle | None = None
        self._closing = False
        self.indexed = 0
        """How many entries are indexed, as far as is known here."""
        self.starts = 0

    @property
    def process_id(self) -> int | None:
        """The follower's process; None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self, after_s: float = 0) -> None:
        """Start the follower, after so long or at the first question."""
        if after_s:
            self._again = self._loop.call_later(after_s, self.start)
            return
        if self._again is not None:
            self._again.cancel()
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "ledger.follower", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._peer = peer = Connection(ours.detach())
        self.starts += 1
        peer.send(self._settings)
        threading.Thread(
            target=self._listen, args=(peer,), name="ledger-index", daemon=True
        ).start()

    async def close(self) -> None:
        """End the follower."""
        self._closing = True
        if self._again is not None:
            self._again.cancel()
        self._fail_all()
        peer, process = self._peer, self._process
        if peer is not None:
            # The thread that listens has the connection too: shut down, both its ends are told.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(peer.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        if process is not None:
            await asyncio.to_thread(_end, process)

    async def page(self, question: Question, count_max: int) -> Found:
        """Find entries by index. Raises Unavailable, Overloaded."""
        found: Found = await self._ask("page", question.size, question, count_max)
        return found

    async def last(self, question: Question) -> int | None:
        """Find the last entry. Raises Unavailable, Overloaded."""
        index: int | None = await self._ask("last", question.size, question)
        return index

    async def count(self, question: Question, dimensions: tuple[Dimension, ...]) -> Counts:
        """Count entries in groups. Raises Unavailable, Overloaded."""
        counts: Counts = await self._ask("count", question.size, question, dimensions)
        return counts

    async def span(self, first: int, until_us: int, size: int) -> SpanCounts:
        """Count a span of indexes (see index_queries). Raises Unavailable, Overloaded."""
        counts: SpanCounts = await self._ask("span", size, first, until_us, size)
        return counts

    async def duties(self, size: int, now_us: int) -> list[OpenDuties]:
        """Count the duties that nobody has said were done (see `duties`). Raises Unavailable, Overloaded."""
        found: list[OpenDuties] = await self._ask("duties", size, size, now_us)
        return found

    async def shopping(self, asked: ShoppingQuestion, count_max: int) -> FoundShopping:
        """Find permits that came after refusals (see `shopping`). Raises Unavailable, Overloaded."""
        found: FoundShopping = await self._ask("shopping", asked.size, asked, count_max)
        return found

    async def _ask(self, question: str, size: int, *arguments: Any) -> Any:
        if self._unusable is not None:
            raise Unavailable(self._unusable.reason, self._unusable.message, retry_after_s=5)
        if not self.starts and not self._closing:
            self.start()
        if self._peer is None:
            raise _restarting()
        if len(self._asked) >= QUESTIONS_MAX:
            raise Overloaded(
                "INDEX_BUSY", f"{QUESTIONS_MAX} questions wait already", retry_after_s=1
            )
        number = next(self._numbers)
        self._asked[number] = answered = self._loop.create_future()
        try:
            try:
                self._peer.send(Ask(number, size, self._wait_s, question, arguments))
            except OSError:
                raise _restarting() from None
            async with asyncio.timeout(ANSWER_S_MAX):
                answer = await answered
        except TimeoutError:
            raise Unavailable(
                "INDEX_SLOW", f"no answer from the query index in {ANSWER_S_MAX:g} s"
            ) from None
        finally:
            self._asked.pop(number, None)
        if isinstance(answer, Behind):
            raise Unavailable(
                "INDEX_BEHIND",
                f"the query index has {answer.indexed} of {size} entries; it is being filled",
                metadata={"indexed": str(answer.indexed), "size": str(size)},
                retry_after_s=2,
            )
        return answer.value

    # On the thread that listens.

    def _listen(self, peer: Connection) -> None:
        with peer:
            while True:
                try:
                    said = peer.recv()
                except (EOFError, OSError):
                    said = None
                try:
                    self._loop.call_soon_threadsafe(functools.partial(self._hear, peer, said))
                except RuntimeError:
                    return  # the loop has closed: nobody waits any more
                if said is None:
                    return

    # Back on the loop.

    def _hear(self, peer: Connection, said: object) -> None:
        if isinstance(said, Answer | Behind):
            waiting = self._asked.get(said.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(said)
        elif isinstance(said, Progress):
            self.indexed = said.indexed
            self._unusable = None
            _indexed_entries.set(said.indexed)
        elif isinstance(said, Unusable):
            self._unusable = said
            fields = {"reason": said.reason, "what": said.message}
            log.error("query index unusable", extra={"fields": fields})
        elif peer is self._peer:
            self._peer = None
            self._fail_all()
            if not self._closing:
                log.warning("the query index's process ended; it is started again")
                self._again = self._loop.call_later(RESTART_PAUSE_S, self._restart)

    def _restart(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()  # it has closed its end: it is gone, or is now
        self.start()

    def _fail_all(self) -> None:
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(_restarting())


def _restarting() -> Unavailable:
    return Unavailable("INDEX_RESTARTING", "the query index is being started", retry_after_s=2)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def running_index(
    settings: FollowerSettings, wait_s: float = WAIT_S_MAX, start_after_s: float = START_AFTER_S
) -> AsyncIterator[IndexProcess]:
    """A follower that is ended at the end."""
    process = IndexProcess(settings, wait_s)
    process.start(start_after_s)
    try:
        yield process
    finally:
        await process.close()
