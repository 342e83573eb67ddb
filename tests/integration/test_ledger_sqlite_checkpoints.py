"""SQLite's write-ahead log is copied into the file beside the writer, and failing at it harms nothing."""

import contextlib
import logging
from pathlib import Path

import pytest

from ledger.entry import CompletedEntry
from ledger.sqlite_checkpoints import ENTRIES_BETWEEN, Checkpoints
from ledger.sqlite_storage import SqliteStorage
from ledger.storage import Head
from support.filled_logs import COLUMNS, entries_of
from support.ledgers import new_log
from support.waiting import until


async def test_what_was_committed_comes_into_the_file_while_the_writer_is_open(
    tmp_path: Path,
) -> None:
    path = new_log(tmp_path).path
    leaves = entries_of(ENTRIES_BETWEEN)
    with contextlib.closing(SqliteStorage.open(path)) as storage:
        before = path.stat().st_size
        storage.begin()
        storage.add_entries(0, [CompletedEntry(leaf, None, COLUMNS, ()) for leaf in leaves])
        storage.set_head(0, Head(len(leaves), bytes(32), "note"))
        storage.commit()

        async def copied() -> bool:
            return path.stat().st_size > before and leaves[-1] in path.read_bytes()

        assert await until(copied)


async def test_a_copy_that_fails_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path / "missing.sqlite")

    with caplog.at_level(logging.WARNING, "ledger.sqlite_checkpoints"):
        for times in (1, 2):
            checkpoints.committed(ENTRIES_BETWEEN)

            async def failed(times: int = times) -> bool:
                return len(caplog.records) >= times

            await until(failed)
    checkpoints.close()
