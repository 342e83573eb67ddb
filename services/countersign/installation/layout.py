"""What lies where in an installation's data directory.

authority/       the development certificate authority
certificates/    a certificate and key for each process, agency system and the oversight body
keys/            keys that sign and open: broker, ledger, connectors, identity providers
registry.toml    who takes part; yours to edit
directives/      what each party has ordered; yours to edit, and signed for the parties at each start
ledger.policy    the log and the witness that must have cosigned; only with a witness
trust-roots.json public keys that are taken as true
config/          one file for each process, written anew at each start
clients/         one file for each agency system and for oversight, written anew at each start
data/            ledger, streams, connectors' state: what must not be lost
log/             one file for each process
"""

import os
from dataclasses import dataclass
from pathlib import Path

from countersign.installation.keys import KeyFiles
from shared.identity import SpiffeId
from shared.settings import TlsFiles


@dataclass(frozen=True)
class Layout:
    """Names of files and folders below one directory."""

    root: Path

    @property
    def authority(self) -> Path:
        """Certificate of the development authority."""
        return self.root / "authority" / "authority.pem"

    @property
    def authority_key(self) -> Path:
        """Its private key: whoever has it can pass for anybody."""
        return self.root / "authority" / "authority-key.pem"

    def tls(self, identity: SpiffeId) -> TlsFiles:
        """Certificate and key of a process or agency system."""
        stem = f"{identity.kind}-{identity.name}"
        folder = self.root / "certificates"
        return TlsFiles(
            certificate=folder / f"{stem}.pem",
            key=folder / f"{stem}-key.pem",
            authority=self.authority,
        )

    @property
    def keys(self) -> KeyFiles:
        """Keys that sign and open."""
        return KeyFiles(self.root / "keys")

    @property
    def registry(self) -> Path:
        """Who takes part."""
        return self.root / "registry.toml"

    @property
    def directives(self) -> Path:
        """What each party has ordered."""
        return self.root / "directives"

    @property
    def trust_roots(self) -> Path:
        """Public keys that are taken as true."""
        return self.root / "trust-roots.json"

    def config(self, process: str) -> Path:
        """Configuration of a process of ours."""
        return self.root / "config" / f"{process}.toml"

    @property
    def nats_config(self) -> Path:
        """Configuration of the NATS server."""
        return self.root / "config" / "nats-server.conf"

    def client(self, ori: str) -> Path:
        """Configuration of an agency system."""
        return self.root / "clients" / f"{ori}.toml"

    def client_state(self, ori: str) -> Path:
        """Where an agency system keeps the keys of its pending searches."""
        return self.root / "clients" / f"{ori}-state"

    @property
    def oversight_client(self) -> Path:
        """Configuration of an oversight body, which reads the ledger and makes no searches."""
        return self.root / "clients" / "oversight.toml"

    @property
    def streams(self) -> Path:
        """Orders and answers on the bus."""
        return self.root / "data" / "streams"

    @property
    def ledger(self) -> Path:
        """The ledger's database."""
        return self.root / "data" / "ledger" / "ledger.sqlite3"

    @property
    def ledger_begun(self) -> Path:
        """There once a ledger has been begun here: from then on a missing database is a fault."""
        return self.root / "data" / "ledger" / "begun"

    @property
    def cosigned_checkpoint(self) -> Path:
        """The newest checkpoint that a witness has cosigned."""
        return self.root / "data" / "ledger" / "cosigned-checkpoint"

    @property
    def policy(self) -> Path:
        """tlog-policy: the log, and the witness that runs here. Written at each start with a witness."""
        return self.root / "ledger.policy"

    @property
    def witness(self) -> Path:
        """What the witness that runs here has cosigned."""
        return self.root / "data" / "witness" / "witness.sqlite3"

    @property
    def witness_begun(self) -> Path:
        """There once a witness has run here: from then on it must not forget what it cosigned."""
        return self.root / "data" / "witness" / "begun"

    def connector_state(self, system: str) -> Path:
        """What a connector keeps."""
        return self.root / "data" / f"connector-{system}"

    def log(self, process: str) -> Path:
        """What a process writes to its standard error."""
        return self.root / "log" / f"{process}.log"

    @property
    def lock(self) -> Path:
        """Held by the `countersign up` that runs here."""
        return self.root / "up.lock"

    def seen_from(self, file: Path, path: Path) -> str:
        """A path as the file names it: relative to its own folder, so that all can be moved together."""
        if not path.is_relative_to(self.root):
            return str(path)
        return os.path.relpath(path, file.parent)
