"""The ledger's configuration."""

from pydantic import Field

from shared.settings import BusSettings, ConfigPath, ListenSettings, ProcessSettings


class LedgerSettings(ProcessSettings):
    """One file, `ledger.toml`."""

    trust_domain: str
    """SPIFFE trust domain of every caller; certificates of another are refused."""
    listen: ListenSettings
    bus: BusSettings
    database: ConfigPath
    """SQLite file on a local disk. Beside it lie its write-ahead log and the lock file."""
    create_if_missing: bool = False
    """Begin a new log when the file is not there. Off by default: a wrong path must not begin a second
    history under the same key."""
    origin: str = Field(pattern=r"^[^\s+]{1,255}$")
    """Name of the log, as in every checkpoint and in its verifier key."""
    signing_key: ConfigPath
    """Ed25519 private key that signs checkpoints (PKCS #8 PEM). Used for nothing else."""
