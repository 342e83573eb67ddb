"""Ledgers for tests: real files, entries to append, and writers that fail in a named way."""

import sqlite3
import uuid
from datetime import UTC, datetime
from pathlib import Path

from countersign.connector.v1.connector_pb2 import FAILURE_REASON_NO_FACE
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED, DECISION_OUTCOME_REFUSED
from ledger.check import Checked, check
from ledger.entry import CompletedEntry, Completer
from ledger.log import begin_log
from ledger.reading import Reading
from ledger.storage import Storage
from tlog.note import Signer

ORIGIN = "ledger.example/countersign"
SIGNER = Signer.from_seed(ORIGIN, bytes(range(32)))
BROKER = "spiffe://countersign.test/service/broker"
LAPD = "CA0194200"


class ClockThatStandsStill:
    """It is always noon on 13 November 2020."""

    def now(self) -> datetime:
        return datetime(2020, 11, 13, 12, tzinfo=UTC)


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
