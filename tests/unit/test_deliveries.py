"""What our client reads out of JetStream's answers is what nats-py's own reads."""

import asyncio
import json
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.aio.msg import Msg

from shared import deliveries
from shared.deliveries import Delivery, Puller, check_acknowledged, delivered
from shared.nats_client import RECONNECT, BusClient
from shared.nats_frames import Handler
from support.backoffs import TIMES, NoWait, assert_backs_off

SHORT = "$JS.ACK.ORDERS.connector.3.41.42.1763887877123456789.7"
LONG = "$JS.ACK.hub.ACC.ORDERS.connector.3.41.42.1763887877123456789.7"


@pytest.mark.parametrize("reply", [SHORT, LONG, f"{LONG}.token", f"{LONG}.token.more"])
def test_deliveries_sequence_and_time_are_read_as_the_library_reads_them(reply: str) -> None:
    read = Msg.Metadata._from_reply(reply)
    deliveries, sequence, published_ns = delivered(reply)
    assert deliveries == read.num_delivered == 3
    assert sequence == read.sequence.stream == 41
    assert datetime.fromtimestamp(published_ns / 1e9, read.timestamp.tzinfo) == read.timestamp


@pytest.mark.parametrize(
    "reply", ["", "_INBOX.x", SHORT[:-2], f"{SHORT}.x", SHORT.replace("ACK", "API"), "$JS.ACK"]
)
def test_what_is_no_delivery_is_refused_as_the_library_refuses_it(reply: str) -> None:
    for read in (Msg.Metadata._from_reply, delivered):
        with pytest.raises(nats.errors.NotJSMessageError):
            read(reply)


def test_only_an_acknowledgement_is_one() -> None:
    check_acknowledged(b'{"stream": "ORDERS", "seq": 1, "duplicate": true}')
    with pytest.raises(nats.js.errors.ServiceUnavailableError):
        check_acknowledged(b'{"error": {"code": 503, "err_code": 10077, "description": "full"}}')
    with pytest.raises(nats.js.errors.Error):
        check_acknowledged(b'{"stream": "ORDERS"}')


class Server(BusClient):
    """Stands for the connection: it keeps what was said, and delivers what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, bytes]] = []
        self.spoke = asyncio.Event()

    async def listen(self, subject: str, queue: str, handler: Handler) -> Any:
        self.deliver = handler

    def send(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        self.said.append((subject, payload))
        self.spoke.set()


async def test_more_than_asked_for_waits_and_far_more_is_given_back() -> None:
    """As after a reconnect, when the request of before is still served."""
    server, begun, go_on = Server(), asyncio.Semaphore(0), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    async def handle(_: Delivery) -> None:
        begun.release()
        await go_on.wait()

    puller = Puller(server, spawn, "ORDERS", "connector", handle, 2, "orders")
    await puller.start()
    asked = "$JS.API.CONSUMER.MSG.NEXT.ORDERS.connector"
    assert [subject for subject, _ in server.said] == [asked]
    assert json.loads(server.said[0][1])["batch"] == 2
    replies = [SHORT.replace("41", f"{n}") for n in range(8)]
    no_headers: Mapping[str, str] = {}
    for reply in replies:
        server.deliver(b"orders.x", reply.encode(), b"", no_headers)
    assert server.said[1:] == [(reply, b"-NAK") for reply in replies[6:]]
    for _ in range(2):
        await begun.acquire()
    assert len(tasks) == 2
    go_on.set()
    for _ in range(4):
        await begun.acquire()
    await asyncio.gather(*tasks)
    acknowledged = [subject for subject, said in server.said if said == b"+ACK"]
    assert acknowledged == replies[:6]
    await puller.stop()


async def test_a_busy_process_asks_for_a_quarter_at_a_time() -> None:
    server, go_on = Server(), asyncio.Semaphore(0)
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    async def handle(_: Delivery) -> None:
        await go_on.acquire()

    puller = Puller(server, spawn, "ORDERS", "connector", handle, 8, "orders")
    await puller.start()
    no_headers: Mapping[str, str] = {}
    for number in range(8):
        server.deliver(b"orders.x", SHORT.replace("41", f"{number}").encode(), b"", no_headers)
    asked = []
    for _ in range(4):
        server.said.clear()
        go_on.release()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks = [task for task in tasks if not task.done()]
        asked.append([json.loads(said)["batch"] for _, said in server.said if said[:1] == b"{"])
    assert asked == [[], [2], [], [2]]
    for _ in tasks:
        go_on.release()
    await asyncio.gather(*tasks)
    await puller.stop()


async def test_a_request_that_was_lost_without_a_word_is_made_again_also_while_messages_come() -> (
    None
):
    server, go_on = Server(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    async def handle(_: Delivery) -> None:
        await go_on.wait()

    def asked() -> list[int]:
        found = [json.loads(said)["batch"] for _, said in server.said if said[:1] == b"{"]
        server.said.clear()
        return found

    puller = Puller(server, spawn, "ORDERS", "connector", handle, 8, "orders")
    await puller.start()
    for number in range(2):
        server.deliver(b"orders.x", SHORT.replace("41", f"{number}").encode(), b"", {})
    assert asked() == [8]
    puller.forget_lost()
    assert asked() == [], "what was asked for lately may still come"
    puller.forget_lost()
    assert asked() == [6]
    puller.forget_lost()
    assert asked() == []
    go_on.set()
    await asyncio.gather(*tasks)
    await puller.stop()


async def test_subject_that_is_no_text_reaches_its_handler() -> None:
    server, taken = Server(), asyncio.Queue[str]()
    tasks: list[asyncio.Task[None]] = []

    async def handle(delivery: Delivery) -> None:
        await taken.put(delivery.subject)

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    puller = Puller(server, spawn, "ORDERS", "connector", handle, 1, "orders")
    await puller.start()
    server.deliver(b"orders.\xff", SHORT.encode(), b"", {})
    assert await taken.get() == "orders.\ufffd"
    await asyncio.gather(*tasks)
    await puller.stop()


async def test_what_still_waits_at_the_end_is_given_back() -> None:
    server = Server()

    async def handle(_: Delivery) -> None:
        raise AssertionError

    puller = Puller(server, lambda work: work.close(), "ORDERS", "connector", handle, 1, "orders")
    await puller.start()
    replies = [SHORT.replace("41", f"{n}") for n in range(3)]
    for reply in replies:
        server.deliver(b"orders.x", reply.encode(), b"", {})
    await puller.stop()
    server.deliver(b"orders.x", SHORT.encode(), b"", {})
    assert server.said[1:] == [(reply, b"-NAK") for reply in [*replies[1:], SHORT]]


async def test_a_message_whose_handler_fails_comes_again_ever_later() -> None:
    server, tasks = Server(), []

    async def handle(_: Delivery) -> None:
        raise RuntimeError("nobody foresaw it")

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    puller = Puller(server, spawn, "ORDERS", "connector", handle, 1, "orders")
    await puller.start()
    for number in range(TIMES):
        reply = SHORT.replace(".3.", f".{number + 1}.")
        server.deliver(b"orders.x", reply.encode(), b"", {})
        await tasks[-1]
    await puller.stop()
    said = [what for _, what in server.said if what.startswith(b"-NAK ")]
    waits_s = [json.loads(what.removeprefix(b"-NAK "))["delay"] / 1e9 for what in said]
    assert len(waits_s) == TIMES
    assert_backs_off(waits_s, deliveries.FAILED_AGAIN)


async def test_a_stream_that_refuses_is_asked_ever_later_until_it_delivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "PULL_AGAIN", waited := NoWait())
    server = Server()

    async def handle(_: Delivery) -> None:
        return None

    puller = Puller(server, lambda work: work.close(), "ORDERS", "connector", handle, 8, "orders")
    await puller.start()

    async def refused() -> None:
        server.spoke.clear()
        server.deliver(b"_INBOX.x", b"", b"", {"Status": "409"})
        await server.spoke.wait()

    for _ in range(3):
        await refused()
    server.deliver(b"orders.x", SHORT.encode(), b"", {})
    await refused()
    await puller.stop()
    assert waited.asked == [1, 2, 3, 1]


def test_a_server_that_is_away_is_tried_ever_later() -> None:
    """nats-py reads it anew at each try: tests/unit/test_nats_internals.py."""
    client, waits_s = BusClient(), []
    for _ in range(TIMES):
        client.tried_in_vain()
        waits_s.append(client.options["reconnect_time_wait"])
    assert_backs_off(waits_s, RECONNECT)
    client.is_back()
    assert client.options["reconnect_time_wait"] <= RECONNECT.first_s
    client.tried_in_vain()
    assert client.options["reconnect_time_wait"] <= RECONNECT.first_s
