"""The client's configuration."""

from pathlib import Path
from typing import Final

from pydantic import Field

from shared.registry import Ori
from shared.settings import (
    ConfigPath,
    KeptPath,
    ProcessSettings,
    Section,
    SettingsError,
    TlsFiles,
)


class Endpoint(Section):
    """Where a service listens."""

    address: str
    """`host:port`; the server's certificate must name the host."""


class LedgerEndpoint(Endpoint):
    """Where the ledger listens: for those with a certificate, and for anybody."""

    url: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    """URL prefix below which checkpoint and tiles are; needed for mirror and monitor."""


NOWHERE: Final = Endpoint(address="")
"""Of a service that the file does not name."""


class DevelopmentIdentityProviderSettings(Section):
    """The development identity provider of `countersign up`, which vouches for anyone it is told."""

    issuer: str
    """Its name in tokens, as the trust roots have it."""
    signing_key: ConfigPath
    """Ed25519 private key that signs tokens (PEM)."""


class ClientSettings(ProcessSettings):
    """One file for each agency system, `client.toml`. Who only reads the ledger has a shorter one."""

    agency: Ori = Field(default="", validate_default=False)
    """The agency that this system belongs to; the same as in the certificate's SPIFFE ID. Empty for
    those who ask for no searches."""
    ledger: LedgerEndpoint
    broker: Endpoint = NOWHERE
    """Needed for searches; see `need`."""
    policy: Endpoint = NOWHERE
    """Needed for reading directives; see `need`."""
    tls: TlsFiles
    trust_roots: ConfigPath
    """Public keys of ledger, broker and connectors (JSON), obtained otherwise than from the broker."""
    identity_provider: DevelopmentIdentityProviderSettings | None = None
    """Only for trying things out; in production officers bring tokens of the agency's own provider."""
    state: KeptPath = Field(default=Path("state"), validate_default=True)
    """Folder, readable by its owner only, with the keys that open the answers of pending searches."""

    def need(self, *keys: str) -> None:
        """Raises SettingsError if one of these keys, which not everybody needs, is not set."""
        missing = [key for key in keys if getattr(self, key) in ("", NOWHERE)]
        if missing:
            raise SettingsError(
                f"{' and '.join(missing)} missing: the configuration is one for reading the ledger, "
                "and this needs an agency system's"
            )
