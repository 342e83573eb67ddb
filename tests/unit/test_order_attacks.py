"""The attacks on an order, by name: each ends in a signed refusal, and the system behind is not touched."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from connector.runs import RunStore
from countersign.connector.v1.connector_pb2 import FailureReason, SignedOrder
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Receipt
from shared.signing import SigningKey
from support.connectors import BusThatKeeps, SystemThatAnswers, delivery, orders
from support.orders import NOW, OrderWorkshop, log_signer
from support.witnesses import COSIGNER, PQ_COSIGNER
from tlog.policy import Policy

pytestmark = pytest.mark.promise(2)

OTHER_SEARCH_ID: Final = "00000000-0000-4000-8000-000000000001"


def forged_order(workshop: OrderWorkshop) -> SignedOrder:
    return workshop.sign(workshop.order(), SigningKey.generate())


def another_systems_order(workshop: OrderWorkshop) -> SignedOrder:
    order = workshop.order()
    order.system = "facefind"
    return workshop.sign(order)


def receipt_of_another_entry(workshop: OrderWorkshop) -> SignedOrder:
    other = workshop.order(search_id=OTHER_SEARCH_ID).decision_receipt
    approval = Receipt.FromString(other.SerializeToString())
    order = workshop.order()
    order.decision_receipt.CopyFrom(approval)
    return workshop.sign(order)


def receipt_from_a_forked_log(workshop: OrderWorkshop) -> SignedOrder:
    return workshop.sign(workshop.order(log=log_signer()))


def history_that_the_log_shows_to_nobody_else(workshop: OrderWorkshop) -> SignedOrder:
    """Signed with the log's own key: only witnesses can tell that there are two."""
    workshop.witnesses = Policy.parse(
        f"witness w1 {COSIGNER.verifier.vkey}\nwitness w2 {PQ_COSIGNER.verifier.vkey}\n"
        "group both all w1 w2\nquorum both\n"
    ).with_logs([workshop.log.verifier])
    workshop.cosigners = [COSIGNER]  # who can be had, but not the other
    return workshop.sign(workshop.order())


def decision_edited_after_its_receipt(workshop: OrderWorkshop) -> SignedOrder:
    order = workshop.order()
    entry = Entry.FromString(order.decision_receipt.leaf)
    entry.search_decided.summary.candidates_max = 50
    order.decision_receipt.leaf = entry.SerializeToString()
    return workshop.sign(order)


def order_past_its_deadline(workshop: OrderWorkshop) -> SignedOrder:
    order = workshop.order()
    order.issued_at.FromDatetime(NOW - timedelta(hours=2))
    order.deadline.FromDatetime(NOW - timedelta(hours=1))
    return workshop.sign(order)


def probe_that_is_not_what_was_committed_to(workshop: OrderWorkshop) -> SignedOrder:
    signed = workshop.sign(workshop.order())
    workshop.order(probe=b"another's face")
    signed.sealed_probe.CopyFrom(workshop.sealed_probe)
    return signed


ATTACKS: Final[dict[Callable[[OrderWorkshop], SignedOrder], tuple[str, str]]] = {
    forged_order: ("ORDER_REJECTED", "ORDER_SIGNATURE"),
    another_systems_order: ("ORDER_REJECTED", "WRONG_SYSTEM"),
    receipt_of_another_entry: ("ORDER_REJECTED", "DECISION_MISMATCH"),
    receipt_from_a_forked_log: ("ORDER_REJECTED", "RECEIPT_INVALID"),
    history_that_the_log_shows_to_nobody_else: ("ORDER_REJECTED", "RECEIPT_UNWITNESSED"),
    decision_edited_after_its_receipt: ("ORDER_REJECTED", "RECEIPT_INVALID"),
    order_past_its_deadline: ("ORDER_EXPIRED", "ORDER_EXPIRED"),
    probe_that_is_not_what_was_committed_to: ("ORDER_REJECTED", "PROBE_MISMATCH"),
}


@pytest.fixture(name="runs")
async def _runs(tmp_path: Path) -> AsyncIterator[RunStore]:
    store = RunStore(tmp_path / "runs.sqlite")
    yield store
    await store.close()


def refusal(workshop: OrderWorkshop, bus: BusThatKeeps) -> tuple[str, str]:
    """Of the newest answer, whose signature verifies."""
    failed = workshop.checked(bus.answers[-1]).failure
    return FailureReason.Name(failed.reason).removeprefix("FAILURE_REASON_"), failed.check


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_an_attack_on_an_order_is_a_signed_refusal(
    runs: RunStore, attack: Callable[[OrderWorkshop], SignedOrder]
) -> None:
    workshop, behind, bus = OrderWorkshop(), SystemThatAnswers(), BusThatKeeps()
    signed = attack(workshop)
    await orders(workshop, behind, runs, bus).take(delivery(signed))
    assert refusal(workshop, bus) == ATTACKS[attack]
    assert not behind.probes


async def test_a_replayed_order_runs_nothing_again(runs: RunStore) -> None:
    """Whether as it was, or made anew by one who holds the broker's key, for another probe."""
    workshop, behind, bus = OrderWorkshop(), SystemThatAnswers(), BusThatKeeps()
    desk = orders(workshop, behind, runs, bus)
    signed = workshop.sign(workshop.order())
    for _ in range(3):
        await desk.take(delivery(signed))
    assert len(behind.probes) == 1
    assert len({answer.answer for answer in bus.answers}) == 1, "the same answer, not a new one"
    await desk.take(delivery(workshop.sign(workshop.order(probe=b"another's face"))))
    assert refusal(workshop, bus) == ("ORDER_REJECTED", "SEARCH_ALREADY_RUN")
    assert len(behind.probes) == 1
