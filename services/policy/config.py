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
