"""Reports of runs that the ledger does not take."""

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from countersign.connector.v1.connector_pb2 import RUN_RESULT_REFUSED
from countersign.ledger.v1.append_pb2 import (
    BeginRunsReport,
    PendingEntry,
    ReportRunsRequest,
    ReportRunsResponse,
)
from ledger.__main__ import running
from ledger.config import LedgerSettings
from ledger.runs_on_record import REPORTS_MAX
from ledger.runs_service import SUBJECT
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.errors import Conflict, InvalidRequest, NotAuthentic, NotReady, ServiceError
from shared.signing import SigningKey
from support.ledgers import write_settings
from support.nats_servers import NatsUnderTest
from support.orders import SYSTEM
from support.reconciling import DAY, World, begin_report, ids, run_of, tell_of, world
from support.waiting import WAIT_S_MAX

ONE, TWO = ids(2)


@pytest.fixture(name="world")
async def _world(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[World]:
    async with world(tmp_path, nats_server) as one:
        yield one


async def test_a_day_that_is_not_over_is_not_taken(world: World) -> None:
    world.clock.time = world.clock.time.replace(hour=0, minute=9) + timedelta(days=1)
    with pytest.raises(NotReady) as refused:
        await begin_report(world, DAY)
    assert refused.value.reason == "DAY_NOT_OVER"
    world.clock.advance(minutes=1)
    assert (await begin_report(world, DAY)).report == 1


@pytest.mark.parametrize("day", ["", "2026-11", "20261120", "2026-11-31", "2025-01-01"])
async def test_what_is_no_day_is_not_taken(world: World, day: str) -> None:
    world.to_next_morning()
    with pytest.raises(InvalidRequest):
        await begin_report(world, day)


@pytest.mark.promise(7)
async def test_a_forged_report_is_not_taken(world: World) -> None:
    with pytest.raises(NotAuthentic) as refused:
        await tell_of(world, run_of(ONE), key=SigningKey.generate())
    assert refused.value.reason == "RUNS_SIGNATURE"
    assert await world.reports() == []


async def test_another_page_does_not_take_the_place_of_one_on_record(world: World) -> None:
    await tell_of(world, run_of(ONE))
    with pytest.raises(Conflict):
        await tell_of(world, run_of(TWO))
    assert len(await world.reports()) == 1


async def test_pages_come_in_order(world: World) -> None:
    for report, page in ((1, 2), (2, 1)):
        with pytest.raises(NotReady) as refused:
            await tell_of(world, run_of(ONE), report=report, page=page, pages=2)
        assert refused.value.reason == "RUNS_OUT_OF_ORDER"
    assert await world.reports() == []


async def test_a_day_of_too_many_reports_does_not_hold_up_the_next(world: World) -> None:
    world.to_next_morning()
    for number in range(1, REPORTS_MAX + 1):
        await tell_of(world, run_of(ONE, RUN_RESULT_REFUSED), report=number, pages=2)
    world.to_next_morning()
    with pytest.raises(NotReady) as refused:
        await world.connector.reporter.report_due()
    assert refused.value.reason == "RUNS_REPORTS_MAX"
    assert (await world.reports())[-1].day == "2026-11-21"
    assert len(await world.reports()) == REPORTS_MAX + 1


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (ReportRunsResponse(report=1, tree_size=1000), "INVALID_REQUEST"),
        (ReportRunsResponse(report=2, tree_size=1), "RUNS_OUT_OF_ORDER"),
    ],
)
async def test_a_report_made_before_the_ledger_was_restored_is_made_anew(
    world: World, before: ReportRunsResponse, reason: str
) -> None:
    """It says of the ledger what is no more so."""
    await world.search(ONE)
    world.clock.advance(days=2)
    world.door.begun = lambda begun: begun.CopyFrom(before)
    with pytest.raises(ServiceError) as refused:
        await world.connector.reporter.report_due()
    assert refused.value.reason == reason
    # The next day's was taken meanwhile.
    assert [(one.day, one.runs) for one in await world.reports()] == [("2026-11-21", 0)]
    assert await world.connector.reporter.report_due() == 1
    assert [(one.day, one.report, one.runs) for one in await world.reports()] == [
        ("2026-11-21", 1, 0),
        (DAY, 1, 1),
    ]
    assert await world.alarms() == []


def with_trust_roots(tmp_path: Path, nats_server: NatsUnderTest) -> LedgerSettings:
    key = base64.b64encode(SigningKey.generate().verify_key.raw).decode()
    roots = {
        "log_verifier_keys": ["a key"],
        "broker_verify_keys": [key],
        "systems": {SYSTEM: {"sealing_public_key": key, "answer_verify_key": key}},
    }
    (tmp_path / "roots.json").write_text(json.dumps(roots))
    config = write_settings(tmp_path, nats_server)
    config.write_text('trust_roots = "roots.json"\n' + config.read_text())
    return LedgerSettings.load(config)


async def test_attack_reports_without_end_do_not_stand_before_what_the_broker_asks(
    tmp_path: Path, nats_server: NatsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one connection brings is taken in its order, so connectors' questions come by another."""
    by_connection = defaultdict[Bus, set[str]](set)
    serve = Bus.serve

    async def spy(bus: Bus, subject: str, *rest: Any) -> None:
        by_connection[bus].add(subject)
        await serve(bus, subject, *rest)

    monkeypatch.setattr(Bus, "serve", spy)
    async with running(with_trust_roots(tmp_path, nats_server)) as ledger:
        (of_connectors,) = [bus for bus, served in by_connection.items() if SUBJECT in served]
        assert by_connection.pop(of_connectors) == {SUBJECT}
        assert {"ledger.append", "ledger.look_up_search"} <= set().union(*by_connection.values())
        assert not ledger.ended.is_set()
        of_connectors.closed.set()
        async with asyncio.timeout(WAIT_S_MAX):
            await ledger.ended.wait()  # a ledger that is deaf on one side goes on for nobody


async def test_a_running_ledger_takes_reports_by_its_trust_roots(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    settings = with_trust_roots(tmp_path, nats_server)
    async with (
        running(settings),
        connected(
            nats_server.bus_settings("connector", SYSTEM), f"connector-{SYSTEM}"
        ) as connector,
    ):
        day = (SystemClock().now() - timedelta(days=2)).date().isoformat()
        begin = ReportRunsRequest(begin=BeginRunsReport(system=SYSTEM, day=day))
        begun = await connector.request(f"runs.{SYSTEM}", begin, ReportRunsResponse, 30)
        assert begun.report == 1
        begin.begin.system = "facefind"
        with pytest.raises(NotAuthentic):
            await connector.request(f"runs.{SYSTEM}", begin, ReportRunsResponse, 30)


async def test_the_ledger_alone_records_reports(world: World) -> None:
    pending = PendingEntry()
    pending.entry.runs_reported.system = SYSTEM
    with pytest.raises(InvalidRequest):
        world.completer.complete(pending, "x")
