"""Queries at a million entries: filtered pages, grouped counts, indexing, and appends beside it.

Makes a ledger of N synthetic entries (two thirds decisions, one third ends), has the query index made by
its own process, asks as a reader would but for the network, and then measures appends with and without an
index that follows. Run: `python bench/ledger_queries.py [--entries N] [--seconds S]`.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1 import search_pb2
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED, DECISION_OUTCOME_REFUSED
from ledger.entry import CompletedEntry, Completer, index_columns
from ledger.index_messages import FollowerSettings
from ledger.index_process import IndexProcess, running_index
from ledger.keys import FileKey, LogKeys
from ledger.last_signed import Signed
from ledger.log import OpenLog, begin_log, opened
from ledger.query_service import LedgerQueryServicer
from ledger.questions import Question
from ledger.sqlite_storage import SqliteDatabase
from ledger.standing import NoOpenings
from ledger.storage import Head
from shared import logs
from shared.clock import SystemClock
from tlog.checkpoint import Checkpoint
from tlog.merkle import Frontier, leaf_hash
from tlog.tiles import TreeEdge

SIGNER = FileKey.from_seed("ledger.example/bench", bytes(32))
AGENCIES: list[str] = [f"CA{number:07}" for number in range(80)]
START_S = 1_767_225_600
"""2026-01-01: the entries spread over a year from then on."""
BATCH = 10_000
ROUNDS = 9
TARGET_MS = 200
IN_FLIGHT = 64
WAIT_S = 3600.0


def synthetic(count: int) -> Iterator[bytes]:
    """Decisions of many agencies, systems and offences; half of them with an end after them."""
    chance = random.Random(4)
    for index in range(count):
        entry = Entry(schema_epoch=1, recorded_by="spiffe://countersign.test/service/broker")
        entry.recorded_at.seconds = START_S + index * 31_536_000 // count
        if index % 3 == 2:
            _ended(entry, index, chance)
        else:
            _decided(entry, index, chance)
        yield entry.SerializeToString(deterministic=True)


def _decided(entry: Entry, index: int, chance: random.Random) -> None:
    entry.search_id = str(uuid.UUID(int=index))
    event = entry.search_decided
    event.request_sha256 = bytes(32)
    summary = event.summary
    summary.origin_agency = chance.choice(AGENCIES)
    summary.beneficiary_agency = chance.choice(AGENCIES)
    summary.operator_agency = summary.gallery_owner = AGENCIES[0]
    summary.jurisdictions.append("US-CA")
    summary.system, summary.gallery = f"system-{index % 5}", f"gallery-{index % 9}"
    summary.gallery_class = 1 + index % 5  # type: ignore[assignment]  # every value
    summary.purpose = chance.randint(1, 10)  # type: ignore[assignment]  # every value
    summary.suspicion = 1 + index % 3  # type: ignore[assignment]  # every value
    summary.offence.nibrs_code = f"{chance.randint(9, 90):02}A"
    summary.offence.severity = 1 + index % 5  # type: ignore[assignment]  # every value
    refused = index % 3 == 1
    event.decision.outcome = DECISION_OUTCOME_REFUSED if refused else DECISION_OUTCOME_PERMITTED
    for party in (summary.origin_agency, AGENCIES[0], "US-CA"):
        verdict = event.decision.verdicts.add(party=party)
        number = chance.randint(1, 12)
        verdict.rules.add(id=f"{party}-{number}", citation=f"Policy of {party}, section {number}")
    event.decision.obligations.add(kind="peer_review", rule_id="CA-1", party="US-CA")
    for name in ("officer", "case_number", "narrative"):
        entry.commitments.add(field=name, commitment=bytes(32))


def _ended(entry: Entry, index: int, chance: random.Random) -> None:
    entry.search_id = str(uuid.UUID(int=index - 2))
    event = entry.search_answered
    event.decided_index = index - 2
    event.origin_agency = AGENCIES[index % 80]
    event.system = f"system-{(index - 2) % 5}"
    event.candidates_returned = chance.randint(0, 20)


def make_ledger(database: SqliteDatabase, count: int) -> None:
    """Write a log of synthetic entries, as the sequencer would have, in large batches."""
    keys = LogKeys(SIGNER)
    begin_log(database, SIGNER)
    storage = database.open_for_writing()
    edge, frontier, start = TreeEdge.empty(), Frontier(), 0
    leaves = synthetic(count)
    while start < count:
        batch = list(itertools.islice(leaves, BATCH))
        hashes = [leaf_hash(leaf) for leaf in batch]
        for one in hashes:
            frontier.append(one)
        edge, full = edge.extended(hashes)
        entries = []
        for leaf in batch:
            columns = index_columns(Entry.FromString(leaf))
            assert columns is not None
            entries.append(CompletedEntry(leaf, None, columns, ()))
        storage.begin()
        storage.add_entries(start, entries)
        storage.add_tiles(full)
        checkpoint = Checkpoint(keys.origin, start + len(batch), frontier.root())
        storage.set_head(start, Head(checkpoint.size, checkpoint.root, keys.sign(checkpoint)))
        storage.commit()
        start += len(batch)
    storage.close()
    with contextlib.closing(database.open_last_signed()) as last:
        signed = Signed(SIGNER.verifier.name, count, frontier.root(), 0, frontier.peaks)
        last.swap(last.read(), signed)


QUERIES: dict[str, pb.QueryEntriesRequest] = {
    "page: agency in any role, purpose": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(agency=AGENCIES[7], purposes=[search_pb2.PURPOSE_MISSING_PERSON])
    ),
    "page: a month, refused, one gallery class": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(
            outcome=DECISION_OUTCOME_REFUSED, gallery_classes=[search_pb2.GALLERY_CLASS_WEB_SCRAPED]
        )
    ),
    "page: one rule": pb.QueryEntriesRequest(filter=pb.EntryFilter(rule_id=f"{AGENCIES[7]}-3")),
    "page: citations that begin so": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(citation=f"Policy of {AGENCIES[7]}")
    ),
    "page: searches still open, one agency": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(end_state=pb.END_STATE_OPEN, agency=AGENCIES[7])
    ),
    "page: duties still open": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(
            obligation_state=pb.OBLIGATION_STATE_OPEN, agency=AGENCIES[7], kinds=["search_decided"]
        )
    ),
    "page: one search": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(search_id=str(uuid.UUID(int=600)))
    ),
    "page: agency, with receipts": pb.QueryEntriesRequest(
        filter=pb.EntryFilter(agency=AGENCIES[7]), with_receipts=True
    ),
}
COUNTS: dict[str, tuple[pb.Dimension.ValueType, ...]] = {
    "count: all": (),
    "count: by agency and kind": (pb.DIMENSION_ORIGIN_AGENCY, pb.DIMENSION_KIND),
    "count: by month, agency": (pb.DIMENSION_MONTH, pb.DIMENSION_ORIGIN_AGENCY),
    "count: by offence, purpose, outcome": (
        *(pb.DIMENSION_OFFENCE, pb.DIMENSION_PURPOSE, pb.DIMENSION_OUTCOME),
    ),
    "count: by rule": (pb.DIMENSION_RULE,),
    "count: by end state": (pb.DIMENSION_END_STATE,),
    "count: by obligation and its state": (
        *(pb.DIMENSION_OBLIGATION, pb.DIMENSION_OBLIGATION_STATE),
    ),
    "count: by obligation state": (pb.DIMENSION_OBLIGATION_STATE,),
    "count: by agency in any role": (pb.DIMENSION_AGENCY,),
}


@dataclass(frozen=True)
class Took:
    """What one question took: wall and processor time in milliseconds."""

    median: float
    worst: float
    cpu: float


class Stopwatch:
    """Times questions, with the processor time of this process and of the index's together."""

    def __init__(self, index: psutil.Process) -> None:
        self._index = index

    def _cpu_s(self) -> float:
        of_index = self._index.cpu_times()
        return time.process_time() + of_index.user + of_index.system

    async def time(self, call: Callable[[], Awaitable[object]]) -> Took:
        """Ask several times."""
        took = []
        cpu = self._cpu_s()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await call()
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        return Took(took[len(took) // 2], took[-1], (self._cpu_s() - cpu) * 1000 / ROUNDS)


async def measure_queries(
    servicer: LedgerQueryServicer, watch: Stopwatch, console: Console
) -> None:
    """One table of all queries."""
    context: Any = None
    table = Table(title=f"Queries, {ROUNDS} rounds each (target: {TARGET_MS} ms)")
    for column in ("query", "median ms", "worst ms", "cpu ms", "rows or groups", ""):
        table.add_column(column, justify="left" if column == "query" else "right")
    month = QUERIES["page: a month, refused, one gallery class"].filter
    month.recorded_from.seconds = START_S + 200 * 86_400
    month.recorded_until.seconds = START_S + 230 * 86_400
    for name, request in QUERIES.items():
        took = await watch.time(partial(servicer.QueryEntries, request, context))
        rows = len((await servicer.QueryEntries(request, context)).entries)
        _row(table, name, took, rows)
    for name, dimensions in COUNTS.items():
        counting = pb.CountEntriesRequest(group_by=dimensions)
        took = await watch.time(partial(servicer.CountEntries, counting, context))
        groups = len((await servicer.CountEntries(counting, context)).groups)
        _row(table, name, took, groups)
    console.print(table)


def _row(table: Table, name: str, took: Took, rows: int) -> None:
    says = "holds" if took.median <= TARGET_MS else "TOO SLOW"
    figures = (f"{one:.1f}" for one in (took.median, took.worst, took.cpu))
    table.add_row(name, *figures, str(rows), says)


@contextlib.asynccontextmanager
async def ledger_with_index(
    database: SqliteDatabase, index: Path | None
) -> AsyncIterator[tuple[OpenLog, IndexProcess | None]]:
    """An open log, and the process that indexes it."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        if index is None:
            yield log, None
            return
        settings = FollowerSettings(index, database, (SIGNER.verifier.vkey,), "ERROR")
        async with running_index(settings, WAIT_S, start_after_s=0) as process:
            yield log, process


async def appends(log: OpenLog, seconds: float) -> tuple[float, float, float]:
    """Entries per second, p50 and p99 in milliseconds, with so many in flight."""
    completer = Completer("spiffe://countersign.test/service/broker", SystemClock())
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def one_client() -> None:
        while (began := time.perf_counter()) < until:
            pending = PendingEntry()
            pending.entry.search_id = str(uuid.uuid4())
            event = pending.entry.search_decided
            event.summary.origin_agency = AGENCIES[7]
            event.decision.outcome = DECISION_OUTCOME_PERMITTED
            for party in AGENCIES[:3]:
                verdict = event.decision.verdicts.add(party=party)
                verdict.rules.add(id=f"{party}-1", title="Searches for criminal investigation")
            await log.sequencer.append([completer.complete(pending, "entry")])
            took.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one_client() for _ in range(IN_FLIGHT)))
    took.sort()
    return len(took) / seconds, took[len(took) // 2], took[len(took) * 99 // 100]


async def run(entries: int, seconds: float, console: Console) -> None:
    """Everything, in one folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDatabase(Path(folder) / "ledger.sqlite")
        index = Path(folder) / "index.duckdb"
        began = time.perf_counter()
        make_ledger(database, entries)
        console.print(f"{entries:,} entries made in {time.perf_counter() - began:.1f} s")
        async with ledger_with_index(database, index) as (log, process):
            assert process is not None
            began = time.perf_counter()
            async with asyncio.timeout(WAIT_S):
                while process.indexed < entries:  # noqa: ASYNC110  # nobody tells of each batch
                    await asyncio.sleep(0.05)
            took = time.perf_counter() - began
            follower = psutil.Process(process.process_id)
            await process.page(Question(size=entries), 1)
            console.print(
                f"indexed in {took:.1f} s: {entries / took:,.0f} entries/s, "
                f"{entries / sum(follower.cpu_times()[:2]):,.0f} per CPU-second; memory of the process "
                f"{follower.memory_info().rss / 1e6:.0f} MB, index {index.stat().st_size / 1e6:.0f} MB, "
                f"ledger {database.path.stat().st_size / 1e6:.0f} MB"
            )
            completer = Completer("spiffe://countersign.test/service/ledger", SystemClock())
            servicer = LedgerQueryServicer(
                log.archive, log.sequencer, process, completer, NoOpenings()
            )
            await measure_queries(servicer, Stopwatch(follower), console)
            console.print(
                f"memory of the process after the queries {follower.memory_info().rss / 1e6:.0f} MB"
            )
        table = Table(title=f"Appends, {IN_FLIGHT} in flight, {seconds:g} s each, alternating")
        for column in ("", "entries/s", "p50 ms", "p99 ms"):
            table.add_column(column, justify="right")
        for name, file in (("without index", None), ("index follows", index)) * 2:
            async with ledger_with_index(database, file) as (log, process):
                if process is not None:
                    await process.last(Question(size=log.sequencer.published.size))
                rate, p50, p99 = await appends(log, seconds)
                table.add_row(name, f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}")
        console.print(table)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    logs.configure("bench", "ERROR")
    uvloop.run(run(arguments.entries, arguments.seconds, Console(width=120, highlight=False)))


if __name__ == "__main__":
    main()
