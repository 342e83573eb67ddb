"""Durable messages as their handlers see them, and the loop that brings them.

A handler returns when its work is done, and only then is the message acknowledged. It raises `Retry`
to have it again later and `Poison` to have it set aside.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from opentelemetry.trace import SpanKind

from shared import messaging, telemetry
from shared.backoff import Backoff
from shared.bus_failures import in_words
from shared.errors import Unavailable
from shared.nats_client import GONE, BusClient
from shared.nats_frames import text

log = logging.getLogger(__name__)

PULL_EXPIRES_S: Final = 30
ASKS_AT_ONCE: Final = 4
"""A busy process asks for a quarter of what it takes: a request costs the server as much as a message."""
PULL_WATCHDOG_S: Final = PULL_EXPIRES_S + 5
"""A pull request that neither delivered nor expired was lost, as after a server restart."""
PULL_AGAIN: Final = Backoff(first_s=0.5, most_s=4.0)
"""After a refusal, as while the stream is still being made or elects a leader."""
FAILED_AGAIN: Final = Backoff(first_s=1.0, most_s=15.0)
"""Before a message comes again whose handler failed in a way that nobody foresaw."""

DRAIN_S_MAX: Final = 2.0
"""At the end of a process: a bus that says nothing for so long need not be left in good order."""

_USED_UP: Final = ("404", "408")
_HEARTBEAT: Final = "100"
_LEFT: Final = "Nats-Pending-Messages"
"""How many messages of the request that ended had not come."""


class Retry(Exception):
    """Raised by a handler of deliveries: deliver again after the delay."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"again in {delay_s} s")
        self.delay_s = delay_s


class Poison(Exception):
    """Raised by a handler of deliveries: never deliver again."""


@dataclass(frozen=True)
class Delivery:
    """One durable message."""

    subject: str
    data: bytes
    deliveries: int
    """How often it has been delivered, from 1."""
    sequence: int
    """Its number in the stream, the one name that every message has."""
    in_progress: Callable[[], Awaitable[None]]
    """Tells the server that it is still being worked on."""


def check_acknowledged(answer: bytes) -> None:
    """Raises the library's error when JetStream's answer to a message does not say that it is durable."""
    said = json.loads(answer)
    if "error" in said:
        raise nats.js.errors.APIError.from_error(said["error"])
    if "seq" not in said:
        raise nats.js.errors.Error("no acknowledgement")


def delivered(reply: str) -> tuple[int, int, int]:
    """How often, its number in the stream, and when it was published, in nanoseconds since 1970.

    The server says so in the reply: `$JS.ACK.stream.consumer.deliveries.sequence.sequence.time.pending`
    (that in the stream, that in the consumer), or with a domain and an account before the stream and
    perhaps more at the end. Raises NotJSMessageError.
    """
    parts = reply.split(".")
    if parts[:2] != ["$JS", "ACK"] or len(parts) in (10, *range(9)):
        raise nats.errors.NotJSMessageError
    at = 4 if len(parts) == 9 else 6
    return int(parts[at]), int(parts[at + 1]), int(parts[at + 3])


async def drained(client: Client, subscription: Subscription) -> None:
    """Has nothing more sent, and what was sent handed over, as far as the server answers in time."""
    with contextlib.suppress(*GONE):
        async with asyncio.timeout(DRAIN_S_MAX):
            # By itself `drain` writes its ping before what it has just buffered, so that the answer proves
            # nothing; then it drops what still comes, and whoever asked waits in vain.
            await client._send_unsubscribe(subscription._id)
            await client.flush()
            await client.flush()
            await subscription.drain()  # type: ignore[no-untyped-call]  # NATS's


@contextlib.contextmanager
def as_unavailable(what: str) -> Iterator[None]:
    """Raises Unavailable when the bus does not do what is asked of it; `what` is for the message."""
    try:
        yield
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        raise Unavailable(
            "BUS_UNAVAILABLE", f"{what}: {in_words(error)}", retry_after_s=1
        ) from error


class Message(NamedTuple):
    """As it came."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]


class Puller:
    """Keeps a bounded number of messages coming from one durable consumer.

    One inbox subscription and overlapping pull requests: three times the rate of `fetch`, and no
    request left behind that swallows messages.
    """

    def __init__(
        self,
        client: BusClient,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        stream: str,
        consumer: str,
        handler: Callable[[Delivery], Awaitable[None]],
        in_flight_max: int,
        template: str,
    ) -> None:
        self._client = client
        self._spawn = spawn
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._handler = handler
        self._in_flight_max = in_flight_max
        self._template = template
        self._inbox = self._client.new_inbox()
        self._requested = 0
        self._requested_lately = 0
        self._in_flight = 0
        self._left_over: deque[Message] = deque()
        self._heard_at = time.monotonic()
        self._asks_again: asyncio.TimerHandle | None = None
        self._refusals = 0
        self._stopped = False
        self._watchdog: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begins to handle messages."""
        self._subscription = await self._client.listen(self._inbox, "", self._on_message)
        await self.pull()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Takes no more messages; those being handled go on, and what still comes goes to others."""
        self._stopped = True
        while self._left_over:
            self._say(self._left_over.popleft().reply, b"-NAK")
        if self._watchdog:
            self._watchdog.cancel()
        if self._asks_again:
            self._asks_again.cancel()
        if self._subscription:
            # Else the server would go on giving what this process asked for, and wait for it in vain.
            await drained(self._client, self._subscription)

    async def pull(self) -> None:
        """Asks for as many as may be in flight, forgetting what was asked before."""
        self._requested = 0
        self._ask()

    def _ask(self) -> None:
        wanted = self._in_flight_max - self._in_flight - self._requested
        if self._stopped or wanted <= 0:
            return
        self._requested += wanted
        self._requested_lately += wanted
        body = json.dumps({"batch": wanted, "expires": PULL_EXPIRES_S * 1_000_000_000})
        self._say(self._subject, body.encode(), self._inbox)

    def _say(self, subject: str, what: bytes, reply: str = "") -> None:
        """Without a connection it is not said."""
        with contextlib.suppress(nats.errors.Error, OSError):
            self._client.send(subject, what, reply)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PULL_WATCHDOG_S)
            if time.monotonic() - self._heard_at > PULL_WATCHDOG_S:
                await self.pull()
            else:
                self.forget_lost()

    def forget_lost(self) -> None:
        """Each PULL_WATCHDOG_S: all that was asked for before the last time has come, ended or been lost.

        A server that leads the consumer and freezes swallows what it is asked; whichever leads after it does
        not know of that, and the connection may be to a third.
        """
        self._requested = min(self._requested, self._requested_lately)
        self._requested_lately = 0
        self._ask()

    def _on_message(
        self, subject: bytes, reply: bytes, data: bytes, headers: Mapping[str, str]
    ) -> None:
        self._heard_at = time.monotonic()
        # Of a message the server says where to acknowledge it. Whoever published it may write any headers.
        status = headers.get("Status") if headers and not reply else None
        if status is not None:
            self._on_status(status, headers)
            return
        self._refusals = 0
        message = Message(text(subject), text(reply), data, headers)
        if self._stopped:
            self._say(message.reply, b"-NAK")
            return
        self._requested = max(0, self._requested - 1)
        # More may come than there is room for when a request from before a reconnect is still served:
        # at most twice as many. To give one back counts as a delivery of it.
        if self._in_flight < self._in_flight_max:
            self._begin(message)
        elif len(self._left_over) < 2 * self._in_flight_max:
            self._left_over.append(message)
        else:
            log.warning(
                "the bus delivers more than it was asked for",
                extra={"fields": {"template": self._template}},
            )
            self._say(message.reply, b"-NAK")

    def _begin(self, message: Message) -> None:
        self._in_flight += 1
        self._spawn(self._deliver(message))

    def _on_status(self, status: str, headers: Mapping[str, str]) -> None:
        """A pull request has ended: expired (404, 408), or refused for now (409, 503)."""
        if status == _HEARTBEAT:
            return
        left = headers.get(_LEFT, "")
        self._requested = max(0, self._requested - int(left)) if left.isdecimal() else 0
        if status in _USED_UP:
            self._refusals = 0
            self._ask()
        elif self._asks_again is None:
            self._refusals += 1
            loop = asyncio.get_running_loop()
            self._asks_again = loop.call_later(PULL_AGAIN.wait_s(self._refusals), self._ask_again)

    def _ask_again(self) -> None:
        self._asks_again = None
        self._ask()

    async def _deliver(self, message: Message) -> None:
        try:
            self._say(message.reply, await self._handle(message))
        finally:
            self._in_flight -= 1
            if self._left_over:
                self._begin(self._left_over.popleft())
            free = self._in_flight_max - self._in_flight - self._requested
            if free * ASKS_AT_ONCE >= self._in_flight_max:
                self._ask()

    async def _handle(self, message: Message) -> bytes:
        """Runs the handler; gives the acknowledgement to send."""

        async def in_progress() -> None:
            # Without a connection nobody can be told, and the work is not worse for that.
            self._say(message.reply, b"+WPI")

        with (
            messaging.span(SpanKind.CONSUMER, self._template, "process", message.headers) as span,
            messaging.measured(self._template, "process") as outcome,
        ):
            deliveries = 1
            try:
                deliveries, sequence, published_ns = delivered(message.reply)
                if telemetry.switch.on:
                    messaging.record_age(self._template, published_ns / 1e9)
                span.set_attribute("countersign.deliveries", deliveries)
                await self._handler(
                    Delivery(message.subject, message.data, deliveries, sequence, in_progress)
                )
            except Retry as again:
                outcome.failure = "Retry"
                span.add_event("retry")
                return _again_in(again.delay_s)
            except Poison:
                log.exception("message set aside", extra={"fields": {"template": self._template}})
                outcome.failure = "Poison"
                span.add_event("set aside")
                telemetry.failed(span, outcome.failure)
                return b"+TERM"
            except Exception as error:
                log.exception("message failed", extra={"fields": {"template": self._template}})
                outcome.failure = telemetry.reason_of(error)
                telemetry.failed(span, outcome.failure)
                return _again_in(FAILED_AGAIN.wait_s(deliveries))
            return b"+ACK"


def _again_in(delay_s: float) -> bytes:
    return b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode()
