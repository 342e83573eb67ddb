"""The query index: made from the entries, dropped and made again, and damaged."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import pytest_asyncio

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.duties import open_duties
from ledger.follower import BATCH_ENTRIES, NotAsSigned, consistent_index, follow_once, is_due
from ledger.index import QueryIndex
from ledger.index_queries import count, page, span
from ledger.log import opened
from ledger.questions import Dimension, DutyState, EndState, OpenDuties, Question, Role
from ledger.reading import Reading
from ledger.sqlite_reading import SqliteReading
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Head
from support.histories import HISTORY, SHERIFF, discharged, log_with_history
from support.ledgers import LAPD, ORIGIN, SIGNER, complete, decided, search_id
from support.waiting import WAIT_S_MAX

SIZE = len(HISTORY)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest_asyncio.fixture(name="made", scope="module", loop_scope="module")
async def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log and its index, made once."""
    folder = tmp_path_factory.mktemp("made")
    ledger = await log_with_history(folder)
    filled(QueryIndex.create(folder / "index.duckdb", ORIGIN), ledger).close()
    return folder


@pytest.fixture
def ledger(made: Path, tmp_path: Path) -> SqliteDatabase:
    """A copy of the log for each test, beside which there is no index."""
    shutil.copytree(
        made, tmp_path, dirs_exist_ok=True, ignore=lambda *_: ["index.duckdb", "one.duckdb"]
    )
    return SqliteDatabase(tmp_path / "ledger.sqlite")


def filled(index: QueryIndex, ledger: SqliteDatabase, batch: int = 1000) -> QueryIndex:
    reading = ledger.open_for_reading()
    while follow_once(index, reading, batch):
        pass
    reading.close()
    return index


@pytest.fixture(scope="module")
def index(made: Path) -> Iterator[QueryIndex]:
    """To be asked and not to be changed."""
    with contextlib.closing(QueryIndex.open(made / "index.duckdb", ORIGIN)) as one:
        yield one


@pytest.fixture(name="copy")
def _copy(made: Path, tmp_path: Path) -> QueryIndex:
    """One that a test may harm; what it does not close ends with it."""
    shutil.copy(made / "index.duckdb", tmp_path)
    return QueryIndex.open(tmp_path / "index.duckdb", ORIGIN)


@pytest.fixture(name="one_by_one", scope="module")
def _one_by_one(made: Path) -> Iterator[QueryIndex]:
    """The same entries, each of which came alone."""
    with contextlib.closing(QueryIndex.create(made / "one.duckdb", ORIGIN)) as one:
        for pending in HISTORY:
            one.add([complete(pending)[0].leaf])
        yield one


def found(index: QueryIndex, **bounds: object) -> list[int]:
    size = bounds.pop("size", SIZE)
    return page(index, Question(size=size, **bounds), 100).indexes  # type: ignore[arg-type]


def test_each_filter(index: QueryIndex) -> None:
    assert found(index) == list(range(SIZE))
    assert found(index, start_index=2, end_index=4) == [2, 3]
    assert found(index, size=3) == [0, 1, 2]
    assert found(index, kinds=(11,)) == [0, 1, 3, 6]
    assert found(index, agency=SHERIFF) == [0, 1, 2, 3, 4, 5, 6]
    assert found(index, agency=SHERIFF, role=Role.ORIGIN) == [6]
    assert found(index, agency=LAPD, role=Role.ORIGIN) == [0, 1, 2, 3, 4, 5]
    assert found(index, agency=LAPD, role=Role.CALLER) == [7]
    assert found(index, search_id=search_id(0)) == [0, 2, 5]
    assert found(index, rule="LAPD-4") == [1]
    assert found(index, rule="LASD-1") == [0, 2, 3, 4, 5]
    assert found(index, citation="LAPD Directive") == [1]
    assert found(index, jurisdiction="US-CA") == [0, 1, 2, 3, 4, 5, 6]
    assert found(index, outcome=2) == [1]
    assert found(index, purposes=(1,), kinds=(12,)) == [2]
    assert found(index, offence="13A", kinds=(11,)) == [3]
    assert found(index, reason="OFFICER_TOKEN_EXPIRED") == [7]


def test_end_states_are_of_the_size_asked_for(index: QueryIndex) -> None:
    decisions = {"kinds": (11,)}
    assert found(index, end_state=EndState.OPEN, **decisions) == [6]
    assert found(index, end_state=EndState.OPEN, size=4, **decisions) == [3]
    assert found(index, end_state=EndState.REFUSED) == [1]
    assert found(index, end_state=EndState.ANSWERED) == [0, 2, 5]
    assert found(index, end_state=EndState.FAILED) == [3, 4]


def test_a_duty_is_open_until_an_entry_says_otherwise(index: QueryIndex) -> None:
    assert found(index, duty="peer_review", kinds=(11,)) == [0, 3]
    assert found(index, duty_state=DutyState.OPEN, kinds=(11,)) == [3]
    assert found(index, duty_state=DutyState.DONE, kinds=(11,)) == [0]
    assert found(index, duty_state=DutyState.OPEN, size=5, kinds=(11,)) == [0, 3]


def test_a_duty_to_two_parties_is_one_entry_with_that_duty(tmp_path: Path) -> None:
    pending = decided(1)
    for party in (LAPD, SHERIFF):
        pending.entry.search_decided.decision.obligations.add(
            kind="peer_review", rule_id=f"{party}-1", party=party
        )
    index = QueryIndex.create(tmp_path / "one.duckdb", ORIGIN)
    index.add([complete(pending)[0].leaf])
    for dimension in (Dimension.DUTY, Dimension.DUTY_STATE):
        counts = count(index, Question(size=1), (dimension,))
        assert counts.groups is not None
        assert [one.entries for one in counts.groups] == [1]
    index.close()


def with_terms(number: int, *parameters: str) -> PendingEntry:
    """A refused search after whose attempt somebody is to be told, by a rule for each."""
    pending = decided(number, permitted=False)
    for rule, one in enumerate(parameters):
        pending.entry.search_decided.decision.obligations.add(
            kind="notify", rule_id=f"LAPD-{rule}", party=LAPD, parameters=one
        )
    return pending


def told(number: int, decided_index: int, rule: str) -> PendingEntry:
    """Whoever was to be told was."""
    pending = discharged(number, decided_index)
    event = pending.entry.obligation_discharged
    event.kind, event.rule_id, event.party = "notify", rule, LAPD
    return pending


def test_a_duty_is_overdue_once_its_term_is_past_and_no_entry_says_that_it_was_done(
    tmp_path: Path,
) -> None:
    with contextlib.closing(QueryIndex.create(tmp_path / "one.duckdb", ORIGIN)) as index:
        entries = [
            with_terms(0, "board,mayor:24h", "board:2d", "board", "24h", "board:24", "board: 1h."),
            told(0, 0, "LAPD-0"),
        ]
        for at, one in enumerate(entries):
            complete_one = Entry.FromString(complete(one)[0].leaf)
            complete_one.recorded_at.FromDatetime(NOVEMBER)
            index.add([complete_one.SerializeToString(deterministic=True)])
            assert index.size == at + 1

        def counted(after: timedelta, size: int) -> list[OpenDuties]:
            now_us = int((NOVEMBER + after).timestamp() * 1_000_000)
            return open_duties(index, size, now_us)

        assert counted(timedelta(hours=24), 1) == [OpenDuties("notify", 6, 0)]
        assert counted(timedelta(hours=24, seconds=1), 1) == [OpenDuties("notify", 6, 1)]
        assert counted(timedelta(days=3), 1) == [OpenDuties("notify", 6, 2)]
        # The first was done; with all done the kind stays, so that its figure comes down.
        assert counted(timedelta(days=3), 2) == [OpenDuties("notify", 5, 1)]


def test_a_dry_run_obliges_nobody(tmp_path: Path) -> None:
    pending = with_terms(0, "board:24h")
    checked = PendingEntry()
    checked.entry.search_id = pending.entry.search_id
    checked.entry.search_checked.decision.CopyFrom(pending.entry.search_decided.decision)
    with contextlib.closing(QueryIndex.create(tmp_path / "one.duckdb", ORIGIN)) as index:
        index.add([complete(checked)[0].leaf])
        assert open_duties(index, 1, 2**62) == []


def groups(index: QueryIndex, *dimensions: Dimension, **bounds: object) -> dict[object, int]:
    counts = count(index, Question(size=SIZE, **bounds), dimensions)  # type: ignore[arg-type]
    assert counts.groups is not None
    return {
        one.values if len(one.values) > 1 else one.values[0]: one.entries for one in counts.groups
    }


def test_every_dimension_can_be_counted_by(index: QueryIndex) -> None:
    for dimension in Dimension:
        counts = count(index, Question(size=SIZE), (dimension,))
        assert counts.entries == SIZE
        assert counts.groups
        assert sum(one.entries for one in counts.groups) >= SIZE
    assert count(index, Question(size=SIZE), tuple(Dimension)).groups


def test_counts(index: QueryIndex) -> None:
    assert groups(index, Dimension.ORIGIN_AGENCY, kinds=(11,)) == {LAPD: 3, SHERIFF: 1}
    assert groups(index, Dimension.RULE, Dimension.ORIGIN_AGENCY, kinds=(11,)) == {
        ("LAPD-4", LAPD): 1,
        ("LASD-1", LAPD): 2,
        (None, SHERIFF): 1,
    }
    assert groups(index, Dimension.END_STATE, kinds=(11,)) == {1: 1, 2: 1, 3: 1, 4: 1}
    answered = count(index, Question(size=SIZE, kinds=(12,)), ())
    assert answered.groups is not None
    assert (answered.groups[0].entries, answered.groups[0].candidates) == (1, 7)


def test_duties_are_counted_with_what_became_of_them(index: QueryIndex) -> None:
    both = (Dimension.DUTY, Dimension.DUTY_STATE)
    done, open_ = ("peer_review", DutyState.DONE.value), ("peer_review", DutyState.OPEN.value)
    assert groups(index, *both, kinds=(11,)) == {done: 1, open_: 1, (None, None): 2}
    earlier = count(index, Question(size=5, kinds=(11,)), both)
    assert earlier.groups is not None
    assert {one.values: one.entries for one in earlier.groups} == {open_: 2, (None, None): 1}
    assert groups(index, Dimension.DUTY, kinds=(11,)) == {"peer_review": 2, None: 2}


@pytest.mark.parametrize(
    "bounds",
    [{}, {"kinds": (12,)}, {"outcome": 2}, {"start_index": 2}, {"end_index": 4}, {"size": 5},
     {"rule": "LASD-1"}, {"end_state": EndState.ANSWERED}, {"agency": SHERIFF, "start_index": 1}],
)  # fmt: skip
@pytest.mark.parametrize(
    "dimension", [Dimension.AGENCY, Dimension.JURISDICTION, Dimension.RULE, Dimension.CITATION]
)
def test_counts_by_one_of_several_are_those_of_the_entries(
    index: QueryIndex, one_by_one: QueryIndex, dimension: Dimension, bounds: dict[str, Any]
) -> None:
    """Counted without the entries, it is what is counted with them, however they came into the index."""
    question = Question(**{"size": SIZE, **bounds})
    alone, joined = (
        count(index, question, (dimension,)),
        count(index, question, (dimension, Dimension.KIND)),
    )
    assert alone.groups is not None
    assert joined.groups is not None
    expected: dict[object, tuple[int, int]] = {}
    for one in joined.groups:
        entries, candidates = expected.get(one.values[0], (0, 0))
        expected[one.values[0]] = (entries + one.entries, candidates + one.candidates)
    assert {one.values[0]: (one.entries, one.candidates) for one in alone.groups} == expected
    assert alone.entries == joined.entries
    assert count(one_by_one, question, (dimension,)) == alone


def test_a_span_ends_before_the_first_entry_of_the_next_day(index: QueryIndex) -> None:
    at = index.connection.execute("SELECT max(recorded_us) FROM entries").fetchone()
    assert at is not None
    assert span(index, 0, at[0], SIZE).end_index == 0  # the clock of this log stands still
    counted = span(index, 0, at[0] + 1, SIZE)
    assert counted.end_index == SIZE
    assert counted.open_decisions == [6]
    assert sum(number for _, _, number in counted.totals) == SIZE


async def test_made_again_it_gives_the_same_answers(
    index: QueryIndex, ledger: SqliteDatabase, tmp_path: Path
) -> None:
    other = filled(QueryIndex.create(tmp_path / "other.duckdb", ORIGIN), ledger, batch=1)
    questions = [Question(size=size) for size in (3, SIZE)]
    for question in questions:
        for dimension in Dimension:
            one, two = (count(each, question, (dimension,)) for each in (index, other))
            assert one == two
        assert page(index, question, 3) == page(other, question, 3)
    other.close()


def test_it_goes_on_where_it_ended(ledger: SqliteDatabase, tmp_path: Path) -> None:
    path = tmp_path / "index.duckdb"
    reading = ledger.open_for_reading()
    index = QueryIndex.create(path, ORIGIN)
    follow_once(index, reading, 3)
    index.close()
    index = consistent_index(path, reading, [SIGNER.verifier])
    assert index.size == 3
    assert found(filled(index, ledger)) == list(range(SIZE))
    index.close()
    reading.close()


@pytest.mark.parametrize("damage", ["garbage", "version", "origin", "other entries", "too long"])
def test_what_does_not_belong_to_the_log_is_made_anew(
    damage: str, copy: QueryIndex, ledger: SqliteDatabase
) -> None:
    path = copy.path
    if damage == "version":
        copy.connection.execute("UPDATE progress SET version = 0")
    elif damage == "origin":
        copy.connection.execute("UPDATE progress SET origin = 'another'")
    elif damage == "other entries":
        copy.connection.execute("UPDATE progress SET peaks = ?", [bytes(32)])
    elif damage == "too long":
        copy.add([b"an entry that was never signed"])
    copy.close()
    if damage == "garbage":
        path.write_bytes(b"no database")
    reading = ledger.open_for_reading()
    index = consistent_index(path, reading, [SIGNER.verifier])
    assert index.size == 0
    assert found(filled(index, ledger)) == list(range(SIZE))
    index.close()
    reading.close()


class ReadingThatLies:
    """Gives one entry with one bit changed."""

    def __init__(self, reading: Reading) -> None:
        self.head = reading.head
        self.close = reading.close
        self._reading = reading

    def leaves(self, start: int, count: int) -> list[bytes]:
        first, *rest = self._reading.leaves(start, count)
        return [first[:-1] + bytes([first[-1] ^ 1]), *rest]


def test_entries_that_were_not_signed_are_noticed(ledger: SqliteDatabase, tmp_path: Path) -> None:
    index = QueryIndex.create(tmp_path / "index.duckdb", ORIGIN)
    reading = ledger.open_for_reading()
    with pytest.raises(NotAsSigned):
        follow_once(index, ReadingThatLies(reading))
    index.close()
    reading.close()


def test_a_batch_that_fails_leaves_nothing(copy: QueryIndex) -> None:
    copy.connection.execute("DROP TABLE ends")
    before = copy.size
    with pytest.raises(duckdb.Error):
        copy.add([one.leaf for one in complete(*HISTORY)])
    assert copy.size == before
    assert copy.connection.execute("SELECT count(*) FROM entries").fetchone() == (before,)


@pytest.mark.parametrize(
    ("entries", "asked", "late", "due"),
    [
        (1, False, False, False),
        (1, True, False, True),
        (1, False, True, True),
        (BATCH_ENTRIES, False, False, True),
        (0, True, True, False),
    ],
)
def test_few_entries_are_indexed_once_somebody_asks_or_they_have_waited(
    entries: int, asked: bool, late: bool, due: bool
) -> None:
    assert is_due(entries, asked, late) == due


class ReadingThatIsOvertaken(SqliteReading):
    """The log grows between what is read first and what is read next."""

    grow: Callable[[], object]

    def head(self) -> Head:
        found = super().head()
        self.grow()
        return found


async def test_an_index_is_opened_while_the_log_grows(ledger: SqliteDatabase) -> None:
    loop = asyncio.get_running_loop()
    async with opened(ledger.open_for_writing(), SIGNER) as log:

        def grow() -> None:
            appending = log.sequencer.append(complete(decided(90)))
            asyncio.run_coroutine_threadsafe(appending, loop).result(WAIT_S_MAX)

        def size_of_opened() -> int:
            with contextlib.closing(ReadingThatIsOvertaken.open(ledger.path)) as reading:
                assert isinstance(reading, ReadingThatIsOvertaken)
                reading.grow = grow
                path = ledger.path.with_name("index.duckdb")
                with contextlib.closing(consistent_index(path, reading, [SIGNER.verifier])) as one:
                    return one.size

        assert await asyncio.to_thread(size_of_opened) == 0
        assert log.sequencer.published.size == SIZE + 1
