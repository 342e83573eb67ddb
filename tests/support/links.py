"""A link between two processes of this machine that a test can cut and slow down, without any rights.

It carries bytes and knows nothing of them, so that TLS goes through it from end to end.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Self, TypeVar

from countersign.installation.ports import LOOPBACK
from support.wires import Wire

Done = TypeVar("Done")

CHUNK_BYTES: Final = 64 * 1024
BOUND_S: Final = 10.0


class Link:
    """Listens on a port of its own and carries each connection to the first target that takes it."""

    def __init__(
        self,
        targets: Sequence[int],
        *,
        listening: socket.socket | None = None,
        wire: Wire | None = None,
    ) -> None:
        """`listening` to listen there; with a wire, the targets are ports at the far end of it."""
        self.port = 0
        self.wire = wire
        self._targets = targets
        self._listening = listening
        self._delay_s = 0.0
        self._is_cut = False
        self._carrying: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Begins to listen."""
        self._thread.start()
        listening = self._listening or socket.create_server((LOOPBACK, 0))
        self._server = self._do(asyncio.start_server(self._take, sock=listening))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all that it carries."""
        self._do(self._cut())
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND_S)
        self._loop.close()

    def cut(self) -> None:
        """Ends every connection and takes no new one."""
        self._do(self._cut())

    def slow(self, delay_s: float) -> None:
        """Carries everything later by so much."""
        self._delay_s = delay_s

    def mend(self) -> None:
        """As if nothing had been."""
        self._is_cut, self._delay_s = False, 0.0
        if self.wire is not None:
            self.wire.mend()

    def _do(self, work: "Coroutine[Any, Any, Done]") -> Done:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND_S)

    async def _cut(self) -> None:
        self._is_cut = True
        for task in self._carrying:
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = asyncio.current_task()
        assert here is not None
        self._carrying.add(here)
        here.add_done_callback(self._carrying.discard)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(_closed, writer)
                if self._is_cut:
                    return
                target_reader, target_writer = await self._reach()
                stack.push_async_callback(_closed, target_writer)
                ways = [self._carry(reader, target_writer), self._carry(target_reader, writer)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for target in self._targets:
            with contextlib.suppress(OSError):
                if self.wire is not None:
                    return await self.wire.reach(target)
                return await asyncio.open_connection(LOOPBACK, target)
        raise ConnectionRefusedError

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()


def wired(stack: contextlib.ExitStack, targets: Sequence[int]) -> Link:
    """A link over a wire that can lose packets and be late with them. Raises NoWire."""
    wire = stack.enter_context(Wire())
    far = stack.enter_context(Link(targets, listening=wire.listen()))
    return stack.enter_context(Link([far.port], wire=wire))


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
