"""Orders that nobody can carry out come to an answer all the same, and so onto record."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connector.orders import BEGUN_AGAIN_MAX
from connector.runs import RunStore
from countersign.connector.v1.connector_pb2 import FailureReason, SignedOrder
from shared.bus import Retry
from support.connectors import BusThatKeeps, SystemThatAnswers, SystemThatBreaks, delivery, orders
from support.orders import SEARCH_ID, OrderWorkshop

OTHER_SEARCH_ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(name="workshop")
def _workshop() -> OrderWorkshop:
    return OrderWorkshop()


@pytest.fixture(name="runs")
async def _runs(tmp_path: Path) -> AsyncIterator[RunStore]:
    store = RunStore(tmp_path / "runs.sqlite")
    yield store
    await store.close()


@pytest.fixture(name="bus")
def _bus() -> BusThatKeeps:
    return BusThatKeeps()


def failure(workshop: OrderWorkshop, bus: BusThatKeeps) -> tuple[str, str]:
    """Reason and check of the only answer, once its signature verifies."""
    (signed,) = bus.answers
    failed = workshop.checked(signed).failure
    return FailureReason.Name(failed.reason).removeprefix("FAILURE_REASON_"), failed.check


@pytest.mark.parametrize(
    "data",
    [b"\xff no order", b"", SignedOrder(order=b"\xff").SerializeToString()],
    ids=["garbage", "empty", "garbage-within"],
)
async def test_delivery_that_cannot_be_read_is_answered_and_so_on_record(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps, data: bytes
) -> None:
    desk = orders(workshop, SystemThatAnswers(), runs, bus)
    await desk.take(delivery(data))
    assert failure(workshop, bus) == ("ORDER_REJECTED", "ORDER_MALFORMED")
    assert workshop.checked(bus.answers[0]).search_id == SEARCH_ID
    assert runs.find(SEARCH_ID) is None, "garbage has spent the true order's answer"


async def test_order_under_another_searchs_subject_is_answered_there_and_not_run(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    order = workshop.sign(workshop.order())
    await orders(workshop, behind, runs, bus).take(delivery(order, OTHER_SEARCH_ID))
    assert failure(workshop, bus) == ("ORDER_REJECTED", "ORDER_MISPLACED")
    assert workshop.checked(bus.answers[0]).search_id == OTHER_SEARCH_ID
    assert behind.probes == []


async def test_an_order_that_breaks_its_connector_each_time_is_set_aside_on_record(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatBreaks()
    order = workshop.sign(workshop.order())
    for deliveries in range(1, BEGUN_AGAIN_MAX + 2):
        desk = orders(workshop, behind, runs, bus)  # as after a restart
        with pytest.raises(ZeroDivisionError):
            await desk.take(delivery(order, deliveries=deliveries))
    assert bus.published == []
    await orders(workshop, behind, runs, bus).take(delivery(order, deliveries=99))
    assert failure(workshop, bus) == ("SYSTEM_ERROR", "SET_ASIDE")
    assert len(behind.probes) == BEGUN_AGAIN_MAX + 1
    kept = runs.find(SEARCH_ID)
    assert kept is not None
    assert kept.signed_answer == bus.answers[0].SerializeToString()


async def test_an_order_that_only_waited_for_the_bus_is_not_set_aside(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    order = workshop.sign(workshop.order())
    bus.failures = 50
    desk = orders(workshop, behind, runs, bus)
    for deliveries in range(1, 51):
        with pytest.raises(Retry):
            await desk.take(delivery(order, deliveries=deliveries))
    await desk.take(delivery(order, deliveries=51))
    assert workshop.checked(bus.answers[0]).HasField("found")
    assert len(behind.probes) == 1
