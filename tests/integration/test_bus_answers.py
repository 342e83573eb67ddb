"""One connector cannot take the room of all others' answers, on a real server."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from nats.js import api

from broker.answers import OUTDATED_BUS, Answers
from broker.config import BrokerSettings
from broker.streams import (
    ANSWER_BYTES_MAX,
    ANSWERS_CONSUMER,
    ANSWERS_OF_A_SEARCH_MAX,
    ANSWERS_STREAM,
    DUPLICATE_WINDOW,
    answer_subject,
    ensure_answers,
)
from countersign.broker.v1 import broker_pb2 as pb
from countersign.connector.v1.connector_pb2 import SignedAnswer
from shared.bus import Bus, connected
from shared.errors import Unavailable
from support.brokers import BrokerOnTheTable
from support.nats_servers import NatsUnderTest, nats_in
from support.waiting import until

TEMPLATE = "answers.{system}.{search}"
SETTINGS = BrokerSettings.model_construct(streams_replicas=1, answers_kept=timedelta(hours=24))
NAMELESS = (b"\xff", b"\xfe", b"a\xc3", b"a\x0bb", b"*", b">", b"$JS", b"x" * 80)
"""Under which an answer can stand in the stream, and be asked for by no name."""
TIMES = 4


async def test_answers_are_bounded_in_size_and_in_number_for_each_search(
    nats_server: NatsUnderTest,
) -> None:
    as_broker = nats_server.bus_settings("service", "broker")
    as_connector = nats_server.bus_settings("connector", "lacris")
    async with connected(as_broker, "broker") as broker:
        # As a release before made it: the bounds come to a stream that is there.
        await broker.ensure_stream(
            api.StreamConfig(
                name=ANSWERS_STREAM, subjects=["answers.*.*"], discard=api.DiscardPolicy.NEW
            )
        )
        await ensure_answers(broker, SETTINGS)
        async with connected(as_connector, "connector-lacris") as connector:
            with pytest.raises(Unavailable):
                await publish(connector, "large", bytes(ANSWER_BYTES_MAX + 1))
            for number in range(ANSWERS_OF_A_SEARCH_MAX):
                await publish(connector, "often", b"%d" % number)
            with pytest.raises(Unavailable):
                await publish(connector, "often", b"one too many")
            await publish(connector, "another", b"an answer")
        held = await broker.first_messages(ANSWERS_STREAM, "answers.lacris.often", 100)
        assert [one.data for one in held] == [b"%d" % at for at in range(ANSWERS_OF_A_SEARCH_MAX)]


async def publish(
    connector: Bus, search: str, data: bytes, system: str = "lacris", message_id: str = ""
) -> None:
    subject = answer_subject(system, search)
    await connector.publish_durable(subject, data, message_id or str(uuid.uuid4()), TEMPLATE)


async def test_attack_the_bus_forgets_what_connectors_called_their_messages(
    nats_server: NatsUnderTest,
) -> None:
    """It keeps the names in memory, 64 KiB each, and lets no other message in under one that it keeps."""
    long = "same" * 10_000
    as_broker = nats_server.bus_settings("service", "broker")
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(connected(as_broker, "broker"))
        # As 0.1 made it, with what it remembers for ten minutes.
        await broker.ensure_stream(
            api.StreamConfig(
                name=ANSWERS_STREAM,
                subjects=["answers.*.*"],
                discard=api.DiscardPolicy.NEW,
                duplicate_window=DUPLICATE_WINDOW.total_seconds(),
            )
        )
        facefind, lacris = [
            await stack.enter_async_context(
                connected(nats_server.bus_settings("connector", system), f"connector-{system}")
            )
            for system in ("facefind", "lacris")
        ]
        await publish(facefind, "one", b"an answer", "facefind", message_id=long)
        await ensure_answers(broker, SETTINGS)

        async def comes(search: str) -> bool:
            await publish(lacris, search, b"another", message_id=long)
            subject = answer_subject("lacris", search)
            return await broker.last_message(ANSWERS_STREAM, subject) is not None

        await until(partial(comes, "one"))
        await until(partial(comes, "another"))


@contextlib.asynccontextmanager
async def taking_in(server: NatsUnderTest, table: BrokerOnTheTable) -> AsyncIterator[Bus]:
    """The broker of the table takes its answers from this server."""
    async with connected(server.bus_settings("service", "broker"), "broker") as bus:
        await ensure_answers(bus, SETTINGS)
        answers = Answers(
            bus=bus,
            ledger=table.ledger,
            known=table.known,
            trust=table.trust,
            trust_domain="countersign.test",
            rejections=table.rejections,
        )
        await answers.try_removing()
        await bus.consume(ANSWERS_STREAM, ANSWERS_CONSUMER, answers.take_in, 8, TEMPLATE)
        yield bus


async def flood(server: NatsUnderTest, system: str, search_id: str) -> int:
    """A connector publishes what is nobody's answer, also to another's search; gives how much of it."""
    names = [*NAMELESS, search_id.encode(), uuid.uuid4().bytes.hex().encode()]
    frames = [b"PUB answers.%b.%b 3\r\nall\r\n" % (system.encode(), name) for name in names]
    async with connected(
        server.bus_settings("connector", system), f"connector-{system}"
    ) as connector:
        # Our own client writes no such subjects.
        connector._client._outgoing += frames * TIMES
        await publish(connector, "last", b"the server has all before it", system)
    return TIMES * len(frames) + 1


async def submitted(table: BrokerOnTheTable) -> str:
    prepared = table.prepared()
    await table.searching.submit(table.call(), table.request(prepared))
    return prepared.search_id


async def answered(server: NatsUnderTest, table: BrokerOnTheTable, search_id: str) -> None:
    """The system's own connector answers, and it comes onto record."""
    signed = table.answer(search_id).SerializeToString()
    async with connected(
        server.bus_settings("connector", "lacris"), "connector-lacris"
    ) as connector:
        await connector.publish_durable(
            answer_subject("lacris", search_id), signed, search_id, TEMPLATE
        )

    async def on_record() -> bool:
        found = table.known.get(search_id)
        return found is not None and found.state == pb.SEARCH_STATE_ANSWERED

    await until(on_record)


async def test_what_is_nobodys_answer_is_taken_off_whatever_it_is_called_and_every_answer_stays(
    nats_server: NatsUnderTest,
) -> None:
    table = BrokerOnTheTable()
    first, second = await submitted(table), await submitted(table)
    async with taking_in(nats_server, table) as bus:
        await answered(nats_server, table, first)
        came = await flood(nats_server, "facefind", first)
        came += await flood(nats_server, "facefind", second)
        await answered(nats_server, table, second)

        async def only_answers() -> bool:
            return (await bus.waiting(ANSWERS_STREAM)).messages == 2

        await until(only_answers)
        for search_id in (first, second):
            held = await bus.last_message(ANSWERS_STREAM, answer_subject("lacris", search_id))
            assert held == table.answer(search_id).SerializeToString()
        assert came > 2 * TIMES * len(NAMELESS)
        assert (await bus._jetstream.stream_info(ANSWERS_STREAM)).state.last_seq == came + 2
    reasons = {entry.request_rejected.reason for entry in table.bus.ledger.entries} - {""}
    assert reasons == {"ANSWER_TO_NO_SEARCH", "ANSWER_SIGNATURE"}


async def test_of_a_searchs_answers_the_recorded_one_stays_and_no_other(
    nats_server: NatsUnderTest,
) -> None:
    """Forged before it, others and more copies by its connector after it, and any after another end."""
    table = BrokerOnTheTable()
    search_id, withdrawn = await submitted(table), await submitted(table)
    genuine = table.answer(search_id).SerializeToString()
    forged = table.answer(search_id)
    forged.signature = bytes(64)
    later = table.answer(search_id, gallery="another").SerializeToString()
    late = table.answer(withdrawn).SerializeToString()
    async with (
        taking_in(nats_server, table) as bus,
        connected(nats_server.bus_settings("connector", "lacris"), "connector-lacris") as connector,
    ):

        async def only(count: int) -> None:
            async def is_so() -> bool:
                return (await bus.waiting(ANSWERS_STREAM)).messages == count

            await until(is_so)

        await publish(connector, search_id, forged.SerializeToString(), "lacris")
        await only(0)
        await answered(nats_server, table, search_id)
        await publish(connector, search_id, later, "lacris")
        await publish(connector, search_id, b"\xff", "lacris")
        for number in range(ANSWERS_OF_A_SEARCH_MAX // 2):
            padded = SignedAnswer.FromString(genuine)
            padded.key_id = str(number)
            await publish(connector, search_id, padded.SerializeToString(), "lacris")
        record = table.known.get(withdrawn)
        assert record is not None
        await table.ending.withdraw(record)
        await publish(connector, withdrawn, late, "lacris")
        await only(1)
        held = await bus.last_message(ANSWERS_STREAM, answer_subject("lacris", search_id))
        assert held == genuine


async def test_a_bus_that_is_configured_for_the_last_release_still_brings_every_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not say in the reply that a broker may not take one message off: it keeps silent."""
    forbidden = f"$JS.API.STREAM.MSG.DELETE.{ANSWERS_STREAM}"
    table = BrokerOnTheTable()
    search_id = await submitted(table)
    with nats_in(tmp_path, without=forbidden) as server:
        async with taking_in(server, table) as bus:
            assert caplog.messages.count(OUTDATED_BUS) == 1
            await flood(server, "facefind", search_id)
            await answered(server, table, search_id)

            async def only_what_has_no_name() -> bool:
                return (await bus.waiting(ANSWERS_STREAM)).messages == TIMES * len(NAMELESS) + 1

            await until(only_what_has_no_name)
            info = await bus._jetstream.consumer_info(ANSWERS_STREAM, ANSWERS_CONSUMER)
            assert info.num_ack_pending == 0
    assert caplog.messages.count(OUTDATED_BUS) == 1
