"""Reports of runs that the ledger does not take."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import (
    BeginRunsReport,
    PendingEntry,
    ReportRunsRequest,
    ReportRunsResponse,
)
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import connected
from shared.clock import SystemClock
from shared.errors import Conflict, InvalidRequest, NotAuthentic, NotReady
from shared.signing import SigningKey
from support.ledgers import write_settings
from support.nats_servers import NatsUnderTest
from support.orders import SYSTEM
from support.reconciling import DAY, World, begin_report, ids, run_of, tell_of, world

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


async def test_a_running_ledger_takes_reports_by_its_trust_roots(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    key = base64.b64encode(SigningKey.generate().verify_key.raw).decode()
    roots = {
        "log_verifier_keys": ["a key"],
        "broker_verify_keys": [key],
        "systems": {SYSTEM: {"sealing_public_key": key, "answer_verify_key": key}},
    }
    (tmp_path / "roots.json").write_text(json.dumps(roots))
    config = write_settings(tmp_path, nats_server)
    config.write_text('trust_roots = "roots.json"\n' + config.read_text())
    async with (
        running(LedgerSettings.load(config)),
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
