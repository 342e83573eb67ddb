"""The ledger's configuration."""

from pydantic import Field

from shared.settings import BusSettings, ConfigPath, ListenSettings, ProcessSettings, Section


class HttpTls(Section):
    """Certificate of the public port, as PEM files. Its readers show none."""

    certificate: ConfigPath
    key: ConfigPath


class HttpSettings(Section):
    """Where anybody may read the log: checkpoint, tiles and entry bundles, as tlog-tiles serves them."""

    listen: str = Field(pattern=r"^.+:[0-9]{1,5}$")
    """`host:port`; port 0 takes a free one. Nothing that is served there is secret."""
    prefix: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path below which all is served, such as `/log`; empty for the top."""
    tls: HttpTls | None = None
    """When set, it speaks HTTPS. What is served bears its own signatures, so plain HTTP does as well."""
    port_file: ConfigPath | None = None
    """When set, the port is written here once the server listens; for port 0."""


class ExportSettings(Section):
    """Where the same files are written for a static server or an object store."""

    folder: ConfigPath
    every_s: float = Field(default=10.0, ge=0.1, le=3600)
    """At most this often, and only when the log has grown."""


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
    http: HttpSettings | None = None
    """Serves the log to anybody; off when left out."""
    export: ExportSettings | None = None
    """Writes the log as files, a little behind; off when left out."""
