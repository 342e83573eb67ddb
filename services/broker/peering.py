"""The connections between this broker and those of its peers: ours to them, and a port for each of them.

Each peer has a port of its own because what a certificate is worth depends on who issued it: a port takes
the certificates of one trust bundle, and of these only those of the trust domain that the bundle stands
for. On one port for all, the authority of one peer could name the broker of another.
"""

import contextlib
from collections.abc import AsyncIterator, Callable

from broker.config import BrokerSettings, PeerSettings
from broker.peer_client import SERVICE, PeerClient
from broker.peer_service import ACCESS, PeerServicer
from countersign.broker.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from shared.door import Limit
from shared.referral import check_peers, peer_named
from shared.registry import Peer, TrustRoots
from shared.rpc import RunningServer, start_server
from shared.settings import ListenSettings, SettingsError


def check(settings: BrokerSettings, trust: TrustRoots) -> None:
    """Raises SettingsError or RegistryError unless the trust roots name each peer, and each once."""
    check_peers(trust)
    trusted = {peer.trust_domain for peer in trust.peers}
    unknown = sorted(settings.peers.keys() - trusted)
    if unknown:
        raise SettingsError(f"peers.{unknown[0]}: the trust roots do not name this peer")
    if settings.trust_domain in trusted:
        raise SettingsError(f"trust_domain: {settings.trust_domain} is named as a peer as well")


@contextlib.asynccontextmanager
async def calling(settings: BrokerSettings) -> AsyncIterator[dict[str, PeerClient]]:
    """A client for each peer that searches can be referred to, by trust domain."""
    clients = {
        domain: PeerClient(peer.address, peer.tls)
        for domain, peer in settings.peers.items()
        if peer.address
    }
    try:
        yield clients
    finally:
        for client in clients.values():
            await client.close()


async def doors(
    settings: BrokerSettings,
    trust: TrustRoots,
    servicer_for: Callable[[Peer], PeerServicer],
    limit: Limit,
) -> AsyncIterator[RunningServer]:
    """A port for each peer that may call. Whoever takes one stops it."""
    for domain, one in settings.peers.items():
        peer = peer_named(trust, domain)
        if peer is not None and one.listen:
            yield await _started(peer, servicer_for(peer), one, limit)


async def _started(
    peer: Peer, servicer: PeerServicer, settings: PeerSettings, limit: Limit
) -> RunningServer:
    return await start_server(
        lambda grpc_server: add_PeerServiceServicer_to_server(servicer, grpc_server),
        services=[SERVICE],
        listen=ListenSettings(address=settings.listen, tls=settings.tls),
        trust_domain=peer.trust_domain,
        access=ACCESS,
        limit=limit,
    )
