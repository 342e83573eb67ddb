"""Attacks on orders and answers that were signed together, by those who carry or make them."""

import asyncio
import functools
import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.ordering import Ordering
from connector.proof import OrderRefused, read_signed
from connector.runs import Run, RunStore
from connector.together import signed_together
from countersign.connector.v1.connector_pb2 import (
    SearchOrder,
    SignedAnswer,
    SignedOrder,
    SignedTogether,
)
from shared.bus import Retry
from shared.signing import ANSWER_CONTEXT, ORDER_CONTEXT, SigningKey
from shared.together import (
    ANSWERS_CONTEXT,
    ORDERS_CONTEXT,
    TOGETHER_MAX,
    sign_together,
    verify_answer,
)
from support.brokers import BrokerOnTheTable
from support.connectors import BusThatKeeps, SystemThatAnswers, delivery, orders
from support.orders import NOW, SYSTEM, OrderWorkshop
from support.waiting import WAIT_S_MAX

BROKER, STRANGER = SigningKey.generate(), SigningKey.generate()
KEYS = {BROKER.key_id: BROKER.verify_key}


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def an_order(search_id: str) -> bytes:
    order = SearchOrder(search_id=search_id, system=SYSTEM)
    order.issued_at.FromDatetime(NOW)
    order.deadline.FromDatetime(NOW)
    return order.SerializeToString()


def parts(key: SigningKey, listed: Sequence[bytes], context: str) -> list[SignedOrder]:
    """Each field of each order that a key signed, and each half of their list, by itself."""
    together = sign_together(key, context, [sha256(one) for one in listed])
    fields = [
        SignedOrder(key_id=key.key_id),
        SignedOrder(together=together),
        SignedOrder(together=SignedTogether(digests=together.digests)),
        SignedOrder(together=SignedTogether(signature=together.signature)),
        SignedOrder(together=SignedTogether()),
    ]
    for one in listed:
        fields += [SignedOrder(order=one), SignedOrder(signature=key.sign(ORDER_CONTEXT, one))]
    return fields


SIGNED = [an_order(str(number)) for number in range(4)]
FORGED = [an_order("forged"), b"", b"".join(sha256(one) for one in SIGNED[:2])]
LISTS = [
    sign_together(BROKER, ORDERS_CONTEXT, [sha256(one) for one in some])
    for some in (SIGNED[:2], SIGNED[2:])
]
PARTS = [
    *parts(BROKER, SIGNED[:2], ORDERS_CONTEXT),
    *parts(BROKER, SIGNED[2:], ORDERS_CONTEXT),
    *parts(STRANGER, FORGED, ORDERS_CONTEXT),
    SignedOrder(together=sign_together(BROKER, ANSWERS_CONTEXT, [sha256(one) for one in FORGED])),
    SignedOrder(key_id=STRANGER.key_id),
]
SOUND = [
    SignedOrder(
        order=SIGNED[0], key_id=BROKER.key_id, signature=BROKER.sign(ORDER_CONTEXT, SIGNED[0])
    ),
    SignedOrder(order=SIGNED[0], key_id=BROKER.key_id, together=LISTS[0]),
]


@pytest.mark.promise(2)
@pytest.mark.parametrize("sound", SOUND, ids=["alone", "together"])
def test_whatever_is_added_to_a_sound_order_only_what_the_broker_signed_is_read(
    sound: SignedOrder,
) -> None:
    """Protobuf takes the last of each field, and of two lists the last of each half."""
    assert read_signed(sound, KEYS).order.SerializeToString() in SIGNED
    for added in itertools.product(PARTS, repeat=2):
        data = b"".join(part.SerializeToString() for part in (sound, *added))
        signed = SignedOrder.FromString(data)
        try:
            read = read_signed(signed, KEYS)
        except OrderRefused:
            continue
        assert signed.order in SIGNED
        assert read.order.SerializeToString() == signed.order
        assert read.order_sha256 == sha256(signed.order)


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    "changed", [lambda one: one + b"\0", lambda one: b"\0" + one, lambda one: one[1:]]
)
def test_a_list_that_is_no_list_of_digests_vouches_for_nothing_though_it_is_signed(
    changed: Callable[[bytes], bytes],
) -> None:
    digests = b"".join(sha256(one) for one in SIGNED)
    together = sign_together(BROKER, ORDERS_CONTEXT, [changed(digests)])
    for one in SIGNED:
        with pytest.raises(OrderRefused, match="ORDER_SIGNATURE"):
            read_signed(SignedOrder(order=one, key_id=BROKER.key_id, together=together), KEYS)


@pytest.fixture(name="workshop")
def _workshop() -> OrderWorkshop:
    return OrderWorkshop()


def kept_by(file: Path) -> dict[str, bytes]:
    """What is durable: each search's answer."""
    with closing(sqlite3.connect(file)) as database:
        return dict(database.execute("SELECT search_id, signed_answer FROM runs").fetchall())


def store(file: Path, workshop: OrderWorkshop) -> RunStore:
    return RunStore(file, functools.partial(signed_together, workshop.connector_answers))


def run(workshop: OrderWorkshop, search_id: str, answer: bytes) -> Run:
    key = workshop.connector_answers
    signed = SignedAnswer(answer=answer, signature=key.sign(ANSWER_CONTEXT, answer))
    return Run(search_id, b"r" * 32, signed.SerializeToString(), NOW, answer_sha256=sha256(answer))


async def test_of_answers_to_one_search_that_are_committed_together_the_first_is_kept(
    workshop: OrderWorkshop, tmp_path: Path
) -> None:
    file = tmp_path / "runs.sqlite"
    before = store(file, workshop)
    earlier = await before.keep(run(workshop, "earlier", b"kept long ago"))
    await before.close()
    runs = store(file, workshop)
    given = [
        run(workshop, "one", b"first"),
        run(workshop, "earlier", b"another"),
        run(workshop, "two", b"two"),
        run(workshop, "one", b"second"),
    ]

    kept = await asyncio.gather(*(runs.keep(one) for one in given))

    answers = [SignedAnswer.FromString(one.signed_answer) for one in kept]
    assert [one.answer for one in answers] == [b"first", b"kept long ago", b"two", b"first"]
    assert kept[1].signed_answer == earlier.signed_answer
    assert kept_by(file) == {one.search_id: one.signed_answer for one in kept}
    for one in answers:
        assert verify_answer(workshop.connector_answers.verify_key, one) == sha256(one.answer)
    assert [one.answer_sha256 for one in kept] == [sha256(b"first"), b"", sha256(b"two"), b""]
    await runs.close()


async def test_what_is_published_is_what_is_kept_also_after_a_restart(
    workshop: OrderWorkshop, tmp_path: Path
) -> None:
    file, bus = tmp_path / "runs.sqlite", BusThatKeeps(failures=2)
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]
    come = [delivery(workshop.sign(workshop.order(search_id=one)), search_id=one) for one in ids]
    runs = store(file, workshop)
    desk = orders(workshop, SystemThatAnswers(), runs, bus)
    outcomes = await asyncio.gather(*(desk.take(one) for one in come), return_exceptions=True)
    assert [type(one) for one in outcomes].count(Retry) == 2
    await runs.close()
    kept = kept_by(file)

    runs, behind = store(file, workshop), SystemThatAnswers()
    desk = orders(workshop, behind, runs, bus)
    # The others come again beside one that is new.
    new = "00000000-0000-4000-8000-000000000009"
    another = delivery(workshop.sign(workshop.order(search_id=new)), search_id=new)
    await asyncio.gather(*(desk.take(one) for one in [*come, another]))

    assert len(behind.probes) == 1
    assert len(bus.published) == 1 + len(ids) + 1
    kept |= {new: kept_by(file)[new]}
    assert kept_by(file) == kept
    for subject, data, message_id in bus.published:
        search_id, answer = subject.rpartition(".")[2], SignedAnswer.FromString(data).answer
        assert data == kept[search_id]
        assert message_id == f"answer/{search_id}/{sha256(answer).hex()}"
    await runs.close()


class KeyThatSignsNoLists(SigningKey):
    """As one in a device that fails now and then."""

    def sign(self, context: str, data: bytes) -> bytes:
        if context == ORDERS_CONTEXT:
            raise OSError("as told to")
        return super().sign(context, data)


async def test_nobody_waits_for_orders_that_could_not_be_signed_together() -> None:
    broker = BrokerOnTheTable()
    prepared = broker.prepared()
    record = await broker.searching.submit(broker.call(), broker.request(prepared))
    ordering = Ordering(KeyThatSignsNoLists(Ed25519PrivateKey.generate()), broker.clock)

    async def order() -> bytes:
        return await ordering.order(record, record.decided, b"bound", prepared.sealed_probe)

    async with asyncio.timeout(WAIT_S_MAX):
        outcomes = await asyncio.gather(order(), order(), return_exceptions=True)
    assert [type(one) for one in outcomes] == [OSError, OSError]
    # And the next is none the worse for it.
    assert SignedOrder.FromString(await order()).order


def test_an_answer_that_is_left_over_has_only_its_own_signature(workshop: OrderWorkshop) -> None:
    runs = [run(workshop, str(number), b"%d" % number) for number in range(TOGETHER_MAX + 1)]

    *listed, last = signed_together(workshop.connector_answers, runs)

    assert last == runs[-1]
    assert last.signed_answer == runs[-1].signed_answer
    assert all(SignedAnswer.FromString(one.signed_answer).HasField("together") for one in listed)
