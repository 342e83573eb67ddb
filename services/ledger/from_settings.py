"""Makes what the configuration names: the keys of the log, and what is asked before it signs."""

from pathlib import Path

from ledger.config import LedgerSettings
from ledger.keys import LogKeys, load_file_key
from ledger.last_signed import FileLastSigned
from ledger.log import Safeguards
from ledger.pkcs11 import load_pkcs11_key
from ledger.postgres_connection import last_signed_parameters
from ledger.postgres_storage import PostgresDatabase
from ledger.restored_notes import FileNotes, Notes, PostgresNotes
from ledger.sqlite_storage import SqliteDatabase


def load_keys(settings: LedgerSettings) -> LogKeys:
    """Find the keys of the log; raises BadKey or SettingsError."""
    return LogKeys(
        *(
            load_file_key(one, settings.origin)
            if isinstance(one, Path)
            else load_pkcs11_key(one, settings.origin)
            for one in settings.signing_keys
        )
    )


def safeguards_of(settings: LedgerSettings, *, alone: bool = True) -> Safeguards:
    """What is asked before anything is signed, as configured; `alone` keeps every other writer out."""
    file = settings.last_signed_file
    if file is None:
        return Safeguards(database_of(settings).open_last_signed)
    # Replicas take the record over from each other; the writer of a SQLite file has it alone.
    alone = alone and isinstance(settings.database, Path)
    return Safeguards(lambda: FileLastSigned.open(file, alone=alone))


def notes_of(settings: LedgerSettings) -> Notes:
    """Where whoever brings the log back leaves word of it; raises SettingsError."""
    file = settings.restored_file
    if file is not None:
        return FileNotes(file)
    assert not isinstance(settings.database, Path), "beside a file lies a file"
    return PostgresNotes(last_signed_parameters(settings.database.postgres))


def database_of(settings: LedgerSettings) -> PostgresDatabase | SqliteDatabase:
    """Where the log is kept."""
    if isinstance(settings.database, Path):
        return SqliteDatabase(settings.database)
    return PostgresDatabase(settings.database.postgres)
