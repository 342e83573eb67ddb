"""Keys of openings for tests: in memory, or where a ledger under test has them."""

import sqlite3
from pathlib import Path

from ledger.key_provider import FileKeyProvider, WrappedKey, open_with, seal_with
from ledger.key_store import TABLES, SqliteKeyStore, SqlKeyStore
from ledger.keyring import Keyring
from ledger.vault import KeyringSealer


class ProviderInMemory:
    """Keeps its versions in a dictionary."""

    def __init__(self) -> None:
        self._keys = {1: bytes(range(32))}

    @property
    def version(self) -> int:
        return max(self._keys)

    def newest(self) -> int:
        return self.version

    def versions(self) -> list[int]:
        return sorted(self._keys)

    def wrap(self, key: bytes, bound_to: bytes) -> WrappedKey:
        return WrappedKey(self.version, seal_with(self._keys[self.version], key, bound_to))

    def unwrap(self, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        return open_with(self._keys[wrapped.version], wrapped.sealed, bound_to)

    def rotate(self) -> int:
        version = self.version + 1
        self._keys[version] = bytes([version]) * 32
        return version

    def destroy(self, version: int) -> None:
        del self._keys[version]


class StoreInMemory(SqlKeyStore):
    """Forgets with the process."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.executescript(TABLES)
        super().__init__(connection)

    def forget(self) -> None:
        """There are no files."""


KEYRING = Keyring(ProviderInMemory(), StoreInMemory())
"""Of entries that tests complete themselves."""
SEALER = KeyringSealer(KEYRING)


def keyring_beside(database: Path) -> Keyring | None:
    """The keys of a ledger that runs by its defaults; None when it has not run."""
    store = database.with_name(f"{database.name}.key-store")
    if not store.exists():
        return None
    provider = FileKeyProvider(database.with_name(f"{database.name}.opening-keys"))
    return Keyring(provider, SqliteKeyStore.open(store, create=False))
