"""Calls to the broker of a peer."""

import asyncio
from typing import Final

import grpc

from countersign.broker.v1 import peer_pb2 as pb
from countersign.broker.v1.broker_pb2 import Search
from countersign.broker.v1.peer_pb2_grpc import PeerServiceStub
from shared.errors import Unavailable
from shared.rpc import call, open_channel
from shared.settings import TlsFiles
from shared.tls import modified

SERVICE: Final = "countersign.broker.v1.PeerService"
TIMEOUT_S: Final = 15.0
"""Covers the peer's own waits for its policy, ledger and bus, and is shorter than our own caller's."""


class PeerClient:
    """One peer. The connection is made anew when our certificate has been renewed."""

    def __init__(self, address: str, tls: TlsFiles) -> None:
        self._address = address
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None
        self._stamp: tuple[int, ...] = ()
        self._closing: set[asyncio.Task[None]] = set()

    async def refer(self, request: pb.ReferSearchRequest) -> Search:
        """Refers a search, or refers it again. Raises ServiceError."""
        stub = self._stub()
        response = await call(
            stub.ReferSearch, request, name=f"{SERVICE}/ReferSearch", timeout_s=TIMEOUT_S
        )
        return response.search

    async def get(self, search_id: str, wait_s: float = 0) -> Search:
        """The search as it stands there, or once it has ended within `wait_s`. Raises ServiceError."""
        stub = self._stub()
        request = pb.GetReferredSearchRequest(search_id=search_id)
        if wait_s:
            request.wait.FromMilliseconds(int(wait_s * 1000))
        response = await call(
            stub.GetReferredSearch,
            request,
            name=f"{SERVICE}/GetReferredSearch",
            timeout_s=TIMEOUT_S + wait_s,
        )
        return response.search

    async def withdraw(self, search_id: str) -> Search:
        """Withdraws it there, unless it has ended. Raises ServiceError."""
        stub = self._stub()
        request = pb.WithdrawReferredSearchRequest(search_id=search_id)
        response = await call(
            stub.WithdrawReferredSearch,
            request,
            name=f"{SERVICE}/WithdrawReferredSearch",
            timeout_s=TIMEOUT_S,
        )
        return response.search

    async def close(self) -> None:
        """Ends the connection."""
        for closing in self._closing:
            closing.cancel()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _stub(self) -> PeerServiceStub:
        try:
            stamp = modified(self._tls)
            if self._channel is None or stamp != self._stamp:
                new = open_channel(self._address, self._tls)
                old, self._channel, self._stamp = self._channel, new, stamp
                if old is not None:
                    # What is under way on it ends by itself; nobody waits for that here.
                    closing = asyncio.create_task(old.close(grace=TIMEOUT_S))
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)
        except OSError as error:
            # A renewal that removes before it writes: the channel that is there still does.
            if self._channel is None:
                raise Unavailable(
                    "TLS_FILES", "our certificate cannot be read now", retry_after_s=1
                ) from error
        return PeerServiceStub(self._channel)
