"""Where the keys of the openings are stored, wrapped: apart from the ledger's database, with its own backups.

Envelope, from the inside: each entry has a data key of its own; data keys are made in blocks, a block
belongs to one holder (an agency, or an oversight body for what it gave as its reason) and is encrypted
under the holder's key; a holder's key is wrapped by the key provider.

A block is durable before the first of its keys is used, so an append needs no second commit. To destroy a
data key is to write its block again without it.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ledger.key_provider import WrappedKey
from shared.errors import NotReady, Unavailable

BUSY_TIMEOUT_MS: Final = 5000
"""Another process holds the store for moments: to add a block, to expunge, to be backed up."""

SCHEMA_VERSION: Final = 1

TABLES: Final = """
CREATE TABLE IF NOT EXISTS holder_keys (
    holder TEXT NOT NULL,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (holder, generation)
) STRICT;
CREATE TABLE IF NOT EXISTS key_blocks (
    block INTEGER PRIMARY KEY,
    holder TEXT NOT NULL,
    holder_generation INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS key_blocks_by_holder ON key_blocks (holder, block, generation);
"""


@dataclass(frozen=True, slots=True)
class HolderKey:
    """A holder's key as stored. A holder has several only while its keys are rotated."""

    holder: str
    generation: int
    wrapped: WrappedKey


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as stored."""

    block: int
    holder: str
    holder_generation: int
    """Which of the holder's keys encrypts it."""
    generation: int
    """Grows with each change, so that nobody goes on with keys that were destroyed."""
    sealed: bytes


class KeyStore(Protocol):
    """Raises Unavailable when the store fails."""

    def holders(self) -> list[str]:
        """List who has keys."""

    def holder_key(self, holder: str, generation: int | None = None) -> HolderKey | None:
        """Give a holder's key, the newest unless a generation is named."""

    def holder_keys(self) -> list[HolderKey]:
        """Give every holder's keys."""

    def oldest_version(self) -> int | None:
        """Give the oldest of the provider's versions that a holder's key is wrapped under; None without."""

    def add_holder_key(self, key: HolderKey) -> None:
        """Add a key, unless this generation is there already."""

    def drop_holder_keys(self, holder: str, before: int) -> bool:
        """Remove older keys, unless one still encrypts a block; say whether it was done."""

    def add_block(self, block: StoredBlock) -> None:
        """Add a block; it is durable when this returns."""

    def block(self, number: int) -> StoredBlock | None:
        """Give a block."""

    def blocks_of(self, holder: str) -> list[tuple[int, int]]:
        """List a holder's blocks with their generations."""

    def replace_block(self, changed: StoredBlock) -> None:
        """Write a block whose generation is one more than the one stored; Unavailable when it is not."""

    def forget(self) -> None:
        """Leave nothing of what was replaced or removed in the store's own files."""

    def close(self) -> None:
        """Close the store."""


class SqlKeyStore:
    """The statements, which SQLite and PostgreSQL understand alike. Used by any thread, one at a time."""

    mark = "?"
    """How the engine's driver writes the place of a value."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        with self._one_at_a_time:
            self._connection.close()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        with self._one_at_a_time:
            try:
                yield
            except self._failures() as error:
                raise Unavailable(
                    "OPENING_KEYS_UNAVAILABLE",
                    "the store of the opening keys does not answer",
                    retry_after_s=1,
                ) from error

    def _failures(self) -> type[Exception]:
        return sqlite3.Error

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._asking():
            return list(self._run(statement.replace("?", self.mark), values).fetchall())

    def _change(self, statement: str, *values: object) -> int:
        with self._asking():
            self._before_change()
            return int(self._run(statement.replace("?", self.mark), values).rowcount)

    def _run(self, statement: str, values: Sequence[object]) -> Any:
        return self._connection.execute(statement, values)

    def _before_change(self) -> None:
        """Find out, where that can be, whether the connection still stands: a change is not asked twice."""

    def holders(self) -> list[str]:
        """List who has keys."""
        return [name for (name,) in self._all("SELECT DISTINCT holder FROM holder_keys")]

    def holder_key(self, holder: str, generation: int | None = None) -> HolderKey | None:
        """Give a holder's key, the newest unless a generation is named."""
        rows = self._all(
            "SELECT generation, version, sealed FROM holder_keys WHERE holder = ?"
            " ORDER BY generation DESC",
            holder,
        )
        for number, version, sealed in rows:
            if generation is None or number == generation:
                return HolderKey(holder, number, WrappedKey(version, bytes(sealed)))
        return None

    def holder_keys(self) -> list[HolderKey]:
        """Give every holder's keys."""
        rows = self._all(
            "SELECT holder, generation, version, sealed FROM holder_keys"
            " ORDER BY version, holder, generation"
        )
        return [
            HolderKey(holder, generation, WrappedKey(version, bytes(sealed)))
            for holder, generation, version, sealed in rows
        ]

    def oldest_version(self) -> int | None:
        """Give the oldest of the provider's versions that a holder's key is wrapped under."""
        ((version,),) = self._all("SELECT min(version) FROM holder_keys")
        return None if version is None else int(version)

    def add_holder_key(self, key: HolderKey) -> None:
        """Add a key, unless this generation is there already."""
        self._change(
            "INSERT INTO holder_keys (holder, generation, version, sealed) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            *(key.holder, key.generation, key.wrapped.version, key.wrapped.sealed),
        )

    def drop_holder_keys(self, holder: str, before: int) -> bool:
        """Remove them in one step with the look whether one is needed."""
        self._change(
            "DELETE FROM holder_keys WHERE holder = ? AND generation < ? AND NOT EXISTS"
            " (SELECT 1 FROM key_blocks WHERE holder = ? AND holder_generation < ?)",
            *(holder, before, holder, before),
        )
        return not self._all(
            "SELECT 1 FROM holder_keys WHERE holder = ? AND generation < ?", holder, before
        )

    def add_block(self, block: StoredBlock) -> None:
        """Add a block."""
        self._change(
            "INSERT INTO key_blocks (block, holder, holder_generation, generation, sealed)"
            " VALUES (?, ?, ?, ?, ?)",
            *(block.block, block.holder, block.holder_generation, block.generation, block.sealed),
        )

    def block(self, number: int) -> StoredBlock | None:
        """Give a block."""
        rows = self._all(
            "SELECT block, holder, holder_generation, generation, sealed FROM key_blocks"
            " WHERE block = ?",
            number,
        )
        for block, holder, holder_generation, generation, sealed in rows:
            return StoredBlock(block, holder, holder_generation, generation, bytes(sealed))
        return None

    def blocks_of(self, holder: str) -> list[tuple[int, int]]:
        """List a holder's blocks with their generations."""
        rows = self._all(
            "SELECT block, generation FROM key_blocks WHERE holder = ? ORDER BY block", holder
        )
        return [(block, generation) for block, generation in rows]

    def replace_block(self, changed: StoredBlock) -> None:
        """Write a block anew."""
        count = self._change(
            "UPDATE key_blocks SET holder_generation = ?, generation = ?, sealed = ?"
            " WHERE block = ? AND generation = ?",
            *(changed.holder_generation, changed.generation, changed.sealed),
            *(changed.block, changed.generation - 1),
        )
        if count != 1:
            raise Unavailable(
                "OPENING_KEYS_CHANGED", "another process changed the same keys", retry_after_s=1
            )


class SqliteKeyStore(SqlKeyStore):
    """The store in a SQLite file of its own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.path = path

    @classmethod
    def open(cls, path: Path, *, create: bool) -> "SqliteKeyStore":
        """Open the file; raises NotReady when it is not there and may not be made."""
        if not path.exists():
            if not create:
                raise NotReady(
                    "OPENING_KEYS_MISSING",
                    f"{path} is not there, and without it the openings cannot be read: restore it",
                )
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(0o600)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in (
                f"busy_timeout = {BUSY_TIMEOUT_MS}",
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
            ):
                connection.execute(f"PRAGMA {pragma}")
            _make_tables(connection, path)
        except sqlite3.Error as error:
            raise NotReady("OPENING_KEYS_UNREADABLE", f"{path}: {error}") from error
        return cls(path, connection)

    def forget(self) -> None:
        """Copy the log into the file and empty it; replaced pages are overwritten with zeros."""
        with self._asking():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise NotReady(
            "OPENING_KEYS_SCHEMA",
            f"{path} has schema {version}, and this program knows no later one than {SCHEMA_VERSION}",
        )
    connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
