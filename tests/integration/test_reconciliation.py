"""What a connector ran and what the ledger has on record, held against each other over a real bus."""

import signal
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from connector.reporting import RUNS_PER_PAGE
from countersign.connector.v1.connector_pb2 import RUN_RESULT_FOUND, RUN_RESULT_REFUSED, RunsReport
from countersign.ledger.v1.event_pb2 import (
    ALARM_KIND_RUNS_UNREPORTED,
    ALARM_KIND_SEARCH_DIFFERS,
    ALARM_KIND_UNRECORDED_SEARCH,
    ALARM_KIND_UNREPORTED_SEARCH,
)
from shared.errors import Unavailable
from shared.signing import RUNS_CONTEXT
from support.ledgers import LAPD
from support.nats_servers import NatsUnderTest
from support.orders import SYSTEM
from support.reconciling import DAY, World, ids, killed, run_of, tell_of, world

ONE, TWO = ids(2)


@pytest.fixture(name="world")
async def _world(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[World]:
    async with world(tmp_path, nats_server) as one:
        yield one


async def test_a_day_on_which_both_ends_agree_is_reported_once_and_signed(world: World) -> None:
    for search_id in (ONE, TWO):
        await world.search(search_id)
    assert await world.connector.reporter.report_due() == 0
    world.to_next_morning()
    assert await world.connector.reporter.report_due() == 1
    assert await world.connector.reporter.report_due() == 0
    (reported,) = await world.reports()
    assert (reported.system, reported.day, reported.report, reported.runs) == (SYSTEM, DAY, 1, 2)
    signed = reported.signed_report
    world.workshop.connector_answers.verify_key.verify(
        RUNS_CONTEXT, signed.report, signed.signature
    )
    page = RunsReport.FromString(signed.report)
    assert [run.search_id for run in page.runs] == [ONE, TWO]
    assert {run.result for run in page.runs} == {RUN_RESULT_FOUND}
    assert await world.alarms() == []


async def test_a_day_without_a_run_is_reported_too(world: World) -> None:
    world.clock.advance(days=3)
    assert await world.connector.reporter.report_due() == 3
    assert [one.runs for one in await world.reports()] == [0, 0, 0]
    assert await world.alarms() == []


@pytest.mark.promise(1)
async def test_a_run_that_the_ledger_lacks_is_an_entry_once(world: World) -> None:
    """As after a second history: the connector holds a proof of a decision that is not in this log."""
    order = await world.decide(ONE)
    await world.connector.run(order, ONE)
    await tell_of(world, run_of(TWO))
    (alarm,) = await world.alarms()
    assert alarm.kind == ALARM_KIND_UNRECORDED_SEARCH
    assert (alarm.reason, alarm.system) == ("RUN_NOT_ON_RECORD", SYSTEM)
    assert f"search {TWO}" in alarm.evidence
    # Nobody decided it, so the id is not spent by naming it.
    assert [one.search_id for one in await world.entries() if one.HasField("alarm_raised")] == [""]
    await tell_of(world, run_of(TWO), report=2)
    assert len(await world.alarms()) == 1


@pytest.mark.promise(1)
async def test_an_answer_that_the_connector_does_not_know_is_an_entry(world: World) -> None:
    await world.search(ONE)
    other = world.restarted("lost")
    await other.reporter.begin()
    answer = await other.run(await world.decide(TWO), TWO)
    await world.end(TWO, answer)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    (alarm,) = await world.alarms()
    assert alarm.kind == ALARM_KIND_UNREPORTED_SEARCH
    assert (alarm.reason, alarm.origin_agency) == ("ANSWER_NOT_REPORTED", LAPD)
    entries = await world.entries()
    decided, ended = (entries[index] for index in alarm.entry_indexes)
    assert (decided.search_id, ended.search_id) == (TWO, TWO)
    assert [one.search_id for one in entries if one.HasField("alarm_raised")] == [TWO]
    await other.store.close()


async def test_another_answer_than_was_given_is_an_entry(world: World) -> None:
    await world.search(ONE)
    order = await world.decide(TWO)
    await world.connector.run(order, TWO)
    other = world.restarted("other")
    world.clock.advance(seconds=1)
    await world.end(TWO, await other.run(order, TWO))
    world.to_next_morning()
    await world.connector.reporter.report_due()
    (alarm,) = await world.alarms()
    assert (alarm.kind, alarm.reason) == (ALARM_KIND_SEARCH_DIFFERS, "RUN_ANSWERED_OTHERWISE")
    await other.store.close()


async def test_a_run_of_a_search_that_was_permitted_elsewhere_is_an_entry(world: World) -> None:
    await world.decide(ONE, system="facefind")
    await tell_of(world, run_of(ONE))
    assert await world.reasons() == ["RUN_NOT_PERMITTED"]


async def test_a_run_of_another_request_is_an_entry(world: World) -> None:
    await world.decide(ONE)
    await tell_of(world, run_of(ONE))
    assert await world.reasons() == ["RUN_OF_ANOTHER_REQUEST"]


async def test_a_search_that_expired_while_it_ran_is_no_difference(world: World) -> None:
    order = await world.decide(ONE)
    await world.expire(ONE)
    await world.connector.run(order, ONE)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    assert [one.runs for one in await world.reports()] == [1]
    assert await world.alarms() == []


async def test_an_order_that_was_refused_is_reported_and_no_difference(world: World) -> None:
    order = await world.decide(ONE)
    world.clock.advance(hours=1)
    await world.end(ONE, await world.connector.run(order, ONE))
    assert world.connector.system.probes == []
    world.to_next_morning()
    await world.connector.reporter.report_due()
    assert [one.runs for one in await world.reports()] == [1]
    # Nor is one that was decided nowhere: it is refused for just that.
    await tell_of(world, run_of(TWO, RUN_RESULT_REFUSED), report=2)
    assert await world.alarms() == []


async def test_a_search_at_midnight_belongs_to_the_day_of_its_decision(world: World) -> None:
    world.clock.time = world.clock.time.replace(hour=23, minute=59, second=59)
    order = await world.decide(ONE)
    world.clock.advance(seconds=2)
    await world.end(ONE, await world.connector.run(order, ONE))
    world.clock.advance(hours=1)
    assert await world.connector.reporter.report_due() == 1
    (reported,) = await world.reports()
    assert (reported.day, reported.runs) == (DAY, 1)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    assert await world.alarms() == []


async def test_a_run_after_its_day_was_reported_is_in_a_further_report(world: World) -> None:
    world.clock.time = world.clock.time.replace(hour=23, minute=59)
    first, late = await world.decide(ONE), await world.decide(TWO)
    await world.end(ONE, await world.connector.run(first, ONE))
    world.clock.advance(minutes=22)
    assert await world.connector.reporter.report_due() == 1
    # An order may wait for seven days; this one is past its deadline and is answered all the same.
    await world.end(TWO, await world.connector.run(late, TWO))
    # It waits for the end of the day on which it was run, with what else is late by then.
    assert await world.connector.reporter.report_due() == 0
    world.to_next_morning()
    assert await world.connector.reporter.report_due() == 2
    assert [(one.day, one.report, one.runs) for one in await world.reports()] == [
        (DAY, 1, 1),
        ("2026-11-21", 1, 0),
        (DAY, 2, 1),
    ]
    assert await world.alarms() == []


async def test_what_is_answered_while_a_report_is_made_is_not_missed(world: World) -> None:
    """The ledger's size is asked for first: an answer recorded after that need not be in the report."""
    world.clock.time = world.clock.time.replace(hour=23, minute=59)
    order = await world.decide(ONE)
    world.clock.advance(minutes=22)

    async def answered() -> None:
        await world.end(ONE, await world.connector.run(order, ONE))

    world.door.before_page = answered
    assert await world.connector.reporter.report_due() == 1
    world.to_next_morning()
    assert await world.connector.reporter.report_due() == 2
    assert [one.runs for one in await world.reports()] == [0, 0, 1]
    assert await world.alarms() == []


async def test_a_day_that_does_not_fit_one_entry_has_pages(world: World) -> None:
    many = ids(RUNS_PER_PAGE + 1)
    for search_id in many:
        await world.search(search_id)
    world.to_next_morning()
    assert await world.connector.reporter.report_due() == 1
    reports = await world.reports()
    assert [(one.page, one.pages, one.runs) for one in reports] == [
        (1, 2, RUNS_PER_PAGE),
        (2, 2, 1),
    ]
    assert await world.alarms() == []


@pytest.mark.promise(8)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connector_that_is_killed_at_a_report_reports_once(
    world: World, nats_server: NatsUnderTest, moment: str
) -> None:
    await world.search(ONE)
    order = await world.decide(TWO)
    other = world.restarted("lost")
    await world.end(TWO, await other.run(order, TWO))
    await other.store.close()
    world.to_next_morning()
    status = await killed(world, nats_server, moment)
    assert status == -signal.SIGKILL
    assert len(await world.reports()) == (0 if moment == "before" else 1)
    assert await world.connector.reporter.report_due() == 1
    assert [(one.report, one.runs) for one in await world.reports()] == [(1, 1)]
    assert await world.reasons() == ["ANSWER_NOT_REPORTED"]


@pytest.mark.promise(8)
async def test_a_report_that_is_sent_again_is_the_same_entry(world: World) -> None:
    await world.search(ONE)
    world.to_next_morning()

    world.door.replies_lost = 1
    with pytest.raises(Unavailable):
        await world.connector.reporter.report_due()
    again = world.restarted()
    assert await again.reporter.report_due() == 1
    assert await again.reporter.report_due() == 0
    assert len(await world.reports()) == 1
    await again.store.close()


async def test_a_lost_state_goes_on_with_the_next_report(world: World) -> None:
    await world.search(ONE)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    world.clock.advance(days=-1)
    other = world.restarted("empty")
    await other.reporter.begin()
    world.clock.advance(days=1)
    assert await other.reporter.report_due() == 1
    assert [(one.report, one.runs) for one in await world.reports()] == [(1, 1), (2, 0)]
    assert await world.alarms() == []
    await other.store.close()


async def test_a_day_that_is_not_reported_in_time_is_an_entry_once(world: World) -> None:
    await world.search(ONE)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    await world.search(TWO)
    missing = world.missing()
    assert await missing.look() == 0
    world.clock.advance(hours=37)
    assert await missing.look() == 1
    assert await world.missing().look() == 1
    (alarm,) = await world.alarms()
    assert (alarm.kind, alarm.reason) == (ALARM_KIND_RUNS_UNREPORTED, "DAY_NOT_REPORTED")
    assert alarm.evidence[0] == "day 2026-11-21"
    # It comes late, and the entry stays; nothing else differs.
    await world.connector.reporter.report_due()
    assert await world.reasons() == ["DAY_NOT_REPORTED"]
    assert await world.missing().look() == 0


async def test_a_connector_that_never_reported_is_expected_from_a_named_day_on(
    world: World,
) -> None:
    await world.search(ONE)
    world.clock.advance(days=2)
    assert await world.missing().look() == 0
    assert await world.missing(expected_from=date(2026, 11, 21)).look() == 0
    assert await world.missing(expected_from=date(2026, 11, 20)).look() == 1
    assert await world.reasons() == ["DAY_NOT_REPORTED"]
