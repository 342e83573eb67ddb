"""A gRPC channel that lives for months, and shows a renewed certificate.

gRPC reads a client's certificate once, when the channel is made (grpc issue 15735). So a channel is made
anew for the next call once the files have changed; calls that are under way end on the old one.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import grpc

from shared.settings import TlsFiles
from shared.tls import Renewal

LOOK_EVERY_S: Final = 1.0
"""To look at three files costs a call one hundredth more, so not each call does."""
OLD_CALLS_END_S: Final = 330.0
"""Longer than the longest call of a client, which watches a search for five minutes."""


class RenewedChannel(grpc.aio.Channel):
    """Several channels in turn, of which the newest takes calls."""

    def __init__(
        self, tls: TlsFiles, made: Callable[[], grpc.aio.Channel], look_every_s: float
    ) -> None:
        """`made` makes a channel from the files. Raises OSError when they cannot be read."""
        self._made = made
        self._look_every_s = look_every_s
        self._look_at = time.monotonic() + look_every_s
        self._renewal = Renewal(tls)
        self._newest = made()
        self._ending: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    @property
    def newest(self) -> grpc.aio.Channel:
        """The channel for a new call."""
        now = time.monotonic()
        if now < self._look_at:
            return self._newest
        self._look_at = now + self._look_every_s
        renewed = self._renewal.renewed(self._made)
        if renewed is not None:
            self._end(self._newest)
            self._newest = renewed
        return self._newest

    def _end(self, old: grpc.aio.Channel) -> None:
        ending = asyncio.create_task(old.close(OLD_CALLS_END_S))
        self._ending[ending] = old
        ending.add_done_callback(lambda ended: self._ending.pop(ended, None))

    async def close(self, grace: float | None = None) -> None:
        """Ends all of them."""
        ending = dict(self._ending)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.gather(*(one.close(grace) for one in (self._newest, *ending.values())))

    async def __aenter__(self) -> Self:
        """Gives itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Ends all of them."""
        await self.close()

    def unary_unary(self, *method: Any, **more: Any) -> Any:
        """What makes a call of a method, at the newest channel."""
        return _Method(self, "unary_unary", method, more)

    def unary_stream(self, *method: Any, **more: Any) -> Any:
        """Likewise."""
        return _Method(self, "unary_stream", method, more)

    def stream_unary(self, *method: Any, **more: Any) -> Any:
        """Likewise."""
        return _Method(self, "stream_unary", method, more)

    def stream_stream(self, *method: Any, **more: Any) -> Any:
        """Likewise."""
        return _Method(self, "stream_stream", method, more)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the newest."""
        return self._newest.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the newest."""
        await self._newest.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Once the newest is connected."""
        await self._newest.channel_ready()


class _Method:
    """A method of a service, at whichever channel is the newest when it is called."""

    def __init__(
        self, channel: RenewedChannel, kind: str, method: tuple[Any, ...], more: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._method = method
        self._more = more
        self._at: tuple[grpc.aio.Channel, Any] | None = None

    def __call__(self, request: Any, **more: Any) -> Any:
        """Makes the call."""
        newest = self._channel.newest
        if self._at is None or self._at[0] is not newest:
            self._at = newest, getattr(newest, self._kind)(*self._method, **self._more)
        return self._at[1](request, **more)
