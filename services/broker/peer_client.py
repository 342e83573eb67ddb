"""Calls to the broker of a peer."""

from typing import Final

import grpc

from countersign.broker.v1 import peer_pb2 as pb
from countersign.broker.v1.broker_pb2 import Search
from countersign.broker.v1.peer_pb2_grpc import PeerServiceStub
from shared.errors import Unavailable
from shared.rpc import call, open_channel
from shared.settings import TlsFiles

SERVICE: Final = "countersign.broker.v1.PeerService"
TIMEOUT_S: Final = 15.0
"""Covers the peer's own waits for its policy, ledger and bus, and is shorter than our own caller's."""


class PeerClient:
    """One peer."""

    def __init__(self, address: str, tls: TlsFiles) -> None:
        self._address = address
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None

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
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _stub(self) -> PeerServiceStub:
        if self._channel is None:
            try:
                self._channel = open_channel(self._address, self._tls)
            except OSError as error:
                raise Unavailable(
                    "TLS_FILES", "our certificate cannot be read now", retry_after_s=1
                ) from error
        return PeerServiceStub(self._channel)
