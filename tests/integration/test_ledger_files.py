"""The ledger's file: one process has it, and only one that can be this log is opened."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.keys import FileKey
from ledger.log import begin_log, opened
from ledger.sequencer import Placed, Sequencer
from ledger.sqlite_storage import SqliteDatabase
from shared.errors import NotReady
from support.ledgers import (
    SIGNER,
    complete,
    decided,
    new_log,
)


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> SqliteDatabase:
    return new_log(tmp_path)


async def append(sequencer: Sequencer, *numbers: int) -> list[Placed]:
    return await sequencer.append(complete(*(decided(number) for number in numbers)))


async def test_second_process_does_not_get_the_file(database: SqliteDatabase) -> None:
    async with opened(database.open_for_writing(), SIGNER):
        with pytest.raises(NotReady, match="another process") as refused:
            database.open_for_writing()
        assert refused.value.reason == "LEDGER_LOCKED"
    database.open_for_writing().close()


def test_missing_file_does_not_begin_a_second_history(tmp_path: Path) -> None:
    with pytest.raises(NotReady) as refused:
        SqliteDatabase(tmp_path / "ledger.sqlite").open_for_writing()
    assert refused.value.reason == "LEDGER_MISSING"


def test_existing_file_is_not_begun_again(database: SqliteDatabase) -> None:
    with pytest.raises(NotReady) as refused:
        begin_log(database, SIGNER)
    assert refused.value.reason == "LEDGER_EXISTS"


def test_file_is_readable_by_its_user_only(database: SqliteDatabase) -> None:
    assert database.path.stat().st_mode & 0o077 == 0


def test_batch_leaves_nothing_of_itself_in_temporary_files(database: SqliteDatabase) -> None:
    """A statement that may fail in the middle keeps the pages of before, of which openings have some."""
    with contextlib.closing(database.open_for_writing()) as storage:
        for start in (0, 400):
            before = set(open_files())
            storage.begin()
            entries = complete(*(decided(number) for number in range(start, start + 400)))
            storage.add_entries(start, entries)
            assert {one for one in open_files() if one.endswith(" (deleted)")} <= before
            storage.commit()


def open_files() -> Iterator[str]:
    """What this process has open; SQLite removes its temporary files as soon as they are open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            yield os.readlink(descriptor)  # noqa: PTH115  # a socket has no path


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(NotReady) as refused:
        SqliteDatabase(path).open_for_writing()
    assert refused.value.reason == "LEDGER_UNREADABLE"


async def test_key_of_another_log_does_not_open_it(database: SqliteDatabase) -> None:
    stranger = FileKey.from_seed(SIGNER.verifier.name, bytes(32))
    with pytest.raises(NotReady) as refused:
        async with opened(database.open_for_writing(), stranger):
            pass
    assert refused.value.reason == "LEDGER_KEY_OR_CHECKPOINT"


@pytest.mark.promise(1)
def test_commits_wait_for_the_disk(database: SqliteDatabase) -> None:
    """2 is FULL: with anything less a commit may be lost with the power."""
    storage = database.open_for_writing()
    assert storage.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert storage.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert storage.connection.execute("PRAGMA secure_delete").fetchone() == (1,)
    storage.close()
