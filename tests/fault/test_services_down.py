"""Each part is killed in turn while searches are made: nothing is sent unrecorded, nothing is lost.

Real processes, ended by SIGKILL. Every test leaves the installation whole, since it is not this file's
alone, and every wait is for a condition.
"""

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client.prepare import PreparedSearch
from shared.errors import NotFound, Unavailable
from support.agencies import (
    DECIDED_AND_ANSWERED,
    AgencyAtWork,
    OrdersOnTheBus,
    at_work,
    orders_on_the_bus,
    stopped,
)
from support.brokers import own_case
from support.installations import LAPD, InstallationUnderTest, ProcessUnderTest
from support.pictures import probe
from support.waiting import until

pytestmark = [pytest.mark.fault, pytest.mark.promise(8)]

CONNECTOR: Final = "connector-lacris"
LOST_AFTER: Final = timedelta(seconds=2)
"""When the bus takes an order for lost, so that a test need not wait for the broker's minute."""


@pytest.fixture
async def lapd(installation: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    """LAPD's system."""
    async with at_work(installation, LAPD) as agency:
        yield agency


@pytest.fixture
async def orders(installation: InstallationUnderTest) -> AsyncIterator[OrdersOnTheBus]:
    """The orders to LACRIS."""
    async with orders_on_the_bus(installation) as seen:
        yield seen


async def answered_once(lapd: AgencyAtWork, prepared: PreparedSearch) -> pb.Search:
    """Waits for the answer, verifies everything, and that it is the only end on record."""
    search, opened = await lapd.ended(prepared)
    assert search.state == pb.SEARCH_STATE_ANSWERED
    assert opened.candidates is not None
    assert opened.candidates.candidates
    assert await lapd.kinds(prepared.search_id) == DECIDED_AND_ANSWERED
    return search


async def serves_again(lapd: AgencyAtWork) -> None:
    """Waits until everything has found each other again: one search goes through."""
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit_until_taken(prepared)
    await answered_once(lapd, prepared)


@pytest.mark.promise(1)
@pytest.mark.parametrize("service", ["policy", "ledger", "nats"])
async def test_nothing_is_sent_while_a_service_is_down_and_a_retry_completes(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus, service: str
) -> None:
    earlier = lapd.sealed(own_case(), probe())
    await lapd.submit(earlier)
    answered = await answered_once(lapd, earlier)
    prepared = lapd.sealed(own_case(), probe())
    sent = await orders.sent()
    with stopped(installation.processes[service]):
        with pytest.raises(Unavailable) as caught:
            await lapd.submit(prepared)
        assert caught.value.reason == (
            "POLICY_UNAVAILABLE" if service == "policy" else "SERVICE_UNAVAILABLE"
        )
        assert caught.value.retry_after_s

    async def seen() -> list[int]:
        with contextlib.suppress(Exception):
            return [await orders.sent()]
        return []

    assert await until(seen) == [sent], "an order was sent while a service was down"
    assert not await lapd.kinds(prepared.search_id)
    if service == "policy":
        undecided = (await lapd.newest("search_undecided")).search_undecided
        assert (undecided.origin_agency, undecided.reason) == (LAPD, "POLICY_UNAVAILABLE")
    with pytest.raises(NotFound):
        await until(lambda: unless_unavailable(lapd, prepared.search_id))
    await lapd.submit_until_taken(prepared)
    await answered_once(lapd, prepared)
    assert await orders.sent() == sent + 1
    assert await lapd.client.get(earlier.search_id) == answered, "an earlier search was lost"


async def unless_unavailable(lapd: AgencyAtWork, search_id: str) -> pb.Search | None:
    """The search, once the broker can look."""
    try:
        return await lapd.client.get(search_id)
    except Unavailable:
        return None


@pytest.mark.promise(1)
async def test_an_answer_is_held_back_until_the_ledger_has_it(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    ledger, connector = installation.processes["ledger"], installation.processes[CONNECTOR]
    connector.kill()
    await lapd.submit(prepared)
    with stopped(ledger):
        connector.start()

        async def answer_is_there() -> bool:
            return await orders.answered(prepared.search_id)

        assert await until(answer_is_there)
        # Not even that it is open: another broker may have told of its end.
        for wait_s in (1, 0):
            with pytest.raises(Unavailable):
                await lapd.client.get(prepared.search_id, wait_s=wait_s)
    await answered_once(lapd, prepared)


async def test_a_broker_killed_between_submission_and_answer_loses_nothing(
    installation: InstallationUnderTest, lapd: AgencyAtWork
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    with stopped(installation.processes[CONNECTOR]):
        await lapd.submit(prepared)
        with stopped(installation.processes["broker"]):
            assert await lapd.kinds(prepared.search_id) == ["search_decided"]
    search = await answered_once(lapd, prepared)
    # Asked again with the same content, the restarted broker gives the same search.
    again = await lapd.submit_until_taken(prepared)
    assert again.decision_receipt.leaf == search.decision_receipt.leaf
    await answered_once(lapd, prepared)


async def test_an_answer_given_while_the_broker_is_down_is_recorded_after(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    connector = installation.processes[CONNECTOR]
    connector.kill()
    await lapd.submit(prepared)
    with stopped(installation.processes["broker"]):
        connector.start()

        async def answer_is_there() -> bool:
            return await orders.answered(prepared.search_id)

        assert await until(answer_is_there)
        assert await lapd.kinds(prepared.search_id) == ["search_decided"]
    await answered_once(lapd, prepared)


async def test_an_order_waits_for_its_connector_also_through_a_crash_of_the_bus(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    with stopped(installation.processes[CONNECTOR]):
        assert (await lapd.submit(prepared)).state == pb.SEARCH_STATE_PENDING
        with stopped(installation.processes["nats"]):
            pass

        async def order_waits() -> bool:
            with contextlib.suppress(Exception):
                return await orders.waits(prepared.search_id)
            return False

        assert await until(order_waits)
        assert await lapd.kinds(prepared.search_id) == ["search_decided"]
    await answered_once(lapd, prepared)


def worker_of(connector: ProcessUnderTest) -> int:
    """The process id of its worker, the last that it said was ready."""
    lines = [json.loads(line) for line in connector.log.splitlines() if line.startswith("{")]
    ready = [line for line in lines if "worker ready" in line.values()]
    return int(ready[-1]["pid"])


async def test_a_connector_killed_in_the_middle_of_a_search_leads_to_one_end(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus
) -> None:
    await serves_again(lapd)
    connector = installation.processes[CONNECTOR]
    worker = worker_of(connector)
    prepared = lapd.sealed(own_case(), probe())
    os.kill(worker, signal.SIGSTOP)
    try:
        await lapd.submit(prepared)

        async def is_being_run() -> bool:
            return await orders.being_run() == 1

        assert await until(is_being_run)
        connector.kill()
    finally:
        os.kill(worker, signal.SIGKILL)
    assert await lapd.kinds(prepared.search_id) == ["search_decided"]
    connector.start()
    async with orders.delivered_again_after(LOST_AFTER):
        await answered_once(lapd, prepared)


async def test_a_worker_killed_in_the_middle_of_a_search_is_asked_again(
    installation: InstallationUnderTest, lapd: AgencyAtWork, orders: OrdersOnTheBus
) -> None:
    await serves_again(lapd)
    worker = worker_of(installation.processes[CONNECTOR])
    prepared = lapd.sealed(own_case(), probe())
    os.kill(worker, signal.SIGSTOP)
    try:
        await lapd.submit(prepared)

        async def is_being_run() -> bool:
            return await orders.being_run() == 1

        assert await until(is_being_run)
    finally:
        os.kill(worker, signal.SIGKILL)
    await answered_once(lapd, prepared)
