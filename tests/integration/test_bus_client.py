"""Our client over nats-py, on a real server: what a lost connection, a lost patience or an end leaves."""

import asyncio
from collections.abc import AsyncIterator

import nats.errors
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.msg import Msg

from shared.bus import Bus, connected
from shared.errors import Unavailable
from shared.nats_client import BusClient, header_block
from support.nats_servers import NatsUnderTest
from support.waiting import WAIT_S_MAX, until

SUBJECT = "policy.evaluate"
PATIENCE_S = 3.0
DEADLINE = header_block({"Countersign-Deadline": "99999999999999"})


class Policy:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.begun, self.go_on = asyncio.Semaphore(0), asyncio.Event()

    async def answer(self, request: StringValue) -> StringValue:
        self.heard.append(request.value)
        self.begun.release()
        await self.go_on.wait()
        return request


@pytest.fixture
async def broker(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as bus:
        yield bus


@pytest.fixture
async def policy(nats_server: NatsUnderTest) -> AsyncIterator[Policy]:
    async with connected(nats_server.bus_settings("service", "policy"), "policy") as bus:
        policy = Policy()
        await bus.serve(SUBJECT, "policy", StringValue, policy.answer, 16)
        yield policy


async def ask(bus: Bus, text: str, timeout_s: float = WAIT_S_MAX) -> str:
    answer = await bus.request(SUBJECT, StringValue(value=text), StringValue, timeout_s)
    return answer.value


async def answered(bus: Bus, text: str) -> str | None:
    try:
        return await ask(bus, text, 1)
    except Unavailable:
        return None


async def begun(policy: Policy, count: int) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        for _ in range(count):
            await policy.begun.acquire()


async def test_requests_that_wait_while_the_server_is_killed_end_in_time_and_later_ones_are_answered(
    nats_server: NatsUnderTest, broker: Bus, policy: Policy
) -> None:
    waiting = [asyncio.create_task(ask(broker, f"{n}", PATIENCE_S)) for n in range(8)]
    await begun(policy, 8)
    nats_server.kill()
    nats_server.start()
    policy.go_on.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ended} == {Unavailable}
    assert broker._client._waiting == {}
    assert await until(lambda: answered(broker, "now")) == "now"
    assert [heard for heard in policy.heard if heard != "now"] == [f"{n}" for n in range(8)]


async def test_who_gives_up_leaves_nothing_and_the_late_answer_goes_to_nobody(
    broker: Bus, policy: Policy
) -> None:
    cancelled = asyncio.create_task(ask(broker, "cancelled"))
    await begun(policy, 1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(Unavailable):
        await ask(broker, "too slow", timeout_s=0.2)
    assert broker._client._waiting == {}
    policy.go_on.set()
    # The late answers were sent before this one.
    assert await ask(broker, "now") == "now"
    assert broker._client._waiting == {}


async def test_what_was_published_in_the_turn_that_loses_the_connection_is_never_sent(
    broker: Bus, policy: Policy
) -> None:
    policy.go_on.set()
    client = broker._client
    client.send(SUBJECT, StringValue(value="stale").SerializeToString(), "", DEADLINE)
    await client._process_op_err(OSError())
    assert not broker.is_connected
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        client.send(SUBJECT, b"", "", DEADLINE)
    assert await until(lambda: answered(broker, "now")) == "now"
    assert set(policy.heard) == {"now"}


async def test_what_was_published_in_the_turn_of_the_end_is_still_sent(
    nats_server: NatsUnderTest, policy: Policy
) -> None:
    policy.go_on.set()
    client = (await Bus.connect(nats_server.bus_settings("service", "broker"), "broker"))._client
    client.send(SUBJECT, StringValue(value="last words").SerializeToString(), "", DEADLINE)
    await client.close()
    await begun(policy, 1)
    assert policy.heard == ["last words"]
    with pytest.raises(nats.errors.ConnectionClosedError):
        client.send(SUBJECT, b"")


async def test_large_and_small_messages_arrive_whole_and_in_order(
    broker: Bus, policy: Policy
) -> None:
    policy.go_on.set()
    texts = [f"{n}" * size for n in range(4) for size in (1, 20_000, 300_000)]
    assert await asyncio.gather(*(ask(broker, text) for text in texts)) == texts
    assert policy.heard == texts


async def test_nobody_listens_too_much_is_said_and_no_such_subject_are_told_apart(
    broker: Bus,
) -> None:
    client = broker._client
    with pytest.raises(nats.errors.NoRespondersError):
        await client.ask(SUBJECT, b"", WAIT_S_MAX)
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request(SUBJECT, timeout=WAIT_S_MAX)
    with pytest.raises(nats.errors.MaxPayloadError):
        await client.ask(SUBJECT, bytes(client.max_payload + 1), WAIT_S_MAX)
    with pytest.raises(nats.errors.MaxPayloadError):
        await client.ask(SUBJECT, bytes(client.max_payload), WAIT_S_MAX, DEADLINE)
    for subject in ("", "a b", "a\r\nPUB b 0", "a\t"):
        with pytest.raises(nats.errors.BadSubjectError):
            await client.ask(subject, b"", WAIT_S_MAX)
    with pytest.raises(nats.errors.BadSubjectError):
        client.send("a", b"", "b\r\n")
    assert client._waiting == {}


async def test_subscription_of_the_library_and_ours_live_on_one_connection(
    nats_server: NatsUnderTest, broker: Bus
) -> None:
    heard: list[tuple[str, bytes]] = []
    async with connected(nats_server.bus_settings("service", "policy"), "policy") as bus:

        async def hear(message: Msg) -> None:
            headers = message.headers or {}
            heard.append((headers["Other"], message.data))
            await bus._client.publish(message.reply, b"")

        await bus._client.subscribe(SUBJECT, "policy", hear)
        await bus._client.flush()
        await bus._client.flush()
        for n in range(3):
            block = header_block({"Other": f" a\r\nb{n} "})
            await broker._client.ask(SUBJECT, bytes(n * 50_000), WAIT_S_MAX, block)
    assert heard == [(f"a  b{n}", bytes(n * 50_000)) for n in range(3)]


@pytest.mark.parametrize(
    "frame",
    [
        b"PUB policy.evaluate _INBOX_broker.\xff 0\r\n\r\n",
        b"HPUB policy.evaluate _INBOX_broker.x 16 16\r\nNATS/1.0 \xff\xff\xff\r\n\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_text_hinder_no_other(
    nats_server: NatsUnderTest, broker: Bus, frame: bytes
) -> None:
    """Who may publish may write any bytes into the subject for the reply and into a status."""
    async with connected(nats_server.bus_settings("service", "policy"), "policy") as bus:
        heard: list[str] = []

        async def answer(request: StringValue) -> StringValue:
            heard.append(request.value)
            return request

        await bus.serve(SUBJECT, "policy", StringValue, answer, 16)
        broker._client._outgoing.append(frame)
        assert await ask(broker, "now") == "now"
        assert bus._client.stats["reconnects"] == 0
    assert heard == ["now"]


def test_names_of_headers_are_checked() -> None:
    for name in ("", "a b", "a:", "a\r\nb", "ö"):
        with pytest.raises(nats.errors.BadHeaderError):
            header_block({name: "x"})


async def test_without_a_connection_nothing_is_sent() -> None:
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        BusClient().send("a", b"")
