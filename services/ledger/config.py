"""The ledger's configuration."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field

from ledger.keys import KEYS_MAX
from ledger.last_signed import beside
from ledger.pkcs11 import Pkcs11KeySettings
from ledger.postgres_connection import PostgresSettings
from shared.settings import (
    BusSettings,
    ConfigPath,
    KeptPath,
    ListenSettings,
    ProcessSettings,
    Section,
)


class HttpTls(Section):
    """Certificate of the public port, as PEM files. Its readers show none."""

    certificate: ConfigPath
    """Certificate chain with the name that readers use."""
    key: ConfigPath
    """Private key."""


class HttpSettings(Section):
    """Where anybody may read the log: checkpoint, tiles and entry bundles, as tlog-tiles serves them."""

    listen: str = Field(pattern=r"^.+:[0-9]{1,5}$")
    """`host:port`; port 0 takes a free one. Nothing that is served there is secret."""
    prefix: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path below which all is served, such as `/log`; empty for the top."""
    tls: HttpTls | None = None
    """When set, it speaks HTTPS. What is served bears its own signatures, so plain HTTP does as well."""
    port_file: KeptPath | None = None
    """When set, the port is written here once the server listens; for port 0."""


class ExportSettings(Section):
    """Where the same files are written for a static server or an object store."""

    folder: KeptPath
    """Made when it is not there. An export of another history in it is never written over."""
    every_s: float = Field(default=10.0, ge=0.1, le=3600)
    """At most this often, and only when the log has grown."""


class IndexSettings(Section):
    """The query index, which is derived from the entries and can be dropped at any time."""

    file: KeptPath | None = None
    """DuckDB file; beside the database when left out. Made anew when it is missing or does not fit."""
    period: Literal["none", "hour", "day"] = "day"
    """How often a period is closed, in UTC: its entries are counted into an entry, by agency and kind."""


class WitnessingSettings(Section):
    """Who must have cosigned a checkpoint, and how witnesses are asked for it."""

    policy: ConfigPath
    """tlog-policy file with the witnesses, their URLs and the quorum. Its log lines, if any, must have a
    key of this ledger."""
    cosigned_checkpoint: KeptPath
    """File that keeps the newest checkpoint with a quorum, on a local disk beside the ledger."""
    authority: ConfigPath | None = None
    """Certificates of the authorities that witnesses' HTTPS certificates are checked against (PEM); the
    system's when left out."""
    timeout_s: float = Field(default=1.5, ge=0.05, le=10)
    """For one request to a witness."""
    interval_s: float = Field(default=1.0, ge=0.05, le=3600)
    """Between two checkpoints that witnesses are asked to cosign while the log grows."""
    heartbeat_s: float = Field(default=60.0, ge=0.1, le=3600)
    """After which an unchanged checkpoint is cosigned afresh."""
    alarm_after_s: float = Field(default=120.0, ge=0.1)
    """Time without a quorum after which that is logged as an error."""
    unhealthy_after_s: float = Field(default=300.0, ge=0.1)
    """Time without a quorum after which the health check of `witnesses` fails."""
    heard_at_start: Literal["when_in_doubt", "always"] = "when_in_doubt"
    """After a start, whether so many witnesses must have answered that no quorum is without one of them,
    before anything is signed: `always`, or only when the record of the last signature does not vouch for
    the database. `always` where a snapshot may bring both back together (decision 0011)."""


class ReconciliationSettings(Section):
    """When a connector should have said what it ran."""

    grace_hours: float = Field(default=36.0, ge=26, le=24 * 30)
    """An answer that is on record for so long and in no report of its connector is an alarm."""
    expected_from: date | None = None
    """First day of which every connector reports. A connector that has reported once is expected to anyway;
    set this when all are new enough, so that one that never reports is an alarm too."""


class OpeningsSettings(Section):
    """Where the keys of the openings are. Back them up apart from the database, and for a short time only."""

    provider_keys: KeptPath | None = None
    """Folder with the outermost keys, `v1.key` and so on; by default beside the database, with the ending
    `.opening-keys`."""
    key_store: KeptPath | None = None
    """SQLite file with the wrapped keys; by default beside the database, with the ending `.key-store`."""


class DatabaseSettings(Section):
    """Where the log is kept, when not in a SQLite file."""

    postgres: PostgresSettings
    """How to reach it; `ledger-migrate` has made its tables before."""


class LedgerSettings(ProcessSettings):
    """One file, `ledger.toml`."""

    trust_domain: str
    """SPIFFE trust domain of every caller; certificates of another are refused."""
    listen: ListenSettings
    bus: BusSettings
    database: KeptPath | DatabaseSettings
    """SQLite file on a local disk; beside it lie its write-ahead log and the lock file. Or a PostgreSQL
    database: `[database.postgres]`."""
    create_if_missing: bool = False
    """Begin a new log when the file is not there. Off by default: a wrong path must not begin a second
    history under the same key."""
    origin: str = Field(pattern=r"^[^\s+]{1,255}$")
    """Name of the log, as in every checkpoint and in its verifier key."""
    signing_keys: tuple[ConfigPath | Pkcs11KeySettings, ...] = Field(
        min_length=1, max_length=KEYS_MAX
    )
    """Private keys that sign checkpoints, and are used for nothing else: Ed25519 in files (PKCS #8 PEM) or
    in a hardware module, and beside one of these ML-DSA-44 in files of `countersign-ledger new-key`. All
    sign: one of a kind as a rule, two during a rotation (docs/key-rotation.md)."""
    last_signed: KeptPath | None = None
    """File that remembers which checkpoint was signed last, so that an old copy of the database is never
    taken for the newest. `<database>.last-signed` by default; better on another disk, and in no backup
    (docs/runbooks/ledger-refuses-to-start.md)."""
    heartbeat_s: float | None = Field(default=None, ge=0.1, le=86_400)
    """Seconds without an entry after which the log records a sign of life, with a promise of the next; off
    when left out. Witnesses' cosignatures are one too, but without witnesses there is no other."""
    http: HttpSettings | None = None
    """Serves the log to anybody; off when left out."""
    index: IndexSettings = IndexSettings()
    export: ExportSettings | None = None
    """Writes the log as files, a little behind; off when left out."""
    witnessing: WitnessingSettings | None = None
    """Has witnesses cosign the checkpoints; off when left out."""
    openings: OpeningsSettings = OpeningsSettings()
    """Where their keys are."""
    reconciliation: ReconciliationSettings = ReconciliationSettings()
    """What connectors say that they ran is compared with the record; needs `trust_roots`."""
    registry: ConfigPath | None = None
    """Registry (TOML) that says who oversees whom, with which rights. Without it, what owners publish in this
    ledger says so."""
    trust_roots: ConfigPath | None = None
    """Trust roots (JSON) with the identity providers of agencies, the keys of connectors, and the keys of who
    may take part. Without it no agency reads openings and no connector reports what it ran, and without
    `registry` besides, nobody reads openings."""

    @property
    def provider_keys(self) -> Path:
        """Give the folder with the outermost keys of the openings."""
        return self.openings.provider_keys or _beside(self.database, ".opening-keys")

    @property
    def key_store(self) -> Path:
        """Give the file with their wrapped keys."""
        return self.openings.key_store or _beside(self.database, ".key-store")

    @property
    def restored_file(self) -> Path | None:
        """The note that `restore` and `adopt` leave for the writer to put on record; None in a database."""
        if isinstance(self.database, Path):
            return _beside(self.database, ".restored")
        # Where every replica looks: the one that ran the command may not be the next to write.
        return None if self.last_signed is None else _with(self.last_signed, ".restored")

    @property
    def last_signed_file(self) -> Path | None:
        """The file that remembers what was signed last; None when a database does."""
        if self.last_signed is not None or not isinstance(self.database, Path):
            return self.last_signed
        return beside(self.database)


def _beside(database: Path | DatabaseSettings, ending: str) -> Path:
    return _with(database if isinstance(database, Path) else database.postgres.dsn_file, ending)


def _with(file: Path, ending: str) -> Path:
    return file.with_name(f"{file.name}{ending}")
