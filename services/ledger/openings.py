"""Opens the vault of a ledger: its keys, its rows, and what an earlier run or release left to be done."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.config import LedgerSettings
from ledger.key_provider import FileKeyProvider, unwrap_with
from ledger.key_store import KeyStore, SqliteKeyStore
from ledger.keyring import Keyring, require_opened
from ledger.opening_rows import OpeningRows, SqliteOpeningRows
from ledger.postgres_openings import PostgresKeyStore, PostgresOpeningRows
from ledger.postgres_storage import PostgresDatabase
from ledger.reading import Reading
from ledger.vault import KeyringSealer, Vault
from shared.errors import NotReady
from shared.kinds import KINDS

log = logging.getLogger(__name__)

EXPUNGED = KINDS["openings_expunged"]


@dataclass(frozen=True)
class Openings:
    """The vault, and what seals new entries."""

    sealer: KeyringSealer
    vault: Vault


@contextlib.contextmanager
def opened_keyring(settings: LedgerSettings, *, create: bool = False) -> Iterator[Keyring]:
    """Open the keys that the settings name; raises NotReady."""
    with contextlib.closing(_key_store(settings, create=create)) as store:
        # Another replica's keys are in the store: with one of our own we could not open them.
        make = FileKeyProvider.create if create and not store.holders() else FileKeyProvider
        with contextlib.closing(Keyring(make(settings.provider_keys), store)) as keyring:
            yield keyring


@contextlib.contextmanager
def opened_openings(settings: LedgerSettings) -> Iterator[Openings]:
    """Open the vault of a ledger whose writer this process is; raises NotReady or OpeningDamaged.

    Keys are made only for a ledger that has no sealed opening: with keys that are lost, it must not go on as
    if nothing were.
    """
    rows = _rows(settings)
    with contextlib.closing(rows), opened_keyring(settings, create=_has_none(rows)) as keyring:
        keyring.require_keys()
        vault = Vault(keyring, rows)
        finish(vault, rows)
        yield Openings(KeyringSealer(keyring), vault)


def require_opening_keys(settings: LedgerSettings) -> None:
    """Raise NotReady unless the keys that openings are sealed with are all here, or none is in use yet.

    Asked by a replica before it takes its turn to write. Raises StorageFailed, ServiceError.
    """
    with contextlib.closing(_rows(settings)) as rows:
        is_new = _has_none(rows)
    try:
        store = _key_store(settings, create=False)
    except NotReady as error:
        if is_new and error.reason == "OPENING_KEYS_MISSING":
            return
        raise
    with contextlib.closing(store):
        if is_new and not store.holders():
            return
        Keyring(FileKeyProvider(settings.provider_keys), store).require_keys()


def require_opening(settings: LedgerSettings, keys: Mapping[int, bytes]) -> None:
    """Raise NotReady unless these keys open all that is in the key store, or nothing is sealed yet.

    Raises StorageFailed, ServiceError.
    """
    try:
        store = _key_store(settings, create=False)
    except NotReady as error:
        if error.reason == "OPENING_KEYS_MISSING" and _is_new(settings):
            return
        raise
    with contextlib.closing(store):
        require_opened(store, partial(unwrap_with, keys))


def _is_new(settings: LedgerSettings) -> bool:
    if isinstance(settings.database, Path) and not settings.database.exists():
        return True
    with contextlib.closing(_rows(settings)) as rows:
        return _has_none(rows)


def _has_none(rows: Reading) -> bool:
    return next(iter(rows.every_opening()), None) is None


def _key_store(settings: LedgerSettings, *, create: bool) -> KeyStore:
    kept = settings.database
    if not isinstance(kept, Path) and kept.postgres.key_store_dsn_file is not None:
        return PostgresKeyStore.open(kept.postgres, create=create)
    return SqliteKeyStore.open(settings.key_store, create=create)


def _rows(settings: LedgerSettings) -> SqliteOpeningRows | PostgresOpeningRows:
    if isinstance(settings.database, Path):
        return SqliteOpeningRows.open(settings.database)
    return PostgresOpeningRows.of(PostgresDatabase(settings.database.postgres))


def finish(vault: Vault, rows: OpeningRows) -> None:
    """Do what an earlier run or release left to be done."""
    sealed = vault.seal_clear()
    if rows.rewrite_is_due():
        rows.rewrite()
    if sealed:
        log.warning("openings of release 0.1 were sealed", extra={"fields": {"openings": sealed}})
    if left := vault.finish(expunged_entries(rows)):
        log.warning("an expungement was finished", extra={"fields": {"entries": left}})


def expunged_entries(reading: Reading) -> list[int]:
    """List the entries whose openings should be no more."""
    return [
        index
        for _, leaf in reading.of_kind(EXPUNGED)
        for index in Entry.FromString(leaf).openings_expunged.entry_indexes
    ]
