"""What a broker has at hand: a bounded part of what is on record."""

from dataclasses import replace

from broker.watch import ANSWERS_BYTES_MAX, RECORDS_MAX, KnownSearches
from countersign.connector.v1.connector_pb2 import SignedAnswer
from support.brokers import OFFICER, BrokerOnTheTable

ANSWER_BYTES = 4 * 1024 * 1024


async def test_what_is_at_hand_is_bounded() -> None:
    broker, known = BrokerOnTheTable(), KnownSearches()
    prepared = broker.prepared()
    record = await broker.searching.submit(broker.call(), broker.request(prepared))
    ended = await broker.ending.withdraw(record)
    for number in range(RECORDS_MAX + 10):
        known.put(replace(record, search_id=str(number)))
        known.hold(str(number), OFFICER)
        known.put(replace(ended, search_id=str(number)))
    assert known.get("9") is None
    assert known.get("10") is not None
    assert not known.open
    assert not known.in_flight

    answers_max = ANSWERS_BYTES_MAX // ANSWER_BYTES
    for number in range(answers_max + 5):
        known.put_answer(str(number), SignedAnswer(answer=bytes(ANSWER_BYTES)))
    at_hand = [number for number in range(answers_max + 5) if known.answer(str(number))]
    assert len(at_hand) < answers_max
    assert at_hand[-1] == answers_max + 4, "the oldest go first"


async def test_a_search_that_has_ended_never_opens_again() -> None:
    broker, known = BrokerOnTheTable(), KnownSearches()
    record = await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    known.put(await broker.ending.withdraw(record))
    known.put(record)
    assert not known.open
    assert not known.in_flight
