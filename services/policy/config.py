"""The policy service's configuration."""

from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from shared.registry import Ori
from shared.settings import BusSettings, ConfigPath, ListenSettings, ProcessSettings


class AuthzenSettings(ListenSettings):
    """Where decisions are given as OpenID AuthZEN has it. Nobody is answered who has no certificate."""

    url: str | None = Field(default=None, pattern=r"^https://[^\s/?#@]+$")
    """The decision point's identifier: the base URL that callers use. Without it, `https://` and the
    address."""
    agencies: tuple[Ori, ...] = ()
    """Agencies whose systems may ask, each about its own officers and as the origin only. None by default:
    what is asked here is not on record, and only the broker puts on record what it asks."""

    @model_validator(mode="after")
    def _can_be_named(self) -> Self:
        if self.url is None and _every_interface(self.address.rpartition(":")[0]):
            raise ValueError("with every interface in address, url must say what callers use")
        return self


def _every_interface(host: str) -> bool:
    try:
        return not host or ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False  # a name


class PolicySettings(ProcessSettings):
    """One file, `policy.toml`."""

    trust_domain: str
    """SPIFFE trust domain of every caller; certificates of another are refused."""
    listen: ListenSettings
    bus: BusSettings
    registry: ConfigPath | None = None
    """Registry of agencies, systems, galleries and officers (TOML). Without it, owners publish what they
    register in the ledger, and `directives` must be absent too."""
    vocabulary: ConfigPath | None = None
    """Folder with the vocabulary and its earlier versions; `directives` when absent."""
    directives: ConfigPath | None = None
    """Folder with one folder for each directive. All are loaded, or none. Without it, directives come from
    the ledger, where their parties publish them; `vocabulary` and `trust_roots` must be given then."""
    trust_roots: ConfigPath | None = None
    """Trust roots (JSON). With `directive_signers` in them, a directive that its party has not signed is
    refused. Without, nobody asks who wrote the directives, and the log says so at each start. By the log's
    keys in them the ledger's documents are proved."""
    authzen: AuthzenSettings | None = None
    """When set, decisions are also given over HTTPS, as OpenID AuthZEN Authorization API 1.0 has it."""

    @model_validator(mode="after")
    def _can_follow(self) -> Self:
        if self.directives is None and (self.trust_roots is None or self.vocabulary is None):
            raise ValueError(
                "without directives, which then come from the ledger, vocabulary and trust_roots are needed"
            )
        if self.directives is not None and self.registry is None:
            raise ValueError("directives that are files are read against a registry that is one")
        return self

    @property
    def vocabulary_folder(self) -> Path:
        """Where the vocabulary is."""
        folder = self.vocabulary or self.directives
        assert folder is not None, "one of them is given"
        return folder
