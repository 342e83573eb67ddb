"""What the connector remembers of the searches that it answered."""

import asyncio
import hmac
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from connector import report_store
from connector.answering import candidate_id
from connector.records import find
from connector.report_store import Ran, WaitingReport
from connector.runs import RETENTION_MIN, TOGETHER_MAX, Run, RunStore
from connector.state import StateError, candidate_key, open_state
from support.orders import NOW
from support.waiting import WAIT_S_MAX


def run(search_id: str = "one", answer: bytes = b"an answer") -> Run:
    return Run(search_id, b"r" * 32, answer, NOW)


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[RunStore]:
    store = RunStore(tmp_path / "state" / "runs.sqlite")
    yield store
    await store.close()


async def test_kept_answer_is_found_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    first = RunStore(path)
    await first.keep(run())
    await first.close()

    second = RunStore(path)
    assert second.find("one") == run()
    assert second.find("another") is None
    await second.close()


async def test_answer_is_durable_when_keep_returns(store: RunStore, tmp_path: Path) -> None:
    await store.keep(run())

    reader = sqlite3.connect(tmp_path / "state" / "runs.sqlite")
    assert reader.execute("SELECT signed_answer FROM runs").fetchall() == [(b"an answer",)]
    reader.close()


async def test_nobody_waits_for_what_could_not_be_written_for_whatever_reason(
    store: RunStore,
) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        with pytest.raises(UnicodeEncodeError):
            await store.keep(run("\ud800"))
        assert await store.keep(run()) == run()


async def test_first_answer_stays(store: RunStore) -> None:
    await store.keep(run())

    kept = await store.keep(run(answer=b"another answer"))

    assert kept == run()
    assert store.find("one") == run()


async def test_answers_that_arrive_together_are_all_kept(store: RunStore) -> None:
    runs = [run(str(number)) for number in range(100)]

    kept = await asyncio.gather(*(store.keep(one) for one in runs))

    assert kept == runs
    assert store.find("99") == runs[99]


async def test_of_answers_that_arrive_together_the_first_of_each_search_stays(
    store: RunStore,
) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("kept", "2026-11-22"))
    late = replace(told("kept", "2026-11-22"), signed_answer=b"late", ran=Ran("2026-11-22", b"-"))
    new = [told(str(number), "2026-11-22") for number in range(TOGETHER_MAX)]

    kept = await asyncio.gather(*map(store.keep, [*new, late, late]))

    assert kept == [*new, told("kept", "2026-11-22"), told("kept", "2026-11-22")]
    assert store.find("0") == new[0]
    names = sorted(one.search_id for one in new)
    assert await report(store, "2026-11-22") == [*names, "kept"]


async def test_answers_past_their_time_are_deleted(store: RunStore) -> None:
    await store.keep(run())

    assert await store.forget(NOW) == 0
    assert await store.forget(NOW + timedelta(seconds=1)) == 1
    assert store.find("one") is None


async def test_failure_to_write_reaches_everyone_who_waits(store: RunStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "state" / "runs.sqlite", isolation_level=None)
    other.execute("DROP TABLE runs")
    other.close()

    outcomes = await asyncio.gather(
        store.keep(run("one")), store.keep(run("two")), return_exceptions=True
    )

    assert all(isinstance(outcome, sqlite3.Error) for outcome in outcomes)


def test_answers_outlive_every_order() -> None:
    assert timedelta(days=7) < RETENTION_MIN


def test_candidate_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    state = open_state(tmp_path / "state")

    key = candidate_key(state)

    assert len(key) == 32
    assert candidate_key(open_state(tmp_path / "state")) == key
    assert (state.folder / "candidate-ids.key").stat().st_mode & 0o777 == 0o600
    assert state.folder.stat().st_mode & 0o777 == 0o700


def test_damaged_candidate_key_stops_the_start(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    (state.folder / "candidate-ids.key").write_bytes(b"short")

    with pytest.raises(StateError, match="5 bytes"):
        candidate_key(state)


def test_holder_finds_the_record_of_a_candidate() -> None:
    key = b"k" * 32
    wanted = candidate_id(key, "lacris-booking", "below/id02_0.jpg")

    records = ["id00_0.jpg", "below/id02_0.jpg"]

    assert find(key, "lacris-booking", records, [wanted, "0" * 32]) == {wanted: "below/id02_0.jpg"}
    assert find(b"another" * 5, "lacris-booking", records, [wanted]) == {}


@pytest.mark.parametrize("key", [b"k" * 32, b"", b"k" * 64])
def test_candidate_ids_are_the_hmac_of_gallery_and_record(key: bytes) -> None:
    for record in ("", "record", "r" * 500, "\N{SNOWMAN}"):
        mac = hmac.digest(key, b"gallery\0" + record.encode(), "sha256")
        assert candidate_id(key, "gallery", record) == mac[:16].hex()


async def test_answers_in_a_file_of_before_stand(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    before = sqlite3.connect(path)
    before.executescript(
        "CREATE TABLE runs (search_id TEXT PRIMARY KEY, request_sha256 BLOB NOT NULL, "
        "signed_answer BLOB NOT NULL, answered_at REAL NOT NULL) WITHOUT ROWID, STRICT"
    )
    old = run("old")
    row = (old.search_id, old.request_sha256, old.signed_answer, old.answered_at.timestamp())
    before.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)
    before.commit()
    before.close()

    store = RunStore(path)
    assert store.find("old") == old
    assert await store.keep(run("old", b"another answer")) == old
    await store.keep(run("new"))
    assert store.find("new") == run("new")
    await store.close()


TODAY = date(2026, 11, 22)


def told(search_id: str, day: str, at: datetime = NOW) -> Run:
    """An answer of which the ledger is told."""
    return Run(search_id, b"r" * 32, b"an answer", at, Ran(day, search_id.encode()))


async def due(store: RunStore, today: date) -> str | None:
    return await store.write(lambda database: report_store.next_day(database, today))


async def prepared(store: RunStore, day: str) -> WaitingReport:
    return await store.write(
        lambda db: report_store.prepare(db, day, lambda runs: [*runs, b"end of " + day.encode()])
    )


async def report(store: RunStore, day: str) -> list[str]:
    """The runs of a report that is made, sent and receipted."""
    made = await prepared(store, day)
    await store.write(lambda database: report_store.receipted(database, made))
    return [page.decode() for page in made.pages[:-1]]


async def test_each_run_is_in_one_report(store: RunStore) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("one", "2026-11-22"))
    assert await due(store, TODAY) is None
    tomorrow = TODAY + timedelta(days=1)
    assert await due(store, tomorrow) == "2026-11-22"
    assert await report(store, "2026-11-22") == ["one"]
    assert await due(store, tomorrow) is None
    await store.keep(told("late", "2026-11-22"))
    assert await due(store, tomorrow) == "2026-11-22"
    assert await report(store, "2026-11-22") == ["late"]
    assert await due(store, tomorrow) is None


async def test_what_is_answered_on_a_later_day_is_in_one_further_report(store: RunStore) -> None:
    """However slowly a backlog is run, it uses up one of the reports that the ledger takes of a day."""
    await store.write(lambda database: report_store.begin(database, TODAY))
    tomorrow = TODAY + timedelta(days=1)
    assert await report(store, "2026-11-22") == []
    morning = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
    for name in ("late", "later"):
        await store.keep(told(name, "2026-11-22", morning))
        assert await due(store, tomorrow) is None
    assert await report(store, "2026-11-23") == []
    assert await due(store, tomorrow + timedelta(days=1)) == "2026-11-22"
    assert await report(store, "2026-11-22") == ["late", "later"]


async def test_a_day_that_is_refused_does_not_hold_up_others(store: RunStore) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    days = ("2026-11-22", "2026-11-23")
    for day in days:
        await store.keep(told(day, day))
    today = TODAY + timedelta(days=2)

    async def next_but(refused: Sequence[str]) -> str | None:
        return await store.write(lambda db: report_store.next_day(db, today, refused))

    assert [await next_but(days[:count]) for count in range(3)] == [*days, None]
    for day in days:
        await report(store, day)
        await store.keep(told(f"late {day}", day))
    assert [await next_but(days[:count]) for count in range(3)] == [*days, None]


async def test_a_second_connector_on_the_file_keeps_its_report(store: RunStore) -> None:
    """Both sent the first report; the other is a step ahead."""
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("one", "2026-11-22"))
    first = await prepared(store, "2026-11-22")
    await store.write(lambda database: report_store.receipted(database, first))
    second = await prepared(store, "2026-11-23")
    await store.write(lambda database: report_store.receipted(database, first))
    assert await store.write(report_store.waiting) == second
    await store.write(lambda database: report_store.drop(database, first, ["one"]))
    assert await store.write(report_store.waiting) == second
    await store.write(lambda database: report_store.receipted(database, second))
    assert await report(store, "2026-11-22") == []


async def test_a_report_that_is_not_taken_gives_its_runs_back(store: RunStore) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("one", "2026-11-22"))
    made = await prepared(store, "2026-11-22")
    await store.write(lambda database: report_store.drop(database, made, ["one"]))
    assert await store.write(report_store.waiting) is None
    assert await report(store, "2026-11-22") == ["one"]


async def test_a_file_of_an_earlier_release_reports_from_its_first_whole_day_on(
    store: RunStore,
) -> None:
    """Of what it answered before it does not know what is to be told."""
    await store.keep(run())
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("one", "2026-11-22"))
    assert await due(store, TODAY + timedelta(days=1)) is None
    assert await due(store, TODAY + timedelta(days=2)) == "2026-11-23"


async def test_a_run_is_not_forgotten_before_it_is_told(store: RunStore) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    await store.keep(told("one", "2026-11-22"))
    assert await store.forget(NOW + timedelta(days=60)) == 1
    made = await prepared(store, "2026-11-22")
    assert len(made.pages) == 2
    await store.forget(NOW + timedelta(days=60))
    await store.write(lambda database: report_store.drop(database, made, ["one"]))
    assert await report(store, "2026-11-22") == ["one"]


async def test_after_a_long_absence_empty_days_far_back_are_not_reported(store: RunStore) -> None:
    await store.write(lambda database: report_store.begin(database, TODAY))
    much_later = TODAY + timedelta(days=400)
    first = date.fromisoformat(await due(store, much_later) or "")
    assert much_later - first == timedelta(days=report_store.DAYS_BACK_MAX)
