"""Answers are released only once recorded, and a search ends once."""

import asyncio

import pytest

from broker import answers
from broker.answers import OUTDATED_BUS, REMOVING_MAX, AnswerRefused, verified_answer
from broker.record import Record
from broker.streams import answer_subject
from countersign.broker.v1 import broker_pb2 as pb
from countersign.connector.v1.connector_pb2 import (
    FAILURE_REASON_NO_FACE,
    SearchAnswer,
    SearchFailure,
    SignedAnswer,
)
from shared.bus import Poison, Retry
from shared.errors import Broken
from shared.signing import ANSWER_CONTEXT, SigningKey
from support.backoffs import NoWait
from support.brokers import BrokerOnTheTable
from support.waiting import WAIT_S_MAX


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


async def submitted(broker: BrokerOnTheTable) -> str:
    prepared = broker.prepared()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    return prepared.search_id


def record(broker: BrokerOnTheTable, search_id: str) -> Record:
    found = broker.known.get(search_id)
    assert found is not None
    return found


@pytest.mark.promise(1)
async def test_an_answer_is_released_after_it_is_recorded(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    signed = broker.answer(search_id)
    await broker.answers.take_in(broker.delivery(search_id, signed))
    assert record(broker, search_id).state == pb.SEARCH_STATE_ANSWERED
    assert await broker.answers.give_out(record(broker, search_id)) == signed
    assert broker.bus.ledger.entries[-1].search_answered.candidates_returned == 3


@pytest.mark.promise(1)
@pytest.mark.parametrize("failure", ["lost", "kept_but_failed"])
async def test_an_answer_that_the_ledger_did_not_confirm_is_held_back(
    broker: BrokerOnTheTable, failure: str
) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    setattr(broker.bus.ledger, failure, 1)
    with pytest.raises(Retry):
        await broker.answers.take_in(delivery)
    assert record(broker, search_id).state == pb.SEARCH_STATE_PENDING
    assert await broker.answers.give_out(record(broker, search_id)) is None
    await broker.answers.take_in(delivery)
    assert broker.bus.ledger.kinds() == ["search_decided", "search_answered"]
    assert await broker.answers.give_out(record(broker, search_id)) is not None


@pytest.mark.promise(1)
async def test_end_of_another_search_is_no_end_of_this_one(broker: BrokerOnTheTable) -> None:
    first, second = await submitted(broker), await submitted(broker)
    await broker.answers.take_in(broker.delivery(first, broker.answer(first)))
    keys = broker.bus.ledger.keys
    keys[f"end/{second}"] = keys[f"end/{first}"]
    with pytest.raises(Retry):
        await broker.answers.take_in(broker.delivery(second, broker.answer(second)))
    with pytest.raises(Broken):
        await broker.ending.withdraw(record(broker, second))
    assert record(broker, second).state == pb.SEARCH_STATE_PENDING


@pytest.mark.parametrize("later", ["another answer", "garbage"])
async def test_the_recorded_answer_is_given_out_whatever_was_published_after_it(
    broker: BrokerOnTheTable, later: str
) -> None:
    search_id = await submitted(broker)
    recorded = broker.answer(search_id)
    other = broker.answer(search_id, gallery="another").SerializeToString()
    await broker.answers.take_in(broker.delivery(search_id, recorded))
    broker.restart()
    broker.bus.before_the_last = [b"\xff", recorded.SerializeToString()]
    last = other if later == "another answer" else b"\xff"
    broker.bus.published[answer_subject("lacris", search_id)] = last
    found = await broker.ledger.look_up(search_id)
    assert found is not None
    assert await broker.answers.give_out(found) == recorded


@pytest.mark.promise(1)
async def test_an_answer_other_than_the_recorded_one_is_never_given_out(
    broker: BrokerOnTheTable,
) -> None:
    search_id = await submitted(broker)
    await broker.answers.take_in(broker.delivery(search_id, broker.answer(search_id)))
    broker.delivery(search_id, broker.answer(search_id, gallery="another"))
    broker.restart()
    found = await broker.ledger.look_up(search_id)
    assert found is not None
    assert found.state == pb.SEARCH_STATE_ANSWERED
    assert await broker.answers.give_out(found) is None


async def test_an_answer_is_taken_in_by_a_restarted_broker(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    broker.restart()
    await broker.answers.take_in(delivery)
    await broker.answers.take_in(delivery)
    assert broker.bus.ledger.kinds() == ["search_decided", "search_answered"]


async def test_a_failure_ends_the_search_with_its_reason(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    answer = SearchAnswer.FromString(broker.answer(search_id).answer)
    answer.failure.CopyFrom(SearchFailure(reason=FAILURE_REASON_NO_FACE))
    data = answer.SerializeToString()
    signed = SignedAnswer(answer=data, signature=broker.connector_key.sign(ANSWER_CONTEXT, data))
    await broker.answers.take_in(broker.delivery(search_id, signed))
    assert record(broker, search_id).as_search().failure_reason == FAILURE_REASON_NO_FACE


@pytest.mark.promise(2)
async def test_forged_answers_are_set_aside_on_record(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    genuine = broker.answer(search_id)
    other = SigningKey.generate()
    forged = SignedAnswer(
        answer=genuine.answer, signature=other.sign(ANSWER_CONTEXT, genuine.answer)
    )
    with pytest.raises(Poison):
        await broker.answers.take_in(broker.delivery(search_id, forged))
    assert broker.bus.ledger.entries[-1].request_rejected.reason == "ANSWER_SIGNATURE"
    assert record(broker, search_id).state == pb.SEARCH_STATE_PENDING


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"search_id": "another"}, "ANSWER_MISMATCH"),
        ({"system": "facefind"}, "ANSWER_MISMATCH"),
        ({"request_sha256": b"\0" * 32}, "ANSWER_MISMATCH"),
        ({"request_sha256": b""}, "ANSWER_MISMATCH"),
    ],
)
async def test_an_answer_to_something_else_is_refused(
    broker: BrokerOnTheTable, change: dict[str, object], reason: str
) -> None:
    search_id = await submitted(broker)
    signed = broker.answer(search_id, **change)
    with pytest.raises(AnswerRefused, match=reason):
        verified_answer(signed, record(broker, search_id), broker.connector_key.verify_key)


async def test_an_answer_to_no_search_is_recorded(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    broker.bus.ledger.keys.clear()
    broker.restart()
    await broker.answers.take_in(delivery)
    assert broker.bus.ledger.entries[-1].request_rejected.reason == "ANSWER_TO_NO_SEARCH"
    assert delivery.subject not in broker.bus.published, "it takes no other answer's room"


@pytest.mark.parametrize("name", ["*", ">", "\ufffd", "a\x0bb", "", "a.b", "x" * 65])
async def test_an_answer_under_no_name_of_a_search_takes_itself_off_the_bus_and_no_other(
    broker: BrokerOnTheTable, name: str
) -> None:
    """The bus takes `answers.lacris.*` off as a pattern, though it stands there as a name."""
    search_id = await submitted(broker)
    genuine = broker.delivery(search_id, broker.answer(search_id))
    odd = broker.delivery(name, broker.answer(search_id))
    await broker.answers.take_in(odd)
    rejected = broker.bus.ledger.entries[-1].request_rejected
    assert rejected.reason == "ANSWER_TO_NO_SEARCH"
    assert odd.subject not in broker.bus.published, "it takes no other answer's room"
    assert genuine.subject in broker.bus.published


@pytest.mark.parametrize("ended", [False, True])
async def test_an_answer_under_another_systems_name_takes_no_room(
    broker: BrokerOnTheTable, ended: bool
) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    foreign = broker.delivery(search_id, broker.answer(search_id), system="facefind")
    if ended:
        await broker.answers.take_in(delivery)
    await broker.answers.take_in(foreign)
    assert broker.bus.ledger.entries[-1].request_rejected.reason == "ANSWER_SIGNATURE"
    assert foreign.subject not in broker.bus.published
    assert delivery.subject in broker.bus.published, "what the right one sent stays"
    assert record(broker, search_id).is_open is not ended


@pytest.mark.parametrize("failure", ["delete_lost", "deleted_but_failed"])
async def test_an_answer_that_the_bus_did_not_take_off_comes_again(
    broker: BrokerOnTheTable, failure: str
) -> None:
    search_id = await submitted(broker)
    odd = broker.delivery("*", broker.answer(search_id))
    setattr(broker.bus, failure, 1)
    with pytest.raises(Retry):
        await broker.answers.take_in(odd)
    await broker.answers.take_in(odd)
    assert odd.subject not in broker.bus.published


async def test_an_answer_that_the_bus_never_takes_off_does_not_come_for_ever(
    broker: BrokerOnTheTable, caplog: pytest.LogCaptureFixture
) -> None:
    search_id = await submitted(broker)
    signed = broker.answer(search_id)
    broker.bus.delete_lost = REMOVING_MAX
    for deliveries in range(1, REMOVING_MAX):
        with pytest.raises(Retry):
            await broker.answers.take_in(broker.delivery("*", signed, deliveries=deliveries))
    await broker.answers.take_in(broker.delivery("*", signed, deliveries=REMOVING_MAX))
    assert "what is nobody's answer stays on the bus" in caplog.messages


async def test_a_bus_that_is_configured_for_the_last_release_takes_off_what_has_a_name(
    broker: BrokerOnTheTable, caplog: pytest.LogCaptureFixture
) -> None:
    search_id = await submitted(broker)
    signed = broker.answer(search_id)
    broker.bus.forbids_deletes = True
    await broker.answers.try_removing()
    assert caplog.messages == [OUTDATED_BUS], "at the start, and no more"
    to_none, odd = broker.delivery("none", signed), broker.delivery("*", signed)
    await broker.answers.take_in(to_none)
    await broker.answers.take_in(odd)
    assert to_none.subject not in broker.bus.published
    assert odd.subject in broker.bus.published
    assert caplog.messages.count(OUTDATED_BUS) == 1
    await broker.answers.take_in(broker.delivery(search_id, signed))
    assert record(broker, search_id).state == pb.SEARCH_STATE_ANSWERED


async def test_a_bus_that_is_configured_anew_is_asked_again(
    broker: BrokerOnTheTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "REMOVING_AGAIN", NoWait())
    broker.restart()
    odd = broker.delivery("*", SignedAnswer())
    broker.bus.forbids_deletes = True
    await broker.answers.take_in(odd)
    assert odd.subject in broker.bus.published
    broker.bus.forbids_deletes = False
    await broker.answers.take_in(odd)
    assert odd.subject not in broker.bus.published


@pytest.mark.promise(8)
async def test_expiry_and_withdrawal_and_answer_make_one_end(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    pending = record(broker, search_id)
    await asyncio.gather(broker.ending.withdraw(pending), broker.answers.take_in(delivery))
    await broker.ending.withdraw(pending)
    ends = [kind for kind in broker.bus.ledger.kinds() if kind != "search_decided"]
    assert len(ends) == 1


@pytest.mark.promise(1)
async def test_a_search_past_its_deadline_expires_on_record(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    broker.clock.advance(minutes=16)
    sweeping = asyncio.create_task(broker.ending.keep_sweeping())
    with broker.known.changes(search_id) as changed:
        async with asyncio.timeout(WAIT_S_MAX):
            await changed.wait()
    sweeping.cancel()
    assert record(broker, search_id).state == pb.SEARCH_STATE_EXPIRED
    assert broker.bus.ledger.kinds() == ["search_decided", "search_expired"]
    assert not broker.bus.published, "the order is purged"
    late = broker.bus
    assert late.ledger.entries[-1].search_expired.deadline == (
        late.ledger.entries[0].search_decided.deadline
    )


@pytest.mark.promise(8)
async def test_a_restarted_broker_finds_its_open_searches(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    broker.restart()
    broker.clock.advance(minutes=16)
    sweeping = asyncio.create_task(broker.ending.keep_sweeping())
    with broker.known.changes(search_id) as changed:
        async with asyncio.timeout(WAIT_S_MAX):
            await changed.wait()
            while record(broker, search_id).is_open:
                changed.clear()
                await changed.wait()
    sweeping.cancel()
    assert broker.bus.ledger.kinds() == ["search_decided", "search_expired"]


@pytest.mark.promise(1)
async def test_a_late_answer_does_not_undo_an_expiry(broker: BrokerOnTheTable) -> None:
    search_id = await submitted(broker)
    delivery = broker.delivery(search_id, broker.answer(search_id))
    await broker.ending.withdraw(record(broker, search_id))
    await broker.answers.take_in(delivery)
    broker.restart()
    await broker.answers.take_in(delivery)
    found = await broker.ledger.look_up(search_id)
    assert found is not None
    assert found.state == pb.SEARCH_STATE_WITHDRAWN
    assert await broker.answers.give_out(found) is None
