"""What a connector answers, to what, and how often."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from connector.answering import NOTICE, candidate_id
from connector.at_once import AnswersAtOnce
from connector.runs import RunStore
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.type.v1.decision_pb2 import VerdictOutcome
from countersign.type.v1.search_pb2 import BoundRequest, SearchFacts
from shared.binding import payload_digest
from shared.bus import Retry
from shared.sealing import probe_info, seal
from shared.signing import SigningKey
from support.connectors import (
    CANDIDATE_KEY,
    BusThatKeeps,
    SystemThatAnswers,
    SystemThatFails,
    SystemThatRefuses,
    SystemThatWaits,
    delivery,
    orders,
)
from support.orders import GALLERY, NOW, SEARCH_ID, SYSTEM, OrderWorkshop, verdict

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


async def test_candidates_reach_the_requester_and_nobody_else(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    order = workshop.sign(workshop.order(probe=b"the probe"))

    await orders(workshop, behind, runs, bus).take(delivery(order))

    assert behind.probes == [b"the probe"]
    ((subject, data, _),) = bus.published
    assert subject == f"answers.{SYSTEM}.{SEARCH_ID}"
    answer = workshop.checked(bus.answers[0])
    assert (answer.search_id, answer.system, answer.gallery) == (SEARCH_ID, SYSTEM, GALLERY)
    assert (answer.found.returned, answer.found.above_threshold) == (3, 2)
    found = workshop.opened(bus.answers[0], order)
    assert found.candidates[0].candidate_id.encode() not in data
    assert b"BOOKING" not in found.SerializeToString()


async def test_candidate_list_says_how_to_read_it(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    order = workshop.sign(workshop.order())
    await orders(workshop, SystemThatAnswers(), runs, bus).take(delivery(order))

    found = workshop.opened(bus.answers[0], order)

    assert [one.rank for one in found.candidates] == [1, 2, 3]
    assert [one.similarity_score for one in found.candidates] == [0.9, 0.78, 0.5]
    assert [one.above_threshold for one in found.candidates] == [True, True, False]
    assert found.candidates[0].image_sha256 == b"\x01" * 32
    assert found.candidates[0].candidate_id == candidate_id(CANDIDATE_KEY, GALLERY, "BOOKING-1")
    assert found.requested == 20
    assert found.gallery_size == 3
    assert found.score_scale.threshold == 0.78
    assert found.score_scale.false_match_rate == 0.01
    assert found.score_scale.algorithm == "stand-in 1"
    assert found.probe_face.width == 30
    assert found.probe_quality.inter_eye_distance_px == 50
    assert found.searched_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert found.notice == NOTICE
    assert "not" in NOTICE
    assert "lead only" in NOTICE


async def test_no_more_candidates_than_asked_for(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    def two(facts: SearchFacts) -> None:
        facts.candidates_max = 2

    order = workshop.sign(workshop.order(facts_changed=two))
    await orders(workshop, SystemThatAnswers(), runs, bus).take(delivery(order))

    assert len(workshop.opened(bus.answers[0], order).candidates) == 2


def test_candidate_ids_differ_between_holders_and_galleries() -> None:
    ids = {
        candidate_id(key, gallery, "record")
        for key in (b"a" * 32, b"b" * 32)
        for gallery in ("one", "two")
    }

    assert len(ids) == 4


async def test_redelivered_order_gets_the_same_answer_and_runs_once(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    desk = orders(workshop, behind, runs, bus)
    order = workshop.sign(workshop.order())

    await desk.take(delivery(order))
    await desk.take(delivery(order))

    assert len(behind.probes) == 1
    assert bus.published[0] == bus.published[1]


async def test_answer_survives_a_bus_that_fails_and_a_restart(
    workshop: OrderWorkshop, runs: RunStore
) -> None:
    behind, bus = SystemThatAnswers(), BusThatKeeps(failures=1)
    order = workshop.sign(workshop.order())
    with pytest.raises(Retry):
        await orders(workshop, behind, runs, bus).take(delivery(order))
    kept = runs.find(SEARCH_ID)

    after_the_deadline = NOW + timedelta(hours=1)
    await orders(workshop, behind, runs, bus, now=after_the_deadline).take(delivery(order))

    assert kept is not None
    assert [data for _, data, _ in bus.published] == [kept.signed_answer]
    assert len(behind.probes) == 1


async def test_order_made_again_for_the_same_request_gets_the_same_answer(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    desk = orders(workshop, behind, runs, bus)
    order = workshop.order()
    await desk.take(delivery(workshop.sign(order)))
    order.issued_at.FromDatetime(NOW + timedelta(seconds=1))

    await desk.take(delivery(workshop.sign(order)))

    assert len(behind.probes) == 1
    assert bus.published[0] == bus.published[1]


@pytest.mark.promise(2)
async def test_second_request_under_a_search_id_that_was_run(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    desk = orders(workshop, behind, runs, bus)
    await desk.take(delivery(workshop.sign(workshop.order())))
    bus.published.clear()

    await desk.take(delivery(workshop.sign(workshop.order(probe=b"another's face"))))

    assert failure(workshop, bus) == ("ORDER_REJECTED", "SEARCH_ALREADY_RUN")
    assert len(behind.probes) == 1


async def test_order_that_is_being_worked_on_comes_again_later(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatWaits()
    desk = orders(workshop, behind, runs, bus)
    order = workshop.sign(workshop.order())
    first = asyncio.create_task(desk.take(delivery(order)))
    await behind.asked.wait()

    with pytest.raises(Retry):
        await desk.take(delivery(order))

    behind.may_answer.set()
    await first
    assert len(behind.probes) == len(bus.published) == 1


@pytest.mark.promise(2)
async def test_unproved_order_never_touches_the_system(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    order = workshop.order()
    order.ClearField("decision_receipt")

    await orders(workshop, behind, runs, bus).take(delivery(workshop.sign(order)))

    assert failure(workshop, bus) == ("ORDER_REJECTED", "RECEIPT_INVALID")
    assert behind.probes == []


@pytest.mark.promise(2)
async def test_own_agency_that_forbids_is_obeyed(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    forbids = [verdict(VerdictOutcome.VERDICT_OUTCOME_FORBID)]
    desk = orders(workshop, behind, runs, bus, own_directives=lambda _request, _now: forbids)

    await desk.take(delivery(workshop.sign(workshop.order())))

    assert failure(workshop, bus) == ("NOT_PERMITTED_HERE", "OWN_DIRECTIVES")
    assert behind.probes == []


async def test_expired_order_is_answered_as_expired(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatAnswers()
    late = orders(workshop, behind, runs, bus, now=NOW + timedelta(hours=1))

    await late.take(delivery(workshop.sign(workshop.order())))

    assert failure(workshop, bus) == ("ORDER_EXPIRED", "ORDER_EXPIRED")
    assert behind.probes == []


@pytest.mark.promise(2)
async def test_forged_order_does_not_spend_the_answer_of_the_true_one(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    desk = orders(workshop, SystemThatAnswers(), runs, bus)
    await desk.take(delivery(workshop.sign(workshop.order(), SigningKey.generate())))
    assert failure(workshop, bus) == ("ORDER_REJECTED", "ORDER_SIGNATURE")
    assert workshop.checked(bus.answers[0]).request_sha256 == b""

    await desk.take(delivery(workshop.sign(workshop.order())))

    assert workshop.checked(bus.answers[1]).HasField("found")
    assert bus.published[0][2] != bus.published[1][2], "the bus would drop it as a duplicate"


async def test_probe_that_was_sealed_to_another_key(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    stranger = OrderWorkshop(
        broker=workshop.broker, log=workshop.log, connector_answers=workshop.connector_answers
    )
    order = stranger.sign(stranger.order())

    await orders(workshop, SystemThatAnswers(), runs, bus).take(delivery(order))

    assert failure(workshop, bus) == ("PROBE_UNREADABLE", "")


@pytest.mark.promise(6)
async def test_probe_that_was_sealed_for_another_search(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    """A sealed probe that somebody copied from another search does not open in this one."""
    public_key = workshop.connector_probes.public_key
    copied = seal(public_key, b"a probe", probe_info(OTHER_SEARCH_ID, SYSTEM))

    def bound_to_the_copy(request: BoundRequest) -> None:
        request.sealed_probe_sha256 = payload_digest(copied)

    signed = workshop.sign(workshop.order(request_changed=bound_to_the_copy))
    signed.sealed_probe.CopyFrom(copied)

    await orders(workshop, SystemThatAnswers(), runs, bus).take(delivery(signed))

    assert failure(workshop, bus) == ("PROBE_UNREADABLE", "")


async def test_refused_probe_is_answered_with_the_reason(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatRefuses()

    await orders(workshop, behind, runs, bus).take(delivery(workshop.sign(workshop.order())))

    assert failure(workshop, bus) == ("NO_FACE", "")
    assert len(behind.probes) == 1, "asking again would not help"


async def test_failing_system_is_asked_again(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatFails(failures=2)

    await orders(workshop, behind, runs, bus).take(delivery(workshop.sign(workshop.order())))

    assert workshop.checked(bus.answers[0]).HasField("found")
    assert len(behind.probes) == 3


async def test_system_that_keeps_failing_ends_the_search(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    behind = SystemThatFails(failures=100)

    await orders(workshop, behind, runs, bus).take(delivery(workshop.sign(workshop.order())))

    assert failure(workshop, bus) == ("SYSTEM_ERROR", "")
    assert len(behind.probes) == 3


async def test_nothing_of_the_probe_or_the_case_is_logged(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    behind = SystemThatFails(failures=100)
    order = workshop.order(probe=b"SECRET-FACE")
    forged = workshop.sign(workshop.order(search_id=OTHER_SEARCH_ID), SigningKey.generate())
    desk = orders(workshop, behind, runs, bus)

    await desk.take(delivery(workshop.sign(order)))
    await desk.take(delivery(forged, OTHER_SEARCH_ID))

    logged = " ".join(str(record.__dict__) for record in caplog.records)
    assert "order refused" in logged
    for secret in ("SECRET", "26-0000001", "BOOKING", "lapd-40123"):
        assert secret not in logged


async def test_load_test_adapter_says_that_nothing_was_compared(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps, caplog: pytest.LogCaptureFixture
) -> None:
    behind = AnswersAtOnce()
    await behind.start()
    order = workshop.sign(workshop.order())

    await orders(workshop, behind, runs, bus).take(delivery(order))

    assert "load tests only" in workshop.checked(bus.answers[0]).found.algorithm
    assert "load tests only" in workshop.opened(bus.answers[0], order).score_scale.algorithm
    assert "load tests only" in caplog.text


async def test_an_answer_that_cannot_be_sealed_is_refused_before_the_system_is_touched(
    workshop: OrderWorkshop, runs: RunStore, bus: BusThatKeeps
) -> None:
    """The curve has points of low order; a list sealed to one could be read by anybody.

    The answer says that the order was rejected, and who compares both ends believes that nothing was run.
    """
    behind = SystemThatAnswers()

    def of_low_order(request: BoundRequest) -> None:
        request.answer_public_key = bytes(32)

    order = workshop.sign(workshop.order(request_changed=of_low_order))

    await orders(workshop, behind, runs, bus).take(delivery(order))

    assert failure(workshop, bus) == ("ORDER_REJECTED", "REQUEST_INVALID")
    assert behind.probes == []
