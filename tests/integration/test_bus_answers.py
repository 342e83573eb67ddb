"""One connector cannot take the room of all others' answers, on a real server."""

import uuid
from datetime import timedelta

import pytest
from nats.js import api

from broker.config import BrokerSettings
from broker.streams import (
    ANSWER_BYTES_MAX,
    ANSWERS_OF_A_SEARCH_MAX,
    ANSWERS_STREAM,
    ensure_answers,
)
from shared.bus import Bus, connected
from shared.errors import Unavailable
from support.nats_servers import NatsUnderTest

TEMPLATE = "answers.{system}.{search}"


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
        settings = BrokerSettings.model_construct(
            streams_replicas=1, answers_kept=timedelta(hours=24)
        )
        await ensure_answers(broker, settings)
        async with connected(as_connector, "connector-lacris") as connector:
            with pytest.raises(Unavailable):
                await publish(connector, "large", bytes(ANSWER_BYTES_MAX + 1))
            for number in range(ANSWERS_OF_A_SEARCH_MAX):
                await publish(connector, "often", b"%d" % number)
            with pytest.raises(Unavailable):
                await publish(connector, "often", b"one too many")
            await publish(connector, "another", b"an answer")
        held = await broker.first_messages(ANSWERS_STREAM, "answers.lacris.often", 100)
        assert held == [b"%d" % number for number in range(ANSWERS_OF_A_SEARCH_MAX)]


async def publish(connector: Bus, search: str, data: bytes) -> None:
    await connector.publish_durable(f"answers.lacris.{search}", data, str(uuid.uuid4()), TEMPLATE)
