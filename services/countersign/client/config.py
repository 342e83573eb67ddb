"""The client's configuration."""

from pathlib import Path

from pydantic import Field

from shared.registry import Ori
from shared.settings import ConfigPath, ProcessSettings, Section, TlsFiles


class Endpoint(Section):
    """Where a service listens."""

    address: str
    """`host:port`; the server's certificate must name the host."""


class DevelopmentIdentityProviderSettings(Section):
    """The development identity provider of `countersign up`, which vouches for anyone it is told."""

    issuer: str
    signing_key: ConfigPath


class ClientSettings(ProcessSettings):
    """One file for each agency system, `client.toml`."""

    agency: Ori
    """The agency that this system belongs to; the same as in the certificate's SPIFFE ID."""
    broker: Endpoint
    ledger: Endpoint
    policy: Endpoint
    tls: TlsFiles
    trust_roots: ConfigPath
    """Public keys of ledger, broker and connectors (JSON), obtained otherwise than from the broker."""
    identity_provider: DevelopmentIdentityProviderSettings | None = None
    """Only for trying things out; in production officers bring tokens of the agency's own provider."""
    state: ConfigPath = Field(default=Path("state"), validate_default=True)
    """Folder, readable by its owner only, with the keys that open the answers of pending searches."""
