"""What is made together bears one signature besides: who makes it, who believes it, who does not."""

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from broker.answers import AnswerRefused, verified_answer
from broker.ordering import Ordering
from broker.record import Record
from connector.proof import OrderRefused, read_signed
from connector.runs import Run, RunStore
from connector.system import Findings
from connector.together import signed_together
from countersign.client.verify import VerificationError, open_answer
from countersign.connector.v1.connector_pb2 import SearchOrder, SignedAnswer, SignedOrder
from shared.signing import SigningKey
from shared.together import (
    ANSWERS_CONTEXT,
    ORDERS_CONTEXT,
    TOGETHER_MAX,
    sign_together,
    verify_answer,
    verify_order,
)
from support.brokers import BrokerOnTheTable
from support.connectors import BusThatKeeps, SystemThatAnswers, delivery, orders
from support.orders import NOW, OFFICER, SEARCH_ID, OrderWorkshop
from support.searches import SearchWorkshop

SEVERAL = 3


Signed = TypeVar("Signed", SignedOrder, SignedAnswer)


def alone(signed: Signed) -> Signed:
    """As release 0.1 reads it."""
    seen = type(signed).FromString(signed.SerializeToString())
    seen.ClearField("together")
    return seen


def listed_only(signed: Signed) -> Signed:
    """Without its own signature."""
    seen = type(signed).FromString(signed.SerializeToString())
    seen.ClearField("signature")
    return seen


# The broker's orders


async def recorded(broker: BrokerOnTheTable) -> Record:
    prepared = broker.prepared()
    return await broker.searching.submit(broker.call(), broker.request(prepared))


async def made(
    broker: BrokerOnTheTable, *records: Record, ordering: Ordering | None = None
) -> list[SignedOrder]:
    """Orders of these records that are made in one turn."""
    ordering = ordering or Ordering(broker.order_key, broker.clock)
    sealed = broker.prepared().sealed_probe
    making = [ordering.order(record, record.decided, b"bound", sealed) for record in records]
    return [SignedOrder.FromString(data) for data in await asyncio.gather(*making)]


async def test_orders_that_are_made_together_verify_by_either_signature() -> None:
    broker = BrokerOnTheTable()
    key = broker.order_key.verify_key
    record = await recorded(broker)
    records = [replace(record, search_id=f"search {number}") for number in range(SEVERAL)]

    signed = await made(broker, *records)

    assert [SearchOrder.FromString(one.order).search_id for one in signed] == [
        one.search_id for one in records
    ]
    assert len({one.together.signature for one in signed}) == 1
    assert len(signed[0].together.digests) == SEVERAL * 32
    for one in signed:
        for seen in (one, alone(one), listed_only(one)):
            assert verify_order(key, seen)


async def test_an_order_by_itself_has_only_its_own_signature() -> None:
    broker = BrokerOnTheTable()
    ordering = Ordering(broker.order_key, broker.clock)
    record = await recorded(broker)
    for _ in range(2):
        (signed,) = await made(broker, record, ordering=ordering)
        assert not signed.HasField("together")
        assert verify_order(broker.order_key.verify_key, signed)


async def test_no_connector_learns_of_orders_to_another_system() -> None:
    broker = BrokerOnTheTable()
    record = await recorded(broker)
    elsewhere = replace(record, system="facefind")

    here, there, here_too = await made(broker, record, elsewhere, record)

    assert not there.HasField("together")
    assert here.together == here_too.together
    assert len(here.together.digests) == 2 * 32


async def test_more_orders_than_one_signature_takes_have_several() -> None:
    broker = BrokerOnTheTable()
    record = await recorded(broker)
    records = [replace(record, search_id=str(number)) for number in range(2 * TOGETHER_MAX + 1)]

    signed = await made(broker, *records)

    assert len({one.together.signature for one in signed[:-1]}) == 2
    assert not signed[-1].HasField("together")
    for one in signed[:-1]:
        assert verify_order(broker.order_key.verify_key, listed_only(one))


async def test_whoever_gives_up_keeps_nobody_from_an_order() -> None:
    broker = BrokerOnTheTable()
    ordering = Ordering(broker.order_key, broker.clock)
    record = await recorded(broker)
    sealed = broker.prepared().sealed_probe
    first, second = (
        asyncio.create_task(ordering.order(record, record.decided, b"bound", sealed))
        for _ in range(2)
    )
    await asyncio.sleep(0)
    first.cancel()
    assert verify_order(broker.order_key.verify_key, SignedOrder.FromString(await second))
    assert first.cancelled()


async def test_searches_that_come_together_are_ordered_together() -> None:
    """Through the broker as a whole: what the ledger took in one message comes back in one turn."""
    broker = BrokerOnTheTable()
    prepared = [broker.prepared() for _ in range(SEVERAL)]

    await asyncio.gather(
        *(broker.searching.submit(broker.call(), broker.request(one)) for one in prepared)
    )

    signed = [
        SignedOrder.FromString(broker.bus.published[f"orders.lacris.{one.search_id}"])
        for one in prepared
    ]
    assert {len(one.together.digests) for one in signed} == {SEVERAL * 32}
    for one, asked in zip(signed, prepared, strict=True):
        assert SearchOrder.FromString(one.order).search_id == asked.search_id
        assert one.sealed_probe == asked.sealed_probe


# The connector's answers


@pytest.fixture(name="workshop")
def _workshop() -> OrderWorkshop:
    return OrderWorkshop()


@pytest.fixture(name="runs")
async def _runs(tmp_path: Path, workshop: OrderWorkshop) -> AsyncIterator[RunStore]:
    store = RunStore(
        tmp_path / "runs.sqlite", functools.partial(signed_together, workshop.connector_answers)
    )
    yield store
    await store.close()


def search_ids() -> list[str]:
    return [f"00000000-0000-4000-8000-{number:012}" for number in range(SEVERAL)]


async def test_answers_that_are_committed_together_verify_by_either_signature(
    workshop: OrderWorkshop, runs: RunStore
) -> None:
    bus = BusThatKeeps()
    desk = orders(workshop, SystemThatAnswers(), runs, bus)
    deliveries = [
        delivery(workshop.sign(workshop.order(search_id=one)), search_id=one)
        for one in search_ids()
    ]

    await asyncio.gather(*(desk.take(one) for one in deliveries))

    assert {len(one.together.digests) for one in bus.answers} == {SEVERAL * 32}
    for one in bus.answers:
        for seen in (one, alone(one), listed_only(one)):
            assert verify_answer(workshop.connector_answers.verify_key, seen)
    # What was published is what is kept, and is published again.
    for again in deliveries:
        await desk.take(again)
    assert sorted(bus.published[:SEVERAL]) == sorted(bus.published[SEVERAL:])


async def test_an_answer_that_another_connector_kept_meanwhile_is_published_as_that_one(
    workshop: OrderWorkshop, runs: RunStore, tmp_path: Path
) -> None:
    """Two may share a folder; the bus tells copies apart by the answer's digest."""
    bus, other = BusThatKeeps(), RunStore(tmp_path / "runs.sqlite")
    theirs = workshop.connector_answers.sign("any", b"")
    kept = SignedAnswer(answer=b"", signature=theirs).SerializeToString()

    class Overtaken(SystemThatAnswers):
        async def search(self, probe: bytes, candidates_max: int) -> Findings:
            await other.keep(Run(SEARCH_ID, b"r" * 32, kept, NOW))
            return await super().search(probe, candidates_max)

    await orders(workshop, Overtaken(), runs, bus).take(delivery(workshop.sign(workshop.order())))
    await other.close()
    ((_, data, message_id),) = bus.published
    assert data == kept
    assert message_id.endswith(hashlib.sha256(b"").hexdigest())


async def test_an_answer_by_itself_has_only_its_own_signature(
    workshop: OrderWorkshop, runs: RunStore
) -> None:
    bus = BusThatKeeps()
    await orders(workshop, SystemThatAnswers(), runs, bus).take(
        delivery(workshop.sign(workshop.order()))
    )
    (signed,) = bus.answers
    assert not signed.HasField("together")
    assert workshop.checked(signed).search_id == SEARCH_ID


def test_more_answers_than_one_signature_takes_have_several(workshop: OrderWorkshop) -> None:
    runs = [
        Run(str(number), b"r" * 32, b"", NOW, answer_sha256=bytes([number]) * 32)
        for number in range(TOGETHER_MAX + 2)
    ]
    signed = signed_together(workshop.connector_answers, runs)
    lists = [SignedAnswer.FromString(one.signed_answer).together for one in signed]
    assert [one.search_id for one in signed] == [one.search_id for one in runs]
    assert len({one.signature for one in lists}) == 2
    assert [len(one.digests) // 32 for one in lists] == [TOGETHER_MAX] * TOGETHER_MAX + [2, 2]


async def test_what_could_not_be_signed_together_is_neither_kept_nor_published(
    workshop: OrderWorkshop, tmp_path: Path
) -> None:
    def fails(_: object) -> list[Run]:
        raise OSError("no entropy")

    runs, bus = RunStore(tmp_path / "runs.sqlite", fails), BusThatKeeps()
    desk = orders(workshop, SystemThatAnswers(), runs, bus)
    with pytest.raises(OSError, match="no entropy"):
        await desk.take(delivery(workshop.sign(workshop.order())))
    assert runs.find(SEARCH_ID) is None
    assert not bus.published
    await runs.close()


# Who believes it


@pytest.mark.promise(2)
def test_a_connector_runs_no_order_for_a_list_that_is_not_its_brokers(
    workshop: OrderWorkshop,
) -> None:
    keys = workshop.expectations().broker_keys
    signed = workshop.sign(workshop.order())
    digest = read_signed(signed, keys).order_sha256
    stranger = SigningKey.generate()
    signed.ClearField("signature")
    for key, context, digests in (
        (stranger, ORDERS_CONTEXT, [digest]),
        (workshop.broker, ANSWERS_CONTEXT, [digest]),
        (workshop.broker, ORDERS_CONTEXT, [b"\0" * 32]),
    ):
        signed.together.CopyFrom(sign_together(key, context, digests))
        with pytest.raises(OrderRefused, match="ORDER_SIGNATURE"):
            read_signed(signed, keys)
    signed.together.CopyFrom(sign_together(workshop.broker, ORDERS_CONTEXT, [b"\0" * 32, digest]))
    assert read_signed(signed, keys).order_sha256 == digest


@pytest.mark.promise(2)
async def test_a_broker_records_no_answer_for_a_list_that_is_not_its_connectors() -> None:
    broker = BrokerOnTheTable()
    record = await recorded(broker)
    key, signed = broker.connector_key, broker.answer(record.search_id)
    digest = verify_answer(key.verify_key, signed)
    signed.signature = SigningKey.generate().sign("any", b"")
    for signer, digests in ((SigningKey.generate(), [digest]), (key, [b"\0" * 32])):
        signed.together.CopyFrom(sign_together(signer, ANSWERS_CONTEXT, digests))
        with pytest.raises(AnswerRefused, match="ANSWER_SIGNATURE"):
            verified_answer(signed, record, key.verify_key)
    signed.together.CopyFrom(sign_together(key, ANSWERS_CONTEXT, [digest]))
    assert verified_answer(signed, record, key.verify_key).search_id == record.search_id


@pytest.mark.promise(2)
def test_a_requester_opens_no_answer_for_a_list_that_is_not_the_connectors() -> None:
    workshop = SearchWorkshop()
    key, signed = workshop.connector, workshop.sign(workshop.answer())
    digest = verify_answer(key.verify_key, signed)
    search = workshop.end(workshop.decide(), signed)
    search.answer.ClearField("signature")
    for signer, digests in ((SigningKey.generate(), [digest]), (key, [b"\0" * 32])):
        search.answer.together.CopyFrom(sign_together(signer, ANSWERS_CONTEXT, digests))
        with pytest.raises(VerificationError, match="connector"):
            open_answer(workshop.prepared, search, OFFICER, workshop.trust)
    search.answer.together.CopyFrom(sign_together(key, ANSWERS_CONTEXT, [digest]))
    assert open_answer(workshop.prepared, search, OFFICER, workshop.trust).candidates
