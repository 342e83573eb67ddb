"""The policy service's configuration."""

from shared.settings import BusSettings, ConfigPath, ListenSettings, ProcessSettings


class PolicySettings(ProcessSettings):
    """One file, `policy.toml`."""

    trust_domain: str
    """SPIFFE trust domain of every caller; certificates of another are refused."""
    listen: ListenSettings
    bus: BusSettings
    registry: ConfigPath
    """Registry of agencies, systems, galleries and officers (TOML)."""
    directives: ConfigPath
    """Folder with the vocabulary and one folder for each directive. All are loaded, or none."""
    trust_roots: ConfigPath | None = None
    """Trust roots (JSON). With `directive_signers` in them, a directive that its party has not signed is
    refused. Without, nobody asks who wrote the directives, and the log says so at each start."""
