"""Ledgers for tests: real files, entries to append, and writers that fail in a named way."""

import sqlite3
import subprocess
import sys
import threading
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
from ledger.log import begin_log
from ledger.reading import Reading
from ledger.storage import Storage
from support.clocks import ClockThatStandsStill
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.waiting import WAIT_S_MAX, until
from tlog.note import Signer

ORIGIN = "ledger.example/countersign"
SIGNER = Signer.from_seed(ORIGIN, bytes(range(32)))
BROKER = "spiffe://countersign.test/service/broker"
LAPD = "CA0194200"


COMPLETER = Completer(BROKER, ClockThatStandsStill())


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


def new_log(folder: Path) -> Path:
    """A file with a log without entries."""
    path = folder / "ledger.sqlite"
    begin_log(path, SIGNER)
    return path


def assert_whole(path: Path) -> Checked:
    """The oracle: everything stored verifies."""
    reading = Reading.open(path)
    try:
        return check(reading, SIGNER.verifier)
    finally:
        reading.close()


class StorageThatKeepsButFails(Storage):
    """Commits, and then reports that it could not."""

    def commit(self) -> None:
        super().commit()
        raise _failure(sqlite3.SQLITE_IOERR, "disk I/O error")


class StorageThatLosesAndFails(Storage):
    """Does not commit, and says it does not know."""

    def commit(self) -> None:
        raise _failure(sqlite3.SQLITE_IOERR, "disk I/O error")


class StorageWithAFullDisk(Storage):
    """Finds the disk full at the commit, until there is room again."""

    has_room = False

    def commit(self) -> None:
        if not self.has_room:
            raise _failure(sqlite3.SQLITE_FULL, "database or disk is full")
        super().commit()


class StorageThatTakesItsTime(Storage):
    """Stands in the commit until it is told to go on."""

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection) -> None:
        super().__init__(path, lock, connection)
        self.committing = threading.Event()
        self.go_on = threading.Event()

    def commit(self) -> None:
        self.committing.set()
        assert self.go_on.wait(WAIT_S_MAX)
        super().commit()


class StorageThatCannotInsert(Storage):
    """Finds the file read-only at the first insert, until it is writable again."""

    is_writable = False

    def add_entries(self, start: int, entries: object) -> None:
        if not self.is_writable:
            raise _failure(sqlite3.SQLITE_READONLY, "attempt to write a readonly database")
        super().add_entries(start, entries)  # type: ignore[arg-type]  # passed through


class StorageThatFlipsABit(Storage):
    """Gives an entry back with one bit changed."""

    def read_back(self, start: int) -> list[bytes]:
        first, *rest = super().read_back(start)
        return [bytes([first[0] ^ 1]) + first[1:], *rest]


def _failure(code: int, message: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


def write_settings(folder: Path, nats: NatsUnderTest) -> Path:
    """A configuration file for a ledger process on a free port, with its key."""
    tls = nats.certificates.tls("service", "ledger", listens=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    write_secret(
        folder / "note.pem",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    files = f'certificate = "{tls.certificate}"\nkey = "{tls.key}"\nauthority = "{tls.authority}"\n'
    config = folder / "ledger.toml"
    config.write_text(
        f'trust_domain = "{TRUST_DOMAIN}"\ndatabase = "ledger.sqlite"\norigin = "{ORIGIN}"\n'
        f'signing_key = "note.pem"\ncreate_if_missing = true\n'
        f'[listen]\naddress = "127.0.0.1:0"\nport_file = "port"\n[listen.tls]\n{files}'
        f'[bus]\nservers = ["tls://127.0.0.1:{nats.port}"]\n[bus.tls]\n{files}'
    )
    return config


class LedgerProcess:
    """The real program, to be killed."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        """The file it writes."""
        return self._config.with_name("ledger.sqlite")

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

    def _spawn(self) -> None:
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
        return self._process.wait(timeout=30)


def run_program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `countersign-ledger` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
