"""Who may say and hear what on the bus, shown on a real server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial

import nats
import nats.errors
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.client import Client
from nats.js import api

from countersign.installation.nats_config import CONNECTIONS_OF_A_CONNECTOR_MAX
from countersign.installation.pki import CERTIFICATE_LIFETIME, Authority
from shared.bus import Bus, Delivery, Forbidden
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.identity import Kind
from shared.settings import BusSettings
from shared.tls import bus_context
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.waiting import WAIT_S_MAX, until

VIOLATION = "permissions violation"
GIVEN_UP = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS_LACRIS.connector"
"""Where the broker hears from the server that an order was given up."""


class Intruder:
    """A client that holds a real certificate and says what it likes."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.client = Client()

    @classmethod
    async def connect(
        cls, server: NatsUnderTest, kind: Kind, name: str, inbox: str | None = None
    ) -> "Intruder":
        """Connects with the certificate of this identity."""
        return await cls.connected(server.bus_settings(kind, name), name, inbox)

    @classmethod
    async def connected(
        cls, settings: BusSettings, name: str, inbox: str | None = None
    ) -> "Intruder":
        """Connects with these files."""
        intruder = cls()

        async def on_error(error: Exception) -> None:
            intruder.errors.append(str(error).lower())

        await intruder.client.connect(
            servers=list(settings.servers),
            tls=bus_context(settings),
            tls_handshake_first=True,
            inbox_prefix=inbox or f"_INBOX_{name}",
            error_cb=on_error,
            allow_reconnect=False,
        )
        return intruder

    async def settled(self) -> None:
        """Returns once the server has answered everything said so far."""
        await self.client.flush()
        await self.client.flush()

    async def refused_to_publish(self, subject: str, reply: str = "") -> bool:
        """True when the server refuses the publication."""
        self.errors.clear()
        await self.client.publish(subject, b"forged", reply=reply)
        await self.settled()
        return any(VIOLATION in error for error in self.errors)

    async def refused_to_hear(self, subject: str, queue: str = "") -> bool:
        """True when the server refuses the subscription."""
        self.errors.clear()
        await self.client.subscribe(subject, queue=queue)
        await self.settled()
        return any(VIOLATION in error for error in self.errors)


@pytest.fixture
async def broker(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    """The broker's connection, with the streams of two systems."""
    bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    for system in ("LACRIS", "FACEFIND"):
        await bus.ensure_stream(
            api.StreamConfig(
                name=f"ORDERS_{system}",
                subjects=[f"orders.{system.lower()}.*"],
                retention=api.RetentionPolicy.WORK_QUEUE,
            )
        )
        await bus.ensure_consumer(
            f"ORDERS_{system}", api.ConsumerConfig(durable_name="connector", ack_wait=30)
        )
    await bus.ensure_stream(api.StreamConfig(name="ANSWERS", subjects=["answers.*.*"]))
    await bus.ensure_consumer("ANSWERS", api.ConsumerConfig(durable_name="broker", ack_wait=30))
    yield bus
    await bus.close()


@pytest.fixture
async def connector(nats_server: NatsUnderTest) -> AsyncIterator[Intruder]:
    """A connector of lacris that does not keep to its task."""
    intruder = await Intruder.connect(
        nats_server, "connector", "lacris", inbox="_INBOX_connector-lacris"
    )
    yield intruder
    await intruder.client.close()


async def test_an_order_and_its_answer_pass(nats_server: NatsUnderTest, broker: Bus) -> None:
    connector = await Bus.connect(
        nats_server.bus_settings("connector", "lacris"), "connector-lacris"
    )
    answers: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def on_order(order: Delivery) -> None:
        await connector.publish_durable(
            "answers.lacris.1", order.data, "1", "answers.<system>.<id>"
        )

    async def on_answer(answer: Delivery) -> None:
        await answers.put((answer.subject, answer.data))

    await connector.consume("ORDERS_LACRIS", "connector", on_order, 4, "orders.<system>.<id>")
    await broker.consume("ANSWERS", "broker", on_answer, 4, "answers.<system>.<id>")
    await broker.publish_durable("orders.lacris.1", b"order", "1", "orders.<system>.<id>")
    async with asyncio.timeout(WAIT_S_MAX):
        assert await answers.get() == ("answers.lacris.1", b"order")
    await connector.close()


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "subject",
    [
        "ledger.append",
        "policy.evaluate",
        "orders.lacris.1",
        "orders.facefind.1",
        "answers.facefind.1",
        "runs.facefind",
        "$JS.API.CONSUMER.MSG.NEXT.ORDERS_FACEFIND.connector",
        "$JS.API.CONSUMER.MSG.NEXT.ANSWERS.broker",
        "next.ORDERS_FACEFIND",
        *(
            f"$JS.API.{what}"
            for stream in ("ORDERS_FACEFIND", "ANSWERS", "ORDERS_LACRIS")
            for what in (
                f"STREAM.MSG.GET.{stream}",
                f"DIRECT.GET.{stream}",
                f"STREAM.PURGE.{stream}",
                f"STREAM.DELETE.{stream}",
                f"STREAM.MSG.DELETE.{stream}",
                f"CONSUMER.CREATE.{stream}.mine",
                f"CONSUMER.DURABLE.CREATE.{stream}.mine",
            )
        ),
        "$JS.ACK.ORDERS_FACEFIND.connector.1.1.1.1.1",
        GIVEN_UP,
        "_INBOX_broker.1",
    ],
)
async def test_a_connector_says_nothing_but_its_answers(
    connector: Intruder, broker: Bus, subject: str
) -> None:
    assert await connector.refused_to_publish(subject, reply="_INBOX_connector-lacris.1")


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "subject",
    [">", "orders.>", "answers.>", "ledger.append", "_INBOX_broker.>", "_INBOX.>", "$JS.>"],
)
async def test_a_connector_hears_nothing_but_its_inbox(
    connector: Intruder, broker: Bus, subject: str
) -> None:
    assert await connector.refused_to_hear(subject)


async def test_a_connector_cannot_have_the_bus_speak_for_it(
    nats_server: NatsUnderTest, connector: Intruder, broker: Bus
) -> None:
    """The server checks no reply subject, so its replies must not leave the connector's account."""
    ledger = await Bus.connect(nats_server.bus_settings("service", "ledger"), "ledger")
    heard: list[object] = []

    async def append(request: StringValue) -> StringValue:
        heard.append(request)
        return request

    await ledger.serve("ledger.append", "ledger", StringValue, append, 4)
    await broker.publish_durable("orders.lacris.1", b"order", "1", "orders.<system>.<id>")
    pull = json.dumps({"batch": 1, "expires": 1_000_000_000}).encode()
    subject = "$JS.API.CONSUMER.MSG.NEXT.ORDERS_LACRIS.connector"
    await connector.client.publish(subject, pull, reply="answers.facefind.1")
    await connector.client.publish(subject, pull, reply="ledger.append")
    await connector.client.publish("answers.lacris.2", b"x", reply="ledger.append")
    await connector.settled()
    await broker.publish_durable("orders.lacris.3", b"order", "3", "orders.<system>.<id>")
    assert await broker.last_message("ANSWERS", "answers.lacris.2") == b"x"
    assert await broker.last_message("ANSWERS", "answers.facefind.1") is None
    assert not heard
    await ledger.close()


async def test_a_connector_cannot_take_the_places_of_others(
    nats_server: NatsUnderTest, broker: Bus
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS_OF_A_CONNECTOR_MAX):
            one = await Intruder.connect(nats_server, "connector", "lacris")
            stack.push_async_callback(one.client.close)
        with pytest.raises((nats.errors.Error, OSError)):
            await Intruder.connect(nats_server, "connector", "lacris")
        for other in (
            await Intruder.connect(nats_server, "connector", "facefind"),
            await Intruder.connect(nats_server, "service", "broker"),
        ):
            stack.push_async_callback(other.client.close)


@pytest.mark.parametrize("name", ["policy", "ledger"])
async def test_a_service_only_replies(nats_server: NatsUnderTest, broker: Bus, name: str) -> None:
    service = await Intruder.connect(nats_server, "service", name)
    for subject in (
        "ledger.append",
        "ledger.list_public_documents",
        "policy.evaluate",
        "orders.lacris.1",
        "answers.lacris.1",
        GIVEN_UP,
    ):
        assert await service.refused_to_publish(subject), subject
    other = {"policy": "ledger.append", "ledger": "policy.evaluate"}[name]
    own = {"policy": "policy.evaluate", "ledger": "ledger.append"}[name]
    for subject in (other, "orders.>", "answers.>", own):
        assert await service.refused_to_hear(subject), subject
    assert not await service.refused_to_hear(own, queue=name)
    await service.client.close()


async def test_the_broker_cannot_take_orders_from_a_queue(
    nats_server: NatsUnderTest, broker: Bus
) -> None:
    intruder = await Intruder.connect(nats_server, "service", "broker")
    assert await intruder.refused_to_publish(
        "$JS.API.CONSUMER.MSG.NEXT.ORDERS_LACRIS.connector", reply="_INBOX_broker.1"
    )
    assert await intruder.refused_to_publish("$JS.API.STREAM.DELETE.ORDERS_LACRIS")
    assert await intruder.refused_to_publish("$JS.API.STREAM.MSG.DELETE.ORDERS_LACRIS")
    await intruder.client.close()


@pytest.mark.promise(7)
async def test_the_broker_cannot_ask_for_what_opens_documents_and_cannot_publish_one(
    nats_server: NatsUnderTest, broker: Bus
) -> None:
    intruder = await Intruder.connect(nats_server, "service", "broker")
    for subject in ("ledger.list_documents", "ledger.publish"):
        assert await intruder.refused_to_publish(subject, reply="_INBOX_broker.1"), subject
    assert not await intruder.refused_to_publish(
        "ledger.list_public_documents", reply="_INBOX_broker.1"
    )
    await intruder.client.close()


@pytest.mark.parametrize(
    ("kind", "name"), [("agency", "CA0194200"), ("connector", "unheard-of"), ("operator", "broker")]
)
async def test_an_identity_without_a_place_on_the_bus_is_not_let_in(
    nats_server: NatsUnderTest, kind: Kind, name: str
) -> None:
    with pytest.raises((nats.errors.Error, OSError)):
        await Intruder.connect(nats_server, kind, name)


@pytest.mark.parametrize("attack", ["right", "another authority of our name", "lapsed"])
async def test_a_certificate_that_is_not_acceptable_is_not_let_in(
    nats_server: NatsUnderTest, attack: str
) -> None:
    """But the right one is, or these might fail for another reason."""
    other = Authority.create(TRUST_DOMAIN, SystemClock().now())
    issue = partial(nats_server.certificates.tls, "service", "broker")
    tls = {
        "right": issue,
        "another authority of our name": partial(issue, authority=other),
        "lapsed": partial(issue, days_ago=CERTIFICATE_LIFETIME.days + 1),
    }[attack]()
    settings = BusSettings(servers=(f"tls://127.0.0.1:{nats_server.port}",), tls=tls)
    refused = pytest.raises((nats.errors.Error, OSError))
    with contextlib.nullcontext() if attack == "right" else refused:
        intruder = await Intruder.connected(settings, "broker")
        await intruder.client.close()


async def test_what_the_bus_forbids_a_process_stands_in_its_log_with_the_subject(
    nats_server: NatsUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    settings = nats_server.bus_settings("connector", "lacris")
    bus = await Bus.connect(settings, "connector-lacris")
    try:
        with pytest.raises(Forbidden):
            await bus.may_delete("ANSWERS")
    finally:
        await bus.close()
    fields = [vars(one)["fields"] for one in caplog.records if "forbids" in one.message]
    assert "$js.api.stream.msg.delete.answers" in str(fields)


async def test_nobody_is_let_in_without_a_certificate(nats_server: NatsUnderTest) -> None:
    settings = nats_server.bus_settings("service", "broker")
    context = bus_context(settings)
    bare = type(context)(context.protocol)
    bare.load_verify_locations(settings.tls.authority)
    client = Client()
    with pytest.raises((nats.errors.Error, OSError)):
        await client.connect(
            servers=list(settings.servers),
            tls=bare,
            tls_handshake_first=True,
            allow_reconnect=False,
            connect_timeout=3,
        )
    # The client leaves the transport of a refused handshake to the garbage collector.
    await client.close()


async def test_what_the_server_acknowledged_survives_its_being_killed(
    nats_server: NatsUnderTest, broker: Bus
) -> None:
    await broker.publish_durable("orders.lacris.1", b"order", "1", "orders.<system>.<id>")
    nats_server.kill()
    nats_server.start()

    async def kept() -> bytes | None:
        with contextlib.suppress(Unavailable):  # until the connection stands again
            return await broker.last_message("ORDERS_LACRIS", "orders.lacris.1")
        return None

    assert await until(kept) == b"order"
