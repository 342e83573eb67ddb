"""Backups as an earlier release made them, and what restoring them leaves behind when it is killed."""

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path

_TO_0002 = """
DROP INDEX entries_by_key;
DROP INDEX entries_by_search;
CREATE UNIQUE INDEX entries_by_key ON entries (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX entries_by_search ON entries (search_id) WHERE search_id IS NOT NULL;
ALTER TABLE open_searches RENAME TO open_searches_before;
CREATE TABLE open_searches (decided_index INTEGER PRIMARY KEY, search_id TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO open_searches SELECT decided_index, search_id FROM open_searches_before;
DROP TABLE open_searches_before;
UPDATE alembic_version SET version_num = '0002';
"""


def made_with_schema_0002(folder: Path) -> bytes:
    """Turns a backup into one of the schema before 0003; gives its database."""
    path, manifest = folder / "ledger.sqlite", folder / "manifest.json"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TO_0002)
    database = path.read_bytes()
    told = json.loads(manifest.read_text())
    told["files"][path.name] = hashlib.sha256(database).hexdigest()
    manifest.write_text(json.dumps(told))
    return database


def journal_of_a_migration_that_was_killed(database: bytes, scratch: Path) -> bytes:
    """What SQLite would roll back into the copy of a database without entries: it is as large as this one."""
    scratch.write_bytes(database)
    with contextlib.closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("DELETE FROM entries")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DROP TABLE entries")
        # More than is kept in memory, so that the journal is on the disk.
        connection.execute("CREATE TABLE larger AS SELECT zeroblob(4000000) AS filler")
        return scratch.with_name(f"{scratch.name}-journal").read_bytes()
