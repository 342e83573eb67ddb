"""What a connector may write, on a real server: bytes of any kind, where an answer belongs.

Our own client writes no such thing, so the frames are written by hand. What is on the stream comes to the
broker again and again: whatever would end its connection, or make it ask for more than it takes, would do so
for as long as the answer is kept, and to every agency.
"""

import asyncio
import json
from datetime import timedelta

import pytest

from broker.config import BrokerSettings
from broker.streams import ANSWERS_CONSUMER, ANSWERS_STREAM, ensure_answers
from shared import deliveries
from shared.bus import Bus, Delivery, connected
from support.nats_servers import NatsUnderTest
from support.waiting import WAIT_S_MAX

TEMPLATE = "answers.{system}.{search}"
IN_FLIGHT = 8


def frame(search: bytes, block: bytes = b"") -> bytes:
    """An answer with this in its subject and as its headers."""
    subject = b"answers.lacris." + search
    if not block:
        return b"PUB %b 7\r\nhostile\r\n" % subject
    return b"HPUB %b %d %d\r\n%bhostile\r\n" % (subject, len(block), len(block) + 7, block)


LONG_NUMBER = b"9" * 5000


@pytest.mark.parametrize(
    "hostile",
    [
        frame(b"a\x0bb"),
        frame(b"a\x0cb"),
        frame(b"a\rb"),
        frame(b"\xff"),
        frame(b"a\x0bb", b"NATS/1.0\r\nOther: x\r\n\r\n"),
        frame(b"a\x0bb", b"NATS/1.0 503 x\r\n\r\n"),
        frame(b"a", b"NATS/1.0 408 x\r\n\r\n"),
        frame(b"a", b"NATS/1.0\r\nStatus: 408\r\nNats-Pending-Messages: 0\r\n\r\n"),
        frame(b"a", b"NATS/1.0\r\nStatus: 409\r\nNats-Pending-Messages: %b\r\n\r\n" % LONG_NUMBER),
        frame(b"a", b"NATS/1.0\r\nStatus: 100\r\n\r\n"),
    ],
)
async def test_an_answer_of_any_bytes_reaches_its_handler_and_hinders_no_other(
    nats_server: NatsUnderTest, monkeypatch: pytest.MonkeyPatch, hostile: bytes
) -> None:
    asked: list[int] = []
    ask = deliveries.Puller._say

    def say(puller: deliveries.Puller, subject: str, what: bytes, reply: str = "") -> None:
        if subject == puller._subject:
            asked.append(json.loads(what)["batch"])
        ask(puller, subject, what, reply)

    monkeypatch.setattr(deliveries.Puller, "_say", say)
    as_broker = nats_server.bus_settings("service", "broker")
    as_connector = nats_server.bus_settings("connector", "lacris")
    async with connected(as_broker, "broker") as broker:
        settings = BrokerSettings.model_construct(
            streams_replicas=1, answers_kept=timedelta(hours=24)
        )
        await ensure_answers(broker, settings)
        async with connected(as_connector, "connector-lacris") as connector:
            connector._client._outgoing.append(hostile)
            await publish(connector, "honest")
        taken: list[bytes] = []
        both = asyncio.Event()

        async def take_in(delivery: Delivery) -> None:
            taken.append(delivery.data)
            if len(taken) == 2:
                both.set()

        await broker.consume(ANSWERS_STREAM, ANSWERS_CONSUMER, take_in, IN_FLIGHT, TEMPLATE)
        async with asyncio.timeout(WAIT_S_MAX):
            await both.wait()
        assert taken == [b"hostile", b"honest"]
        assert broker._client.stats["reconnects"] == 0
        assert sum(asked) <= IN_FLIGHT + len(taken)


async def publish(connector: Bus, search: str) -> None:
    await connector.publish_durable(f"answers.lacris.{search}", b"honest", search, TEMPLATE)
