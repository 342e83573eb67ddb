"""Ledgers for tests: real files, entries to append, and the real process."""

import asyncio
import signal
import subprocess
import sys
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
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.vaults import KEYRING, SEALER, keyring_beside
from support.waiting import until

ORIGIN = "ledger.example/countersign"
SIGNER = FileKey.from_seed(ORIGIN, bytes(range(32)))
BROKER = "spiffe://countersign.test/service/broker"
LAPD = "CA0194200"


COMPLETER = Completer(BROKER, ClockThatStandsStill(), sealer=SEALER)


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


class LedgerProcess:
    """The real program, to be killed."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def database(self) -> SqliteDatabase:
        """The file it writes."""
        return SqliteDatabase(self._config.with_name("ledger.sqlite"))

    async def start(self) -> None:
        """Starts it and waits until it listens."""
        port = self._config.with_name("port")
        port.unlink(missing_ok=True)
        self._spawn()

        async def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._config.with_name("ledger.log").read_text()
            return port.exists() and bool(port.read_text())

        await until(listens)

    async def start_if_ended(self) -> None:
        """Starts it again if it gave up; one that lives is left alone."""
        if not self.lives:
            await self.start()

    @property
    def port(self) -> int:
        """Where it listens now."""
        return int(self._config.with_name("port").read_text())

    @property
    def lives(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def writes(self) -> bool:
        """Whether it has said since its start that it writes (with PostgreSQL)."""
        said = self._config.with_name("ledger.log").read_bytes()[self._log_start :]
        return b"writing from now on" in said

    async def takes_over(self) -> float:
        """Waits until it writes; gives how long that took in seconds."""
        began = time.monotonic()

        async def writes() -> bool:
            return self.writes

        await until(writes)
        return time.monotonic() - began

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on, as if no time had passed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def ends(self) -> int:
        """Waits until it ends by itself; gives its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, 120)

    def _spawn(self) -> None:
        log_file = self._config.with_name("ledger.log")
        self._log_start = log_file.stat().st_size if log_file.exists() else 0
        with self._config.with_name("ledger.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ledger", self._config], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Tells it to end; gives its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=120)


def run_program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `countersign-ledger` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
