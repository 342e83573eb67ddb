"""Several ledger processes on one PostgreSQL database: frozen, killed, cut off; one history all the same."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1 import disclosure_pb2, event_pb2, ledger_pb2, query_pb2
from countersign.ledger.v1.disclosure_pb2_grpc import LedgerDisclosureServiceStub
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from countersign.ledger.v1.query_pb2_grpc import LedgerQueryServiceStub
from shared.bus import Bus
from shared.errors import ServiceError, Unavailable
from shared.rpc import call, open_channel
from support.appenders import Appenders
from support.ledgers import LAPD, SIGNER, LedgerProcess, assert_whole, search_id, write_settings
from support.nats_servers import NatsUnderTest
from support.postgres import PostgresServer, PostgresUnderTest
from support.waiting import until
from tlog.checkpoint import open_checkpoint
from tlog.proof import verify_receipt

pytestmark = [
    pytest.mark.fault,
    pytest.mark.promise(1),
    pytest.mark.promise(4),
    pytest.mark.promise(8),
    pytest.mark.timeout(3600),
]

SEED = 20211126
APPENDERS = 16
TAKEOVER_S_MAX = 5.0


@dataclass
class Replicas:
    """Two processes, the broker that appends, and what it was told."""

    processes: list[LedgerProcess]
    broker: Bus
    appenders: Appenders
    nats: NatsUnderTest
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def writer(self) -> LedgerProcess:
        """The one that said last that it writes."""
        (found,) = [one for one in self.processes if one.lives and one.writes]
        return found

    def begin_appending(self) -> None:
        self.appenders.stopped = False
        self.running = [asyncio.create_task(self.appenders.run()) for _ in range(APPENDERS)]

    async def more_acknowledged(self, count: int = 50) -> None:
        enough = len(self.appenders.acknowledged) + count

        async def reached() -> bool:
            return len(self.appenders.acknowledged) >= enough

        await until(reached)

    async def stop_appending(self) -> None:
        self.appenders.stopped = True
        await asyncio.gather(*self.running)

    async def everything_acknowledged_is_there(self) -> None:
        """Asked again, the ledger gives each entry that it acknowledged, at its place."""
        indexes = set()
        for number, before in self.appenders.acknowledged.items():
            again = await self.appenders.append_surely(number)
            assert again.existing
            assert again.receipt.leaf == before.receipt.leaf
            assert again.receipt.index == before.receipt.index
            indexes.add(before.receipt.index)
        assert len(indexes) == len(self.appenders.acknowledged), "an index was given twice"


@pytest.fixture(name="server")
def _server(mortal_postgres_server: PostgresServer) -> PostgresServer:
    mortal_postgres_server.make_database("replicas")
    return mortal_postgres_server


@pytest.fixture(name="database")
def _database(server: PostgresServer, tmp_path: Path) -> PostgresUnderTest:
    return PostgresUnderTest(server, "replicas", tmp_path)


@pytest.fixture(name="replicas")
async def _replicas(
    tmp_path: Path, nats_server: NatsUnderTest, database: PostgresUnderTest
) -> AsyncIterator[Replicas]:
    processes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        processes.append(LedgerProcess(write_settings(folder, nats_server, database)))
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    try:
        for process in processes:
            await process.start()
        yield Replicas(processes, broker, Appenders(broker), nats_server)
    finally:
        for process in processes:
            process.kill()
        await broker.close()


async def size_at(replicas: Replicas, process: LedgerProcess) -> int:
    """The size of the newest checkpoint that a replica shows."""
    tls = replicas.nats.certificates.tls("oversight", "commission")
    async with open_channel(f"127.0.0.1:{process.port}", tls) as channel:
        stub = LedgerServiceStub(channel)
        answer = await stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest(), timeout=20)
    return open_checkpoint(answer.checkpoint, SIGNER.verifier).size


async def test_standby_serves_what_the_writer_wrote(
    replicas: Replicas, database: PostgresUnderTest
) -> None:
    writer, standby = replicas.processes
    assert (writer.writes, standby.writes) == (True, False)
    for number in range(300):
        await replicas.appenders.append_surely(number)

    async def caught_up() -> bool:
        return await size_at(replicas, standby) == 300

    await until(caught_up)
    # Whichever replica is asked what became of a search: it knows of all that was acknowledged.
    for number in range(300, 330):
        await replicas.appenders.append_surely(number)
        looked_up = await replicas.broker.request(
            "ledger.look_up_search",
            pb.LookUpSearchRequest(search_id=search_id(number)),
            pb.LookUpSearchResponse,
            20,
        )
        assert looked_up.decided.index == number
    assert standby.stop() == 0
    assert writer.stop() == 0
    assert assert_whole(database).checkpoint.size == 330


async def test_frozen_writer_wakes_to_find_that_another_writes(
    replicas: Replicas, database: PostgresUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    for _ in range(fault_rounds):
        replicas.begin_appending()
        await replicas.more_acknowledged(chance.randrange(50, 300))
        old = replicas.writer()
        (new,) = [one for one in replicas.processes if one is not old]
        old.freeze()
        assert await new.takes_over() <= TAKEOVER_S_MAX
        await replicas.more_acknowledged()
        known = len(replicas.appenders.acknowledged)
        old.thaw()
        # It says nothing wrong while it finds out: every answer that comes is checked at the end.
        assert await old.ends() == 1
        await replicas.more_acknowledged()
        await replicas.stop_appending()
        assert assert_whole(database).checkpoint.size >= known
        await old.start()
    await replicas.everything_acknowledged_is_there()
    assert_whole(database)


async def test_killed_writer_is_followed_within_five_seconds(
    replicas: Replicas, database: PostgresUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    for _ in range(fault_rounds):
        replicas.begin_appending()
        await replicas.more_acknowledged(chance.randrange(50, 300))
        old = replicas.writer()
        (new,) = [one for one in replicas.processes if one is not old]
        old.kill()
        assert await new.takes_over() <= TAKEOVER_S_MAX
        await replicas.more_acknowledged()
        await replicas.stop_appending()
        assert_whole(database)
        await old.start()
    await replicas.everything_acknowledged_is_there()
    assert_whole(database)


async def test_nothing_acknowledged_is_lost_when_postgres_is_killed(
    replicas: Replicas, server: PostgresServer, database: PostgresUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    for _ in range(fault_rounds):
        replicas.begin_appending()
        await replicas.more_acknowledged(chance.randrange(50, 300))
        server.kill()
        await asyncio.to_thread(server.start)
        for one in replicas.processes:
            # A writer ends when it no longer knows; a standby lives, and may write by now.
            with contextlib.suppress(ServiceError):
                await one.start_if_ended()
        await replicas.more_acknowledged()
        await replicas.stop_appending()
        assert_whole(database)
    await replicas.everything_acknowledged_is_there()
    assert_whole(database)


async def test_standby_answers_queries_with_rows_that_are_proved(replicas: Replicas) -> None:
    """A reader asks the replica that does not write, finds what is on record, and proves each row."""
    _, standby = replicas.processes
    for number in range(20):
        await replicas.appenders.append_surely(number)
    tls = replicas.nats.certificates.tls("oversight", "commission")
    async with open_channel(f"127.0.0.1:{standby.port}", tls) as channel:
        stub = LedgerQueryServiceStub(channel)

        async def found() -> query_pb2.QueryEntriesResponse | None:
            wanted = query_pb2.EntryFilter(kinds=["search_decided"], system="lacris")
            request = query_pb2.QueryEntriesRequest(filter=wanted, with_receipts=True)
            with contextlib.suppress(Unavailable):  # its index is being filled
                page = await call(stub.QueryEntries, request, name="query", timeout_s=20)
                return page if page.basis.tree_size == 20 else None
            return None

        page = await until(found)
        assert [one.record.index for one in page.entries] == list(range(20))
        for one in page.entries:
            index, _ = verify_receipt(one.record.leaf, one.tlog_proof, SIGNER.verifier)
            assert index == one.record.index
        counting = query_pb2.CountEntriesRequest(group_by=[query_pb2.DIMENSION_KIND])
        counts = await call(stub.CountEntries, counting, name="count", timeout_s=20)
        assert [(one.values[0], one.entries) for one in counts.groups] == [("search_decided", 20)]
        assert not standby.writes


async def test_standby_says_who_discloses_and_exports(replicas: Replicas) -> None:
    _, standby = replicas.processes
    await replicas.appenders.append_surely(0)
    tls = replicas.nats.certificates.tls("oversight", "commission")
    ground = disclosure_pb2.Ground(request_id=search_id(1), authority="s. 1", reason="audit")
    opening = query_pb2.OpeningMatch(
        field="officer", value="officer-0", agency=LAPD, authority="s. 1", reason="audit"
    )
    async with open_channel(f"127.0.0.1:{standby.port}", tls) as channel:
        disclosure, queries = LedgerDisclosureServiceStub(channel), LedgerQueryServiceStub(channel)
        disclose = disclosure_pb2.DiscloseRequest(index=0, fields=["officer"], ground=ground)
        decline = disclosure_pb2.DeclineExpungeRequest(requested_index=0, ground=ground)
        listing = disclosure_pb2.ListExpungeRequestsRequest()
        looked_up = query_pb2.QueryEntriesRequest(filter=query_pb2.EntryFilter(opening=opening))
        for asking in (
            call(disclosure.Disclose, disclose, name="disclose", timeout_s=20),
            call(disclosure.DeclineExpunge, decline, name="decline", timeout_s=20),
            call(disclosure.ListExpungeRequests, listing, name="list", timeout_s=20),
            call(queries.QueryEntries, looked_up, name="query", timeout_s=20),
        ):
            with pytest.raises(Unavailable, match="ask the replica that writes") as refused:
                await asking
            assert refused.value.reason == "LEDGER_NOT_WRITER"
        export = query_pb2.ExportEntriesRequest(format=event_pb2.EXPORT_FORMAT_CSV)
        with pytest.raises(Unavailable, match="ask the replica that writes"):
            async for _ in LedgerQueryClient(channel).export(export):
                pass
        states = {}
        for name in ("LedgerQueryService", "LedgerDisclosureService"):
            check = health_pb2.HealthCheckRequest(service=f"countersign.ledger.v1.{name}")
            states[name] = (await health_pb2_grpc.HealthStub(channel).Check(check)).status
    assert states == {
        "LedgerQueryService": health_pb2.HealthCheckResponse.SERVING,
        "LedgerDisclosureService": health_pb2.HealthCheckResponse.NOT_SERVING,
    }
