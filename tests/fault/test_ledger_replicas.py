"""Several ledger processes on one PostgreSQL database: frozen, killed, cut off; one history all the same."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1 import disclosure_pb2, event_pb2, ledger_pb2, query_pb2
from countersign.ledger.v1.disclosure_pb2_grpc import LedgerDisclosureServiceStub
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from countersign.ledger.v1.query_pb2_grpc import LedgerQueryServiceStub
from shared.bus import Bus
from shared.errors import NotFound, ServiceError, Unavailable
from shared.rpc import call, open_channel
from support.appenders import Appenders
from support.ledgers import LAPD, SIGNER, LedgerProcess, assert_whole, search_id, write_settings
from support.nats_servers import NatsUnderTest
from support.postgres import PostgresServer, PostgresUnderTest, running_server
from support.reader_gateway import ROUTED, Gateway, identity
from support.waiting import until
from tlog.checkpoint import open_checkpoint
from tlog.proof import verify_receipt

pytestmark = [
    pytest.mark.fault,
    pytest.mark.promise(1),
    pytest.mark.promise(4),
    pytest.mark.promise(8),
    pytest.mark.timeout(3600),
    pytest.mark.asyncio(loop_scope="module"),
]

SEED = 20211126
APPENDERS = 16
TAKEOVER_S_MAX = 5.0
NUMBERS_OF_A_TEST = 1_000_000


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

    def standby(self) -> LedgerProcess:
        """The other one."""
        (found,) = [one for one in self.processes if one is not self.writer()]
        return found

    async def append(self, count: int) -> dict[int, int]:
        """So many entries, at once; gives the index of each number."""
        numbers = self.appenders.next_numbers(count)
        placed = await self.appenders.all_surely(numbers)
        return {number: one.receipt.index for number, one in zip(numbers, placed, strict=True)}

    async def everything_acknowledged_is_there(self) -> None:
        """Asked again, the ledger gives each entry that it acknowledged, at its place."""
        indexes = set()
        acknowledged = self.appenders.acknowledged
        answers = await self.appenders.all_surely([*acknowledged])
        for again, before in zip(answers, acknowledged.values(), strict=True):
            assert again.existing
            assert again.receipt.leaf == before.receipt.leaf
            assert again.receipt.index == before.receipt.index
            indexes.add(before.receipt.index)
        assert len(indexes) == len(self.appenders.acknowledged), "an index was given twice"


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[PostgresServer]:
    """One that may be killed, and is started again."""
    with running_server() as server:
        server.make_database("replicas")
        yield server


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(name="database", scope="module")
def _database(server: PostgresServer, folder: Path) -> PostgresUnderTest:
    return PostgresUnderTest(server, "replicas", folder)


@pytest.fixture(name="nats", scope="module")
def _nats(folder: Path) -> Iterator[NatsUnderTest]:
    (folder / "nats").mkdir()
    nats = NatsUnderTest(folder / "nats")
    nats.start()
    yield nats
    nats.kill()


@pytest_asyncio.fixture(name="processes", scope="module", loop_scope="module")
async def _processes(
    folder: Path, nats: NatsUnderTest, database: PostgresUnderTest
) -> AsyncIterator[list[LedgerProcess]]:
    """Started once: each test leaves both running; at the end they stop in order, and all is whole."""
    processes = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        processes.append(LedgerProcess(write_settings(folder / name, nats, database)))
    try:
        for process in processes:
            await process.start()
            if process is processes[0]:
                await process.takes_over()
        assert not processes[1].writes
        yield processes
        assert [process.stop() for process in processes] == [0, 0]
        assert_whole(database)
    finally:
        for process in processes:
            process.kill()


@pytest_asyncio.fixture(name="broker", scope="module", loop_scope="module")
async def _broker(nats: NatsUnderTest, processes: list[LedgerProcess]) -> AsyncIterator[Bus]:
    broker = await Bus.connect(nats.bus_settings("service", "broker"), "broker")
    yield broker
    await broker.close()


_numbers = itertools.count(0, NUMBERS_OF_A_TEST)


@pytest_asyncio.fixture(name="replicas", loop_scope="module")
async def _replicas(processes: list[LedgerProcess], nats: NatsUnderTest, broker: Bus) -> Replicas:
    """Both run, and one of them writes; with numbers of searches that are this test's own."""
    for process in processes:
        await process.start_if_ended()
    replicas = Replicas(processes, broker, Appenders(broker, next(_numbers)), nats)

    async def one_writes() -> bool:
        return any(process.writes for process in processes)

    await until(one_writes)
    return replicas


async def size_at(replicas: Replicas, process: LedgerProcess) -> int:
    """The size of the newest checkpoint that a replica shows."""
    tls = replicas.nats.certificates.tls("oversight", "commission")
    async with open_channel(f"127.0.0.1:{process.port}", tls) as channel:
        stub = LedgerServiceStub(channel)
        answer = await stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest(), timeout=20)
    return open_checkpoint(answer.checkpoint, SIGNER.verifier).size


async def test_standby_serves_what_the_writer_wrote(replicas: Replicas) -> None:
    standby = replicas.standby()
    size = max((await replicas.append(300)).values()) + 1

    async def caught_up() -> bool:
        return await size_at(replicas, standby) == size

    await until(caught_up)
    # Whichever replica is asked what became of a search: it knows of all that was acknowledged.
    for _ in range(30):
        ((number, index),) = (await replicas.append(1)).items()
        looked_up = await replicas.broker.request(
            "ledger.look_up_search",
            pb.LookUpSearchRequest(search_id=search_id(number)),
            pb.LookUpSearchResponse,
            20,
        )
        assert looked_up.decided.index == index


async def test_frozen_writer_wakes_to_find_that_another_writes(
    replicas: Replicas, database: PostgresUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    for _ in range(fault_rounds):
        replicas.begin_appending()
        await replicas.more_acknowledged(chance.randrange(50, 300))
        old, new = replicas.writer(), replicas.standby()
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


async def test_killed_writer_is_followed_within_five_seconds(
    replicas: Replicas, database: PostgresUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    for _ in range(fault_rounds):
        replicas.begin_appending()
        await replicas.more_acknowledged(chance.randrange(50, 300))
        old, new = replicas.writer(), replicas.standby()
        old.kill()
        assert await new.takes_over() <= TAKEOVER_S_MAX
        await replicas.more_acknowledged()
        await replicas.stop_appending()
        assert_whole(database)
        await old.start()
    await replicas.everything_acknowledged_is_there()


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


async def test_standby_answers_queries_with_rows_that_are_proved(replicas: Replicas) -> None:
    """A reader asks the replica that does not write, finds what is on record, and proves each row."""
    standby = replicas.standby()
    indexes = sorted((await replicas.append(20)).values())
    size = indexes[-1] + 1
    tls = replicas.nats.certificates.tls("oversight", "commission")
    async with open_channel(f"127.0.0.1:{standby.port}", tls) as channel:
        stub = LedgerQueryServiceStub(channel)

        async def found() -> query_pb2.QueryEntriesResponse | None:
            wanted = query_pb2.EntryFilter(
                kinds=["search_decided"], system="lacris", start_index=indexes[0]
            )
            request = query_pb2.QueryEntriesRequest(filter=wanted, with_receipts=True)
            with contextlib.suppress(Unavailable):  # its index is being filled
                page = await call(stub.QueryEntries, request, name="query", timeout_s=20)
                return page if page.basis.tree_size == size else None
            return None

        page = await until(found)
        assert [one.record.index for one in page.entries] == indexes
        for one in page.entries:
            index, _ = verify_receipt(one.record.leaf, one.tlog_proof, SIGNER.verifier)
            assert index == one.record.index
        counting = query_pb2.CountEntriesRequest(group_by=[query_pb2.DIMENSION_KIND])
        counts = await call(stub.CountEntries, counting, name="count", timeout_s=20)
        assert [(one.values[0], one.entries) for one in counts.groups] == [("search_decided", size)]
        assert not standby.writes


async def test_standby_says_who_discloses_and_exports(replicas: Replicas) -> None:
    standby = replicas.standby()
    ((_, index),) = (await replicas.append(1)).items()
    tls = replicas.nats.certificates.tls("oversight", "commission")
    ground = disclosure_pb2.Ground(request_id=search_id(1), authority="s. 1", reason="audit")
    opening = query_pb2.OpeningMatch(
        field="officer", value="officer-0", agency=LAPD, authority="s. 1", reason="audit"
    )
    async with open_channel(f"127.0.0.1:{standby.port}", tls) as channel:
        disclosure, queries = LedgerDisclosureServiceStub(channel), LedgerQueryServiceStub(channel)
        disclose = disclosure_pb2.DiscloseRequest(index=index, fields=["officer"], ground=ground)
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


async def test_standby_answers_all_that_the_gateway_of_readers_leads_on(
    replicas: Replicas,
) -> None:
    """On Kubernetes it leads to replicas that only read (deploy/k8s/components/gateway-api-grpc)."""
    standby = replicas.standby()
    await replicas.append(1)
    tls = replicas.nats.certificates.tls(identity().kind, identity().name)
    async with open_channel(f"127.0.0.1:{standby.port}", tls) as channel:
        gateway = Gateway(channel)
        for path in ROUTED:

            async def answered(path: str = path) -> bool:
                try:
                    await gateway.first(path)
                except (Unavailable, NotFound) as error:
                    if error.reason not in ("INDEX_BEHIND", "ENTRY_UNKNOWN"):
                        raise
                    return False  # it has not come to the newest entry
                return True

            await until(answered)
    assert not standby.writes
