"""The query index's process: asked, started late, killed, and behind."""

import os
import signal
from pathlib import Path

import pytest

from broker.discharging import discharged_entry
from broker.record import Record
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.type.v1.decision_pb2 import Receipt
from ledger.index import IndexLocked, QueryIndex
from ledger.index_messages import FollowerSettings
from ledger.index_process import IndexProcess, running_index
from ledger.log import opened
from ledger.overdue import DutyWatch
from ledger.questions import Dimension, Question
from ledger.sqlite_storage import SqliteDatabase
from shared.errors import Unavailable
from shared.obligations import OBLIGATION_KINDS
from support.clocks import ClockThatStandsStill
from support.histories import HISTORY, decision, log_with_history
from support.ledgers import LAPD, ORIGIN, SIGNER, complete
from support.signals import Signals
from support.waiting import until

SIZE = len(HISTORY)


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> SqliteDatabase:
    return await log_with_history(tmp_path)


def settings(ledger: SqliteDatabase) -> FollowerSettings:
    return FollowerSettings(
        ledger.path.with_name("index.duckdb"),
        ledger,
        (SIGNER.verifier.vkey,),
    )


async def answered(process: IndexProcess) -> list[int]:
    """As one does who is told to come again."""
    pages: list[list[int]] = []

    async def asked() -> bool:
        try:
            pages.append((await process.page(Question(size=SIZE), 100)).indexes)
        except Unavailable:
            return False
        return True

    await until(asked)
    return pages[0]


async def test_the_process_answers_and_survives_being_killed(ledger: SqliteDatabase) -> None:
    async with running_index(settings(ledger)) as process:
        assert await answered(process) == list(range(SIZE))
        first = process.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)

        async def started_again() -> bool:
            return process.starts == 2

        await until(started_again)
        assert await answered(process) == list(range(SIZE))
        counts = await process.count(Question(size=SIZE), (Dimension.KIND,))
        assert counts.entries == SIZE


async def test_the_first_question_starts_the_process(ledger: SqliteDatabase) -> None:
    async with running_index(settings(ledger), start_after_s=3600) as process:
        assert process.starts == 0
        found = await process.page(Question(size=SIZE), 100)
        assert (found.indexes, process.starts) == (list(range(SIZE)), 1)


async def test_a_process_that_nobody_asks_starts_by_itself(ledger: SqliteDatabase) -> None:
    async with running_index(settings(ledger), start_after_s=0.01) as process:

        async def indexed() -> bool:
            return process.indexed == SIZE

        await until(indexed)
        assert process.starts == 1


async def test_how_far_it_is_is_said(ledger: SqliteDatabase) -> None:
    async with running_index(settings(ledger), wait_s=0.1) as process:
        await answered(process)
        with pytest.raises(Unavailable) as refusal:
            await process.page(Question(size=SIZE + 1), 10)
    assert refusal.value.reason == "INDEX_BEHIND"
    assert refusal.value.metadata == {"indexed": str(SIZE), "size": str(SIZE + 1)}


async def test_an_index_that_another_process_has_open_is_left_alone(ledger: SqliteDatabase) -> None:
    async with running_index(settings(ledger)) as process:
        await answered(process)
        with pytest.raises(IndexLocked):
            QueryIndex.open(ledger.path.with_name("index.duckdb"), ORIGIN)


async def test_open_duties_are_measured_and_the_overdue_among_them(
    ledger: SqliteDatabase, signals: Signals
) -> None:
    async with (
        opened(ledger.open_for_writing(), SIGNER) as log,
        running_index(settings(ledger)) as process,
    ):
        clock = ClockThatStandsStill()
        one = decision(9)
        one.entry.search_decided.decision.obligations.add(
            kind="report", rule_id="LASD-1", party=LAPD, parameters="outcome:30d"
        )
        await log.sequencer.append(complete(one))
        watch = DutyWatch(log.sequencer, process, clock)
        assert measured(signals) == {}
        await watch.look()
        # Kinds that nobody imposed are there, so that the very first that is overdue is a rise.
        none = dict.fromkeys(OBLIGATION_KINDS, (0, 0))
        # Of two peer reviews in the history one is done; the new decision brings another.
        assert measured(signals) == none | {"peer_review": (2, 0), "report": (1, 0)}
        clock.advance(days=31)
        await watch.look()
        assert measured(signals) == none | {"peer_review": (2, 0), "report": (1, 1)}
        await log.sequencer.append(complete(done(log.sequencer.published.size - 1, one)))
        await watch.look()
        assert measured(signals) == none | {"peer_review": (2, 0), "report": (0, 0)}


def done(decided_index: int, decided: PendingEntry) -> PendingEntry:
    """What the broker records when the agency says that the last of the duties was done."""
    leaf = decided.entry.SerializeToString()
    record = Record.from_receipts(Receipt(index=decided_index, leaf=leaf), None)
    duty = record.decision.decision.obligations[-1]
    pending = discharged_entry(record, duty, "lapd-40123", "", b"")
    # There is nothing here to seal them with, and what counts is public.
    pending.ClearField("sensitive")
    return pending


def measured(signals: Signals) -> dict[str, tuple[int, int]]:
    """Open and overdue duties by kind."""
    points = signals.points()
    told = [
        {point.attributes["kind"]: point.value for point in points.get(name, ())}
        for name in (
            "countersign.ledger.obligations.open",
            "countersign.ledger.obligations.overdue",
        )
    ]
    return {kind: (told[0][kind], told[1][kind]) for kind in told[0]}
