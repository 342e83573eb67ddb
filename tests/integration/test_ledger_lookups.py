"""An entry is found by search and by key, whatever these are, without a look at all the others."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from ledger.log import opened
from ledger.reading import Filter
from support.databases import DatabaseUnderTest
from support.ledgers import (
    SIGNER,
    assert_whole,
    complete,
    decided,
    failed,
    new_log,
    rejected,
    search_id,
)

OF_OTHERS = search_id(77)


def keyed(pending: PendingEntry, key: str) -> PendingEntry:
    pending.idempotency_key = key
    return pending


@pytest.mark.parametrize(
    ("of_decision", "of_end"),
    [
        (f"decided/{search_id(5)}", f"end/{search_id(5)}"),
        (search_id(5), f"/{search_id(5)}"),
        ("", f"end/{search_id(5)}"),
        (f"decided/{search_id(5)}", ""),
        (f"decided/{OF_OTHERS}", f"end/{OF_OTHERS}"),
        (f"by/{OF_OTHERS}/{search_id(5)}", f"end/{search_id(5)}/"),
        ("/", "//"),
    ],
)
async def test_search_is_found_whatever_the_keys_of_its_entries_say(
    database: DatabaseUnderTest, of_decision: str, of_end: str
) -> None:
    keys = [key for key in (of_decision, of_end) if key]
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(4), decided(5, key=of_decision), decided(6)))
        assert [one.index for one in (await log.archive.open_searches(0, 10))[0]] == [0, 1, 2]
        ended = keyed(failed(5), of_end)
        await log.sequencer.append(complete(rejected(), ended))
        assert [one.index for one in (await log.archive.open_searches(0, 10))[0]] == [0, 2]
        found = await log.archive.search(search_id(5))
        assert found.decided is not None
        assert found.ended is not None
        assert (found.decided.index, found.ended.index) == (1, 4)
        bearing = await log.archive.bearing_keys(keys)
        assert [index for index, _ in bearing] == [
            n for n, k in ((1, of_decision), (4, of_end)) if k
        ]
        again = await log.sequencer.append(
            complete(*(keyed(rejected(), key) for key in [*keys, *keys]))
        )
        assert [one.index for one in again] == [index for index, _ in bearing] * 2
    with contextlib.closing(database.open_for_reading()) as reading:
        entries, _ = reading.find(Filter(search_id=search_id(5)), 5, 10, 10_000)
        assert [index for index, _ in entries] == [1, 4]
        assert reading.find(Filter(search_id=search_id(5), start_index=2), 4, 10, 10_000)[0] == []
    assert_whole(database)


@pytest.mark.parametrize("together", [True, False])
async def test_search_that_is_open_is_not_opened_again(
    database: DatabaseUnderTest, together: bool
) -> None:
    first, second = complete(decided(1)), complete(decided(1, key="again"))
    async with opened(database.open_for_writing(), SIGNER) as log:
        for batch in [first + second] if together else [first, second]:
            await log.sequencer.append(batch)
        found, _ = await log.archive.open_searches(0, 10)
        assert [one.index for one in found] == [0]
        assert_whole(database)
        await log.sequencer.append(complete(failed(1)))
        assert (await log.archive.open_searches(0, 10))[0] == []
    assert_whole(database)


def test_sqlite_finds_by_its_indexes(tmp_path: Path) -> None:
    """Entries and openings are many: a statement that looks at each of them would stop every append."""
    asked: list[str] = []
    with contextlib.closing(new_log(tmp_path).open_for_writing()) as storage:
        storage.connection.set_trace_callback(asked.append)
        storage.begin()
        storage.indexes_of(["decided/1", "end/1"])
        storage.add_entries(0, complete(decided(1), decided(2), failed(1), failed(2)))
        storage.read_back(0)
        reading = storage.reading()
        reading.of_search(search_id(1), 4)
        reading.bearing_keys(["decided/1"], 4)
        reading.find(Filter(search_id=search_id(1)), 4, 10, 10_000)
        reading.find(Filter(kind=11), 4, 10, 10_000)
        reading.newest(11, 4, 10)
        reading.decisions_of("CA0194200", 4, 10)
        reading.openings_of(0)
        reading.bearing(1, bytes(16))
        storage.connection.set_trace_callback(None)
        plans = {one: plan_of(storage.connection, one) for one in asked}
    assert len(plans) > 12
    assert not {one: plan for one, plan in plans.items() if any(map(looks_at_all, plan))}


def looks_at_all(step: str) -> bool:
    """Whether it goes through a table; by number from the first on is no better than a scan."""
    of_many = step.split()[1] in {"entries", "openings", "open_searches"}
    return of_many and (step.startswith("SCAN ") or step.endswith("(rowid<?)"))


def plan_of(connection: sqlite3.Connection, statement: str) -> list[str]:
    """How SQLite would go about it."""
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
