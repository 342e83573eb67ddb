"""Brokers of peers as ours may meet them."""

import asyncio
from pathlib import Path

from broker.peer_client import PeerClient
from countersign.broker.v1.broker_pb2 import Search
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from shared.errors import NotFound, ServiceError, Unavailable
from shared.settings import TlsFiles

_TLS = TlsFiles(certificate=Path("none"), key=Path("none"), authority=Path("none"))


class PeerThatKnowsNothing(PeerClient):
    """Has been referred nothing, and says so."""

    def __init__(self) -> None:
        super().__init__("peer.test:1", _TLS)
        self.asked: list[str] = []
        self.withdrawn: list[str] = []

    async def get(self, search_id: str, wait_s: float = 0) -> Search:
        """As any that it has not."""
        self.asked.append(search_id)
        raise NotFound("SEARCH_UNKNOWN", "no such search")

    async def withdraw(self, search_id: str) -> Search:
        """Likewise."""
        self.withdrawn.append(search_id)
        raise NotFound("SEARCH_UNKNOWN", "no such search")


class PeerThatIsAway(PeerThatKnowsNothing):
    """Is out of reach until it `is_back`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = False

    async def withdraw(self, search_id: str) -> Search:
        """Hears nothing before."""
        if not self.is_back:
            raise Unavailable("PEER", "out of reach")
        self.withdrawn.append(search_id)
        return Search()


class PeerThatHangs(PeerThatKnowsNothing):
    """Is out of reach at first, and then answers nothing any more."""

    async def withdraw(self, search_id: str) -> Search:
        """Only the first one hears anything."""
        self.withdrawn.append(search_id)
        if len(self.withdrawn) > 1:
            await asyncio.Event().wait()
        raise Unavailable("PEER", "out of reach")


class PeerThatSays(PeerThatKnowsNothing):
    """Says of what is referred to it what it is told to, in turn."""

    def __init__(self, *says: Search | ServiceError) -> None:
        super().__init__()
        self.says = list(says)

    async def refer(self, request: ReferSearchRequest) -> Search:
        """The next."""
        said = self.says.pop(0)
        if isinstance(said, ServiceError):
            raise said
        return said


class PeerThatIsSlow(PeerThatKnowsNothing):
    """Has a search only some time after it was referred, and its word of it is lost, or worth nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.referred = asyncio.Event()
        self.arrives = asyncio.Event()
        self.loses_word = True

    async def refer(self, request: ReferSearchRequest) -> Search:
        """Waits until it `arrives`."""
        self.referred.set()
        await self.arrives.wait()
        if self.loses_word:
            raise Unavailable("PEER", "out of reach")
        return Search()

    async def withdraw(self, search_id: str) -> Search:
        """Has it only once it has arrived."""
        if not self.arrives.is_set():
            raise NotFound("SEARCH_UNKNOWN", "no such search")
        self.withdrawn.append(search_id)
        return Search()
