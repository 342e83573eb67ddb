"""Ledgers for tests: real files, entries to append, and the real process."""

import subprocess
import time
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from countersign.connector.v1.connector_pb2 import FAILURE_REASON_NO_FACE
from countersign.installation.files import write_secret
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED, DECISION_OUTCOME_REFUSED
from ledger.check import Checked, check
from ledger.entry import CompletedEntry, Completer
from ledger.keys import FileKey
from ledger.log import begin_log
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database
from support.clocks import ClockThatStandsStill
from support.forked import run_forked
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.programs import ProgramUnderTest
from support.vaults import KEYRING, SEALER, keyring_beside
from support.waiting import until

ORIGIN = "ledger.example/countersign"
SIGNER = FileKey.from_seed(ORIGIN, bytes(range(32)))
BROKER = "spiffe://countersign.test/service/broker"
LAPD = "CA0194200"


COMPLETER = Completer(BROKER, ClockThatStandsStill(), sealer=SEALER)
PUBLISHER = Completer(
    "spiffe://countersign.test/service/policy",
    ClockThatStandsStill(),
    sealer=SEALER,
    publisher=True,
)


def search_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def decided(
    number: int, *, permitted: bool = True, agency: str = LAPD, key: str | None = None
) -> PendingEntry:
    """A decision on search `number`, with three sensitive fields."""
    pending = PendingEntry(idempotency_key=f"decided/{search_id(number)}" if key is None else key)
    pending.entry.search_id = search_id(number)
    event = pending.entry.search_decided
    event.summary.origin_agency = agency
    event.summary.system = "lacris"
    event.decision.outcome = DECISION_OUTCOME_PERMITTED if permitted else DECISION_OUTCOME_REFUSED
    for field, value in (
        ("officer", f"officer-{number}"),
        ("case_number", f"case-{number}"),
        ("narrative", "a narrative that is in no leaf"),
    ):
        pending.sensitive.add(field=field, value=value)
    return pending


def failed(number: int) -> PendingEntry:
    """The end of search `number`."""
    pending = PendingEntry(idempotency_key=f"end/{search_id(number)}")
    pending.entry.search_id = search_id(number)
    pending.entry.search_failed.origin_agency = LAPD
    pending.entry.search_failed.reason = FAILURE_REASON_NO_FACE
    return pending


def rejected(reason: str = "OFFICER_TOKEN_EXPIRED") -> PendingEntry:
    """A call that was turned away: no search, no key."""
    pending = PendingEntry()
    pending.entry.request_rejected.reason = reason
    return pending


def complete(*pending: PendingEntry) -> list[CompletedEntry]:
    return [COMPLETER.complete(one, "entry") for one in pending]


def new_log(folder: Path) -> SqliteDatabase:
    """A file with a log without entries."""
    database = SqliteDatabase(folder / "ledger.sqlite")
    begin_log(database, SIGNER)
    return database


def assert_whole(database: Database) -> Checked:
    """The oracle: everything stored verifies."""
    path = getattr(database, "path", None)
    of_process = None if path is None else keyring_beside(path)
    # A PostgreSQL database under test knows its own.
    of_process = getattr(database, "keyring", lambda: of_process)()
    reading = database.open_for_reading()
    try:
        return check(reading, [SIGNER.verifier], keyring=of_process or KEYRING)
    finally:
        reading.close()
        if of_process is not None:
            of_process.close()


def write_settings(folder: Path, nats: NatsUnderTest, database: object = None) -> Path:
    """A configuration file for a ledger process on a free port, with its key."""
    tls = nats.certificates.tls("service", "ledger", listens=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    write_secret(
        folder / "note.pem",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    files = f'certificate = "{tls.certificate}"\nkey = "{tls.key}"\nauthority = "{tls.authority}"\n'
    # A PostgreSQL database under test says how it is written in a configuration.
    kept = getattr(database, "in_settings", '"ledger.sqlite"')
    config = folder / "ledger.toml"
    config.write_text(
        f'trust_domain = "{TRUST_DOMAIN}"\ndatabase = {kept}\norigin = "{ORIGIN}"\n'
        f'signing_keys = ["note.pem"]\ncreate_if_missing = true\n'
        f'[listen]\naddress = "127.0.0.1:0"\nport_file = "port"\n[listen.tls]\n{files}'
        f'[bus]\nservers = ["tls://127.0.0.1:{nats.port}"]\n[bus.tls]\n{files}'
        # Replicas under test share a connection string, beside which the index would lie.
        '[index]\nfile = "index.duckdb"\n'
    )
    return config


class LedgerProcess(ProgramUnderTest):
    """The real program."""

    def __init__(self, config: Path) -> None:
        super().__init__(config, "ledger")

    @property
    def database(self) -> SqliteDatabase:
        """The file it writes."""
        return SqliteDatabase(self.config.with_name("ledger.sqlite"))

    async def start_if_ended(self) -> None:
        """Starts it again if it gave up; one that lives is left alone."""
        if not self.lives:
            await self.start()

    @property
    def writes(self) -> bool:
        """Whether it has said since its start that it writes (with PostgreSQL)."""
        return b"writing from now on" in self.said

    async def takes_over(self) -> float:
        """Waits until it writes; gives how long that took in seconds."""
        began = time.monotonic()

        async def writes() -> bool:
            return self.writes

        await until(writes)
        return time.monotonic() - began


def run_program(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `countersign-ledger` with these arguments, and perhaps an input, to its end."""
    return run_forked("ledger", *arguments, given=given)
