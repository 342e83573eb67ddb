"""The ledger's look for reports that did not come: whom it accuses, of what, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path

import pytest

from broker.record import Record, answered_at_peer_entry, rejected_at_peer_entry
from countersign.connector.v1.connector_pb2 import RUN_RESULT_REFUSED, SearchAnswer, SignedOrder
from countersign.ledger.v1.entry_pb2 import PeerEntry
from ledger.archive import Archive
from ledger.differences import Difference, Ended
from ledger.index_process import IndexProcess
from ledger.missing_reports import LOOK_EVERY_S, looking
from ledger.runs_on_record import RunsOnRecord
from ledger.runs_service import Alarms
from support.nats_servers import NatsUnderTest
from support.orders import SYSTEM
from support.reconciling import DAY, OWN, World, ids, receipt, run_of, tell_of, world

ONE, TWO, THREE = ids(3)
FROM_THE_START = date(2026, 11, 1)


@pytest.fixture(name="world")
async def _world(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[World]:
    async with world(tmp_path, nats_server) as one:
        yield one


class RecordThatGrows(RunsOnRecord):
    """Something happens once the ends have been read."""

    def __init__(
        self, archive: Archive, index: IndexProcess, happens: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(archive, index)
        self._happens = happens

    async def days_of(self, ends: Sequence[Ended], size: int) -> list[str]:
        if ends:
            await self._happens()
        return await super().days_of(ends, size)


class AlarmsThatAreCounted(Alarms):
    """Remembers of how many days each call was."""

    def __init__(self, world: World) -> None:
        super().__init__(world.log.sequencer, world.own, OWN)
        self.days: list[list[str]] = []

    async def raise_all(self, differences: list[Difference]) -> None:
        self.days.append([one.day for one in differences])
        await super().raise_all(differences)


@pytest.mark.promise(1)
async def test_what_a_peer_answered_is_its_connectors_to_report(world: World) -> None:
    """Nor does a connector report what nobody answered."""
    for search_id in (ONE, TWO):
        await world.decide(search_id, system="facefind")
    asked = [Record.from_receipts(receipt(world.decisions[one]), None) for one in (ONE, TWO)]
    peer = PeerEntry(log_origin="peer.test/log", index=7)
    await world.append(
        answered_at_peer_entry(asked[0], SearchAnswer(search_id=ONE), b"a" * 32, peer, peer)
    )
    await world.append(rejected_at_peer_entry(asked[1], "SYSTEM_UNKNOWN"))
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 0
    # Its own are looked at all the same.
    await world.search(THREE)
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 1
    assert await world.reasons() == ["DAY_NOT_REPORTED"]


async def test_a_report_that_comes_while_it_is_looked_is_seen_whole(world: World) -> None:
    await world.search(ONE)
    world.clock.advance(hours=37)
    record = RecordThatGrows(*(world.log.archive, world.index), world.connector.reporter.report_due)
    assert await world.missing(FROM_THE_START, record=record).look() == 0
    assert await world.alarms() == []
    assert [one.runs for one in await world.reports()] == [1]


async def test_a_report_is_there_once_its_last_page_is(world: World) -> None:
    await world.search(ONE)
    await tell_of(world, run_of(TWO, RUN_RESULT_REFUSED), pages=2)
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 1
    assert await world.reasons() == ["DAY_NOT_REPORTED"]


async def test_an_answer_that_comes_after_its_report_is_compared_with_it(world: World) -> None:
    """As of a broker that was away: when the day is reported, the search has no end yet."""
    one, two = await world.decide(ONE), await world.decide(TWO)
    answer = await world.connector.run(one, ONE)
    await world.connector.run(two, TWO)
    other = world.restarted("other")
    another = await other.run(two, TWO)
    await other.store.close()
    world.to_next_morning()
    await world.connector.reporter.report_due()
    await world.end(ONE, answer)
    await world.end(TWO, another)
    assert await world.alarms() == []
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 1
    (alarm,) = await world.alarms()
    assert (alarm.reason, f"search {TWO}" in alarm.evidence) == ("RUN_ANSWERED_OTHERWISE", True)


async def test_a_rejection_on_record_of_a_search_that_was_run_is_found(world: World) -> None:
    """A forged order on the bus: its rejection is the end, and the true order's answer is too late."""
    order = await world.decide(ONE)
    forged = SignedOrder.FromString(order.SerializeToString())
    forged.signature = bytes(64)
    rejected = await world.connector.run(forged, ONE)
    await world.connector.run(order, ONE)
    world.to_next_morning()
    await world.connector.reporter.report_due()
    await world.end(ONE, rejected)
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 1
    assert await world.reasons() == ["RUN_ANSWERED_OTHERWISE"]


async def test_a_rejection_of_what_was_not_run_is_no_difference(world: World) -> None:
    """Nor does it ask for a report: the connector keeps nothing of it."""
    order = await world.decide(ONE)
    order.signature = bytes(64)
    await world.end(ONE, await world.connector.run(order, ONE))
    world.clock.advance(hours=37)
    assert await world.missing(FROM_THE_START).look() == 0
    await world.connector.reporter.report_due()
    assert await world.missing(FROM_THE_START).look() == 0
    assert await world.alarms() == []


async def test_an_answer_long_after_every_order_is_compared_with_a_later_report(
    world: World,
) -> None:
    order = await world.decide(ONE)
    await world.connector.run(order, ONE)
    other = world.restarted("other")
    world.clock.advance(seconds=1)
    answer = await other.run(order, ONE)
    await other.store.close()
    world.clock.advance(days=10)
    await world.end(ONE, answer)
    await world.connector.reporter.report_due()
    assert await world.reasons() == ["RUN_ANSWERED_OTHERWISE"]


async def test_a_ledger_that_starts_gives_connectors_time_to_report(world: World) -> None:
    """After an outage every report is late; that one did not come is found at the second pause."""
    await world.search(ONE)
    world.clock.advance(hours=37)
    found: list[list[str]] = []

    async def pause(seconds: float) -> None:
        assert seconds == LOOK_EVERY_S
        found.append(await world.reasons())
        if len(found) == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await world.missing(FROM_THE_START, pause=pause).run()
    assert found == [[], ["DAY_NOT_REPORTED"]]


async def test_each_day_has_its_own_bound_of_differences(world: World) -> None:
    world.clock.time = world.clock.time.replace(hour=23, minute=50)
    await world.search(ONE)
    world.clock.advance(minutes=20)
    await world.search(TWO)
    world.clock.advance(hours=37)
    alarms = AlarmsThatAreCounted(world)
    assert await world.missing(FROM_THE_START, alarms=alarms).look() == 2
    assert alarms.days == [["2026-11-20"], ["2026-11-21"]]


async def test_all_days_since_the_last_look_are_looked_at(world: World) -> None:
    for search_id in (ONE, TWO, THREE):
        await world.search(search_id)
        world.clock.advance(days=2)
    missing = world.missing(FROM_THE_START)
    assert await missing.look() == 3
    assert await missing.look() == 0
    assert await world.reasons() == ["DAY_NOT_REPORTED"] * 3


async def test_an_end_long_after_every_order_is_not_read_with_the_day(world: World) -> None:
    answers = {one: await world.connector.run(await world.decide(one), one) for one in (ONE, TWO)}
    for search_id, days in ((ONE, 7), (TWO, 3)):
        world.clock.advance(days=days)
        await world.end(search_id, answers[search_id])
    size = world.log.sequencer.published.size
    decided = await world.record.decided(SYSTEM, DAY, size)
    assert sorted(decided) == [ONE, TWO]
    ends = await world.record.ended(SYSTEM, DAY, decided, size)
    assert [end.search_id for end in ends] == [ONE]


async def test_a_look_that_breaks_ends_the_ledger(world: World) -> None:
    """Else nothing would be looked for any more, and nobody would know."""

    async def breaks(_: float) -> None:
        raise ValueError("a bug")

    ended = asyncio.Event()
    async with looking(world.missing(pause=breaks), ended):
        await asyncio.wait_for(ended.wait(), 30)
    stays = asyncio.Event()
    async with looking(world.missing(), stays):
        await asyncio.sleep(0)
    assert not stays.is_set()
