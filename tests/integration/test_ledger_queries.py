"""Queries over gRPC, as any authenticated reader asks them; periods; exports on record."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from countersign.ledger.v1 import append_pb2
from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import EXPORT_FORMAT_CSV
from countersign.ledger.v1.query_pb2_grpc import LedgerQueryServiceStub
from ledger.__main__ import running
from ledger.config import LedgerSettings
from ledger.entry import Completer
from ledger.from_settings import database_of
from ledger.index import QueryIndex
from ledger.index_messages import FollowerSettings
from ledger.index_process import running_index
from ledger.log import OpenLog, opened
from ledger.periods import PeriodCloser, closing_entries
from ledger.querying import index_file
from ledger.questions import SpanCounts
from shared.bus import Bus
from shared.errors import InvalidRequest, NotAllowed
from shared.rpc import call, open_channel
from support.histories import HISTORY, SHERIFF
from support.ledgers import (
    BROKER,
    LAPD,
    ORIGIN,
    SIGNER,
    assert_whole,
    decided,
    new_log,
    rejected,
    run_program,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.vaults import SEALER
from tlog.checkpoint import open_checkpoint
from tlog.merkle import leaf_hash, verify_inclusion
from tlog.proof import verify_receipt

TIMEOUT_S = 30
SIZE = len(HISTORY)


@dataclass(frozen=True)
class Asked:
    """A running ledger with the history, and a reader."""

    stub: LedgerQueryServiceStub
    broker: Bus
    database: Path

    async def append(self, *pending: append_pb2.PendingEntry) -> None:
        await self.broker.request(
            "ledger.append",
            append_pb2.AppendRequest(entries=pending),
            append_pb2.AppendResponse,
            TIMEOUT_S,
        )

    async def query(self, **request: object) -> pb.QueryEntriesResponse:
        message = pb.QueryEntriesRequest(**request)  # type: ignore[arg-type]
        return await call(self.stub.QueryEntries, message, name="test", timeout_s=TIMEOUT_S)

    async def count(
        self, *group_by: pb.Dimension.ValueType, **bounds: object
    ) -> pb.CountEntriesResponse:
        message = pb.CountEntriesRequest(
            filter=pb.EntryFilter(**bounds),  # type: ignore[arg-type]
            group_by=group_by,
        )
        return await call(self.stub.CountEntries, message, name="test", timeout_s=TIMEOUT_S)


@pytest.fixture(name="asked")
async def _asked(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[Asked]:
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    async with running(settings) as ledger:
        broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        tls = nats_server.certificates.tls("oversight", "commission")
        async with open_channel(f"127.0.0.1:{ledger.server.port}", tls) as channel:
            asked = Asked(LedgerQueryServiceStub(channel), broker, tmp_path / "ledger.sqlite")
            await asked.append(*HISTORY)
            yield asked
        await broker.close()
    assert_whole(database_of(settings))


async def test_rows_are_proved_and_name_the_tree(asked: Asked) -> None:
    found = await asked.query(
        filter=pb.EntryFilter(
            agency=LAPD, agency_role=pb.AGENCY_ROLE_ORIGIN, kinds=["search_decided"]
        ),
        with_receipts=True,
    )
    assert [one.record.index for one in found.entries] == [0, 1, 3]
    checkpoint = open_checkpoint(found.basis.checkpoint, SIGNER.verifier)
    assert (found.basis.tree_size, found.basis.root) == (SIZE, checkpoint.root)
    for one in found.entries:
        index, _ = verify_receipt(one.record.leaf, one.tlog_proof, SIGNER.verifier)
        assert index == one.record.index
        assert one.record.entry == Entry.FromString(one.record.leaf)


async def test_all_pages_rest_on_the_tree_of_the_first(asked: Asked) -> None:
    wanted = pb.EntryFilter(
        end_state=pb.END_STATE_OPEN, kinds=["search_decided", "request_rejected"]
    )
    everything = pb.EntryFilter()
    first = await asked.query(filter=everything, page_size=5)
    await asked.append(decided(50), rejected())
    second = await asked.query(filter=everything, page_size=5, page_token=first.next_page_token)
    assert [one.record.index for one in second.entries] == [5, 6, 7]
    assert second.next_page_token == ""
    assert second.basis.tree_size == first.basis.tree_size
    assert second.basis.root == first.basis.root
    assert open_checkpoint(second.basis.checkpoint, SIGNER.verifier).size == SIZE + 2
    with pytest.raises(InvalidRequest) as refused:
        await asked.query(filter=wanted, page_token=first.next_page_token)
    assert refused.value.violations[0].field == "page_token"


@pytest.mark.parametrize(
    "bounds",
    [{"agency": "x"}, {"kinds": ["no_such_kind"]}, {"start_index": 2**63}, {"citation": "x" * 401}],
)
async def test_what_cannot_be_asked_is_said(asked: Asked, bounds: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        await asked.query(filter=pb.EntryFilter(**bounds))  # type: ignore[arg-type]


async def test_counts_in_words(asked: Asked) -> None:
    counts = await asked.count(pb.DIMENSION_PURPOSE, pb.DIMENSION_OUTCOME, kinds=["search_decided"])
    assert [(list(one.values), one.entries) for one in counts.groups] == [
        (["CRIMINAL_INVESTIGATION", "PERMITTED"], 3),
        (["CRIMINAL_INVESTIGATION", "REFUSED"], 1),
    ]
    assert counts.entries == 4
    everything = await asked.count()
    assert [(list(one.values), one.entries) for one in everything.groups] == [([], SIZE)]
    today = await asked.count(pb.DIMENSION_DAY, pb.DIMENSION_END_STATE, agency=SHERIFF)
    assert {one.values[1] for one in today.groups} == {"ANSWERED", "REFUSED", "FAILED", "OPEN"}
    assert all(len(one.values[0]) == len("2026-11-22") for one in today.groups)


async def test_openings_are_not_looked_through_for_anyone(asked: Asked) -> None:
    with pytest.raises(NotAllowed):
        await asked.query(
            filter=pb.EntryFilter(
                opening=pb.OpeningMatch(field="officer", value="x", agency=LAPD, authority="y")
            )
        )


async def test_a_watch_gives_what_is_there_and_what_comes(asked: Asked) -> None:
    request = pb.WatchQueryRequest(filter=pb.EntryFilter(kinds=["request_rejected"]))
    stream = asked.stub.WatchQuery(request, timeout=TIMEOUT_S)
    at = [7, SIZE + 1]
    async for one in stream:
        assert one.record.index == at.pop(0)
        if not at:
            break
        await asked.append(decided(60), rejected())
    stream.cancel()


async def test_an_export_is_on_record_before_it_leaves(asked: Asked) -> None:
    request = pb.ExportEntriesRequest(
        filter=pb.EntryFilter(agency=LAPD, kinds=["search_decided"]), format=EXPORT_FORMAT_CSV
    )
    parts = [one async for one in asked.stub.ExportEntries(request, timeout=TIMEOUT_S)]
    beginning = parts[0].beginning
    made = beginning.export_made
    index, _ = verify_receipt(made.record.leaf, made.tlog_proof, SIGNER.verifier)
    assert index == SIZE
    said = made.record.entry.export_made
    assert (said.rows, said.tree_size) == (3, SIZE)
    assert said.query == '{"agency":"CA0194200","kinds":["search_decided"]}'
    assert said.caller == "spiffe://countersign.test/oversight/commission"
    rows = [row for part in parts[1:] for row in part.rows.rows]
    indexes = b"".join(row.index.to_bytes(8, "big") for row in rows)
    assert said.indexes_sha256 == sha256(indexes).digest()
    tree = open_checkpoint(beginning.checkpoint, SIGNER.verifier)
    for row in rows:
        verify_inclusion(leaf_hash(row.leaf), row.index, tree.size, row.hashes, tree.root)


async def test_the_index_is_made_anew_by_a_command(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    async with running(LedgerSettings.load(config)):
        bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        await bus.request(
            "ledger.append",
            append_pb2.AppendRequest(entries=HISTORY),
            append_pb2.AppendResponse,
            20,
        )
        await bus.close()

    index = index_file(LedgerSettings.load(config))
    index.write_bytes(b"damaged")
    done = await asyncio.to_thread(run_program, "reindex", config)
    assert (done.returncode, f"INDEXED: {SIZE} entries" in done.stdout) == (0, True), done.stderr
    reader = QueryIndex.open(index, ORIGIN)
    assert reader.size == SIZE
    in_use = await asyncio.to_thread(run_program, "reindex", config)
    reader.close()
    assert (in_use.returncode, "another process has" in in_use.stderr) == (1, True)
    missing = await asyncio.to_thread(run_program, "reindex", tmp_path / "none.toml")
    assert missing.returncode == 2


# Periods.


@dataclass
class ClockThatIsSet:
    """Says what it is told to."""

    at: datetime = datetime(2026, 11, 20, 9, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Periods:
    """A log with a closer of days."""

    log: OpenLog
    closer: PeriodCloser
    clock: ClockThatIsSet
    completer: Completer

    async def append(self, *pending: append_pb2.PendingEntry) -> None:
        await self.log.sequencer.append([self.completer.complete(one, "x") for one in pending])

    async def closed(self) -> list[Entry]:
        size = self.log.sequencer.published.size
        entries = [Entry.FromString(await self.log.archive.entry(i)) for i in range(size)]
        return [one for one in entries if one.HasField("period_closed")]


@pytest.fixture(name="periods")
async def _periods(tmp_path: Path) -> AsyncIterator[Periods]:
    database = new_log(tmp_path)
    clock = ClockThatIsSet()
    completer = Completer(BROKER, clock, own=True, sealer=SEALER)
    following = FollowerSettings(tmp_path / "index.duckdb", database, (SIGNER.verifier.vkey,))
    async with (
        opened(database.open_for_writing(), SIGNER) as log,
        running_index(following, 30) as index,
    ):
        closer = PeriodCloser(
            log.sequencer, log.archive, index, completer, clock, timedelta(days=1)
        )
        yield Periods(log, closer, clock, completer)
    assert_whole(database)


async def test_each_day_is_closed_once(periods: Periods) -> None:
    assert await periods.closer.close_due() == 0
    await periods.append(*HISTORY)
    periods.clock.at += timedelta(days=1)
    await periods.append(rejected())
    assert await periods.closer.close_due() == 1
    assert await periods.closer.close_due() == 0
    periods.clock.at += timedelta(days=2)
    assert await periods.closer.close_due() == 2
    first, second, third = [one.period_closed for one in await periods.closed()]
    assert (first.first_index, first.end_index) == (0, SIZE)
    assert {(one.origin_agency, one.kind): one.count for one in first.totals}[LAPD, 11] == 3
    assert first.open_searches == 1
    assert first.open_searches_sha256 == sha256((6).to_bytes(8, "big")).digest()
    assert not first.HasField("previous_index")
    # The closing entry itself is counted in the period in which it was recorded.
    assert (second.first_index, second.end_index) == (SIZE, SIZE + 2)
    assert second.previous_index == SIZE + 1
    assert (third.first_index, third.end_index) == (SIZE + 2, SIZE + 2)
    assert third.starts_at == second.ends_at


async def test_nothing_is_closed_while_entries_may_be_on_their_way(periods: Periods) -> None:
    await periods.append(*HISTORY)
    periods.clock.at = datetime(2026, 11, 21, 0, 0, 9, tzinfo=UTC)
    assert await periods.closer.close_due() == 0
    periods.clock.at = datetime(2026, 11, 21, 0, 0, 10, tzinfo=UTC)
    assert await periods.closer.close_due() == 1


def test_many_totals_are_closed_in_parts() -> None:
    totals = [(f"CA{number:07}", 11, 1) for number in range(2500)]
    parts = closing_entries(0, SpanCounts(2500, totals, []))
    assert [(one.part, one.parts, len(one.totals)) for one in parts] == [
        (1, 3, 1000),
        (2, 3, 1000),
        (3, 3, 500),
    ]
    assert [len(one.totals) for one in closing_entries(5, SpanCounts(5, [], []))] == [0]
