"""A broker whose connectors demand witnesses sends nothing that they would refuse for the want of them."""

import asyncio

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from shared.errors import Broken, Unavailable
from support.brokers import BrokerOnTheTable


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable(witnesses_wait_s=3.0)


async def test_no_order_leaves_without_witnesses_and_a_retry_sends_it(
    broker: BrokerOnTheTable,
) -> None:
    broker.bus.ledger.witnessed = False
    prepared = broker.prepared()
    for _ in range(2):
        with pytest.raises(Unavailable) as raised:
            await broker.searching.submit(broker.call(), broker.request(prepared))
        assert raised.value.reason == "DECISION_UNWITNESSED"
    assert not broker.bus.published
    assert broker.bus.ledger.kinds() == ["search_decided"]
    broker.bus.ledger.witnessed = True
    search = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert search.state == pb.SEARCH_STATE_PENDING
    assert broker.order(prepared.search_id).decision_receipt.tlog_proof == "cosigned"


async def test_orders_that_wait_together_are_asked_about_together(broker: BrokerOnTheTable) -> None:
    submitting = [
        broker.searching.submit(broker.call(), broker.request(broker.prepared())) for _ in range(9)
    ]
    records = await asyncio.gather(*submitting)
    assert broker.bus.happened.count("ledger.get_receipts") == 1
    for record in records:
        sent = broker.order(record.search_id).decision_receipt
        assert (sent.index, sent.leaf) == (record.decided.index, record.decided.leaf)


async def test_receipt_of_another_entry_is_not_sent(broker: BrokerOnTheTable) -> None:
    earlier = broker.prepared()
    await broker.searching.submit(broker.call(), broker.request(earlier))
    broker.bus.ledger.witnesses_see = 0
    with pytest.raises(Broken):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert list(broker.bus.published) == [f"orders.lacris.{earlier.search_id}"]
