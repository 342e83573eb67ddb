"""The broker's configuration."""

from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field

from broker.limits import LimitSettings
from shared.settings import (
    BusSettings,
    ConfigPath,
    ListenSettings,
    ProcessSettings,
    Section,
    TlsFiles,
)


class PeerSettings(Section):
    """Another installation: how it is reached, and where it may call."""

    tls: TlsFiles
    """Our own certificate and key. `authority` is the peer's trust bundle, and nobody else's: whoever it
    vouches for can call as the peer."""
    address: str = ""
    """`host:port` of its door for us; when empty, nothing is referred there."""
    listen: str = ""
    """`host:port` of our door for it, which is nobody else's; when empty, it cannot call."""


class BrokerSettings(ProcessSettings):
    """One file, `broker.toml`."""

    trust_domain: str
    """SPIFFE trust domain of every caller; certificates of another are refused."""
    listen: ListenSettings
    bus: BusSettings
    registry: ConfigPath | None = None
    """Registry of agencies, systems, galleries and officers (TOML). Without it, the broker follows what
    owners publish in the ledger; who the officers are is then for the policy service alone to know."""
    trust_roots: ConfigPath
    """Public keys of connectors and identity providers (JSON). When owners publish what they register, also
    those of the log, by which that is proved, and of who may take part (`registry_signers`)."""
    order_signing_key: ConfigPath
    """Ed25519 private key that signs orders; its public half is in every connector's trust roots."""
    default_wait: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))
    """How long an order waits for its connector when the request does not say (ISO 8601 or seconds)."""
    answers_kept: timedelta = Field(default=timedelta(hours=24), gt=timedelta(minutes=1))
    """How long sealed answers are kept on the bus for the requester to fetch."""
    orders_bytes_max: int = Field(default=1024**3, gt=4 * 1024**2)
    """Bound of one system's waiting orders, in bytes; past it new orders are refused."""
    witnesses_wait: timedelta = Field(
        default=timedelta(0), ge=timedelta(0), le=timedelta(seconds=10)
    )
    """How long an order waits for the ledger's quorum of witnesses under its decision (ISO 8601 or seconds),
    for connectors that have `witnesses`; without the quorum it is not sent. 0: it does not wait."""
    peers: Mapping[str, PeerSettings] = Field(default_factory=dict)
    """By trust domain. What each is trusted for is in the trust roots; both must name it."""
    streams_replicas: int = Field(default=1, ge=1, le=5)
    """Copies of orders and answers on the bus: 1 on one node, 3 in a cluster."""
    limits: LimitSettings = LimitSettings()
    """How much one agency and one officer may ask."""
