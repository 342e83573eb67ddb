"""A ledger and a connector that report to each other over a real bus, and a clock that both go by."""

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from broker.record import Record, answered_entry, expired_entry
from connector.orders import Orders
from connector.reporting import Ledger, Reporter
from connector.runs import RunStore
from countersign.connector.v1.connector_pb2 import (
    RUN_RESULT_FOUND,
    Run,
    RunResult,
    RunsReport,
    SearchAnswer,
    SignedAnswer,
    SignedOrder,
    SignedRunsReport,
)
from countersign.ledger.v1.append_pb2 import (
    BeginRunsReport,
    PendingEntry,
    ReportRunsRequest,
    ReportRunsResponse,
    SensitiveField,
)
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import AlarmRaised, RunsReported
from countersign.type.v1.decision_pb2 import Receipt
from ledger.entry import Completer
from ledger.follower import follow_once
from ledger.index import QueryIndex
from ledger.index_messages import FollowerSettings
from ledger.index_process import IndexProcess
from ledger.index_queries import page
from ledger.log import OpenLog, opened
from ledger.missing_reports import MissingReports
from ledger.questions import Found, Question
from ledger.runs_on_record import RunsOnRecord
from ledger.runs_service import Alarms, RunsService
from ledger.sequencer import Placed
from shared.binding import request_digest
from shared.bus import connected
from shared.errors import Unavailable
from shared.signing import RUNS_CONTEXT, SigningKey
from support.clocks import ClockThatStandsStill
from support.connectors import BusThatKeeps, SystemThatAnswers, answerer, delivery
from support.ledgers import BROKER, LAPD, ORIGIN, SIGNER, assert_whole, new_log
from support.nats_servers import NatsUnderTest
from support.orders import SYSTEM, OrderWorkshop, permits
from support.vaults import SEALER

MORNING = datetime(2026, 11, 20, 9, tzinfo=UTC)
OWN = "spiffe://countersign.test/service/ledger"
GRACE = timedelta(hours=36)
DAY = "2026-11-20"


@dataclass
class Door:
    """The connector's way to the ledger: over the bus, with what a test has happen on it."""

    ledger: Ledger
    before_page: Callable[[], Awaitable[None]] | None = None
    """Happens once, before the first page is sent."""
    begun: Callable[[ReportRunsResponse], None] | None = None
    """Happens once, to what the ledger says when a report begins."""
    replies_lost: int = 0
    """So many replies to pages do not come back."""

    async def request(
        self,
        subject: str,
        message: ReportRunsRequest,
        response: type[ReportRunsResponse],
        timeout_s: float,
    ) -> ReportRunsResponse:
        is_page = message.HasField("page")
        if is_page and self.before_page is not None:
            happens, self.before_page = self.before_page, None
            await happens()
        taken = await self.ledger.request(subject, message, response, timeout_s)
        if not is_page and self.begun is not None:
            happens_to, self.begun = self.begun, None
            happens_to(taken)
        if is_page and self.replies_lost:
            self.replies_lost -= 1
            raise Unavailable("SERVICE_UNAVAILABLE", "as told to")
        return taken


class ConnectorUnderTest:
    """The order desk, the state and the reports of one connector."""

    def __init__(
        self, state: Path, workshop: OrderWorkshop, clock: ClockThatStandsStill, ledger: Ledger
    ) -> None:
        expected = dataclasses.replace(workshop.expectations(permits), logs=(SIGNER.verifier,))
        self.store = RunStore(state / "runs.sqlite")
        self.system = SystemThatAnswers()
        self._bus = BusThatKeeps()
        answers = answerer(workshop, self.system, clock=clock)
        self._orders = Orders(expected, answers, self.store, self._bus, clock)
        self.reporter = Reporter(
            SYSTEM, workshop.connector_answers, expected.logs, self.store, ledger, clock
        )

    async def run(self, order: SignedOrder, search_id: str) -> SignedAnswer:
        """The answer that it publishes."""
        await self._orders.take(delivery(order, search_id))
        return self._bus.answers[-1]


class IndexWithoutItsProcess(IndexProcess):
    """Read on and asked here: its process takes longer to start than the rest of a test."""

    def __init__(self, settings: FollowerSettings) -> None:
        super().__init__(settings)
        self._reading = settings.database.open_for_reading()
        self._index = QueryIndex.create(settings.index, ORIGIN)

    async def page(self, question: Question, count_max: int) -> Found:
        while follow_once(self._index, self._reading):
            pass
        return page(self._index, question, count_max)

    async def aclose(self) -> None:
        """Ends it."""
        await self.close()
        self._index.close()
        self._reading.close()


@dataclass
class World:
    """A log that decides, orders and records as the broker has it do."""

    log: OpenLog
    record: RunsOnRecord
    service: RunsService
    alarms_of: Alarms
    clock: ClockThatStandsStill
    door: Door
    folder: Path
    workshop: OrderWorkshop
    completer: Completer
    own: Completer
    index: IndexProcess
    connector: ConnectorUnderTest
    decisions: dict[str, Placed] = field(default_factory=dict)

    async def append(self, pending: PendingEntry) -> Placed:
        (placed,) = await self.log.sequencer.append([self.completer.complete(pending, "x")])
        return placed

    async def decide(self, search_id: str, system: str = SYSTEM) -> SignedOrder:
        """A permit on record, and the order that carries its proof."""
        self.workshop.now = self.clock.now()
        order = self.workshop.order(search_id=search_id)
        entry = self.workshop.entry(search_id, request_digest(order.bound_request))
        entry.ClearField("schema_epoch")
        entry.ClearField("recorded_at")
        entry.search_decided.summary.origin_agency = LAPD
        entry.search_decided.summary.system = system
        placed = await self.append(
            PendingEntry(
                entry=entry,
                sensitive=[SensitiveField(field="officer", value="somebody")],
                idempotency_key=f"decided/{search_id}",
            )
        )
        self.decisions[search_id] = placed
        order.decision_receipt.CopyFrom(receipt(placed))
        return self.workshop.sign(order)

    async def end(self, search_id: str, signed: SignedAnswer) -> None:
        """Record the answer as the broker does."""
        answer = SearchAnswer.FromString(signed.answer)
        digest = hashlib.sha256(signed.answer).digest()
        await self.append(answered_entry(self._searched(search_id), answer, digest))

    async def expire(self, search_id: str) -> None:
        await self.append(expired_entry(self._searched(search_id)))

    def _searched(self, search_id: str) -> Record:
        return Record.from_receipts(receipt(self.decisions[search_id]), None)

    async def search(self, search_id: str) -> SignedAnswer:
        """A whole search, from the decision to the end on record."""
        answer = await self.connector.run(await self.decide(search_id), search_id)
        await self.end(search_id, answer)
        return answer

    def to_next_morning(self) -> None:
        self.clock.advance(days=1)

    def missing(
        self,
        expected_from: date | None = None,
        *,
        record: RunsOnRecord | None = None,
        alarms: Alarms | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> MissingReports:
        """What looks for reports that did not come."""
        return MissingReports(
            *(self.log.sequencer, record or self.record, alarms or self.alarms_of, self.clock),
            *(GRACE, expected_from, pause),
        )

    async def entries(self) -> list[Entry]:
        size = self.log.sequencer.published.size
        return [Entry.FromString(await self.log.archive.entry(i)) for i in range(size)]

    async def alarms(self) -> list[AlarmRaised]:
        return [one.alarm_raised for one in await self.entries() if one.HasField("alarm_raised")]

    async def reasons(self) -> list[str]:
        return [alarm.reason for alarm in await self.alarms()]

    async def reports(self) -> list[RunsReported]:
        return [one.runs_reported for one in await self.entries() if one.HasField("runs_reported")]

    def restarted(self, state: str = "state") -> ConnectorUnderTest:
        """Another connector process, on this state or on an empty one."""
        return ConnectorUnderTest(self.folder / state, self.workshop, self.clock, self.door)


async def killed(world: World, server: NatsUnderTest, moment: str) -> int:
    """Has another process report from this state, which is killed with SIGKILL before or after a page is
    taken; its exit status."""
    (world.folder / "answers.pem").write_bytes(world.workshop.connector_answers.pem())
    bus = server.bus_settings("connector", SYSTEM).model_dump_json()
    program = Path(__file__).with_name("reporter_that_dies.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program, moment, world.folder, bus, world.clock.now().isoformat()),
        *(SIGNER.verifier.vkey,),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return await process.wait()


def receipt(placed: Placed) -> Receipt:
    return Receipt(index=placed.index, leaf=placed.leaf, tlog_proof=placed.tlog_proof)


def ids(count: int) -> Sequence[str]:
    return [f"00000000-0000-4000-8000-{number:012x}" for number in range(count)]


@contextlib.asynccontextmanager
async def world(folder: Path, server: NatsUnderTest) -> AsyncIterator[World]:
    """All of it, whole at the end."""
    database = new_log(folder)
    clock = ClockThatStandsStill(MORNING)
    workshop = OrderWorkshop(now=MORNING)
    completer = Completer(BROKER, clock, sealer=SEALER)
    own = Completer(OWN, clock, own=True)
    following = FollowerSettings(folder / "index.duckdb", database, (SIGNER.verifier.vkey,))
    async with (
        opened(database.open_for_writing(), SIGNER) as log,
        contextlib.aclosing(IndexWithoutItsProcess(following)) as index,
        connected(server.bus_settings("service", "ledger"), "ledger") as ledger_bus,
        connected(server.bus_settings("connector", SYSTEM), f"connector-{SYSTEM}") as connector_bus,
    ):
        record = RunsOnRecord(log.archive, index)
        alarms = Alarms(log.sequencer, own, OWN)
        keys = {SYSTEM: workshop.connector_answers.verify_key}
        service = RunsService(keys, log.sequencer, own, record, alarms, clock)
        await service.serve(ledger_bus)
        door = Door(connector_bus)
        connector = ConnectorUnderTest(folder / "state", workshop, clock, door)
        await connector.reporter.begin()
        yield World(
            log=log,
            record=record,
            service=service,
            alarms_of=alarms,
            clock=clock,
            door=door,
            folder=folder,
            workshop=workshop,
            completer=completer,
            own=own,
            index=index,
            connector=connector,
        )
        await connector.store.close()
    assert_whole(database)


def run_of(search_id: str, result: RunResult.ValueType = RUN_RESULT_FOUND) -> Run:
    return Run(
        search_id=search_id,
        order_sha256=b"o" * 32,
        request_sha256=b"r" * 32,
        answer_sha256=b"a" * 32,
        result=result,
    )


async def begin_report(world: World, day: str) -> ReportRunsResponse:
    request = ReportRunsRequest(begin=BeginRunsReport(system=SYSTEM, day=day))
    return await world.door.request(f"runs.{SYSTEM}", request, ReportRunsResponse, 30)


async def tell_of(
    world: World,
    run: Run,
    *,
    report: int = 1,
    page: int = 1,
    pages: int = 1,
    key: SigningKey | None = None,
) -> ReportRunsResponse:
    """Report a run as the connector would that has it, whatever it knows."""
    if world.clock.now().date() == MORNING.date():
        world.to_next_morning()
    key = key or world.workshop.connector_answers
    told = RunsReport(
        system=SYSTEM, day=DAY, report=report, page=page, pages=pages, count=1, runs=[run]
    )
    data = told.SerializeToString()
    signed = SignedRunsReport(
        report=data, key_id=key.key_id, signature=key.sign(RUNS_CONTEXT, data)
    )
    request = ReportRunsRequest(page=signed)
    return await world.door.request(f"runs.{SYSTEM}", request, ReportRunsResponse, 30)
