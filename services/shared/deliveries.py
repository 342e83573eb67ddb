"""Durable messages as their handlers see them, and the loop that brings them.

A handler returns when its work is done, and only then is the message acknowledged. It raises `Retry`
to have it again later and `Poison` to have it set aside.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.client import JetStreamContext
from opentelemetry.trace import SpanKind

from shared import messaging, telemetry
from shared.errors import Unavailable

log = logging.getLogger(__name__)

PULL_EXPIRES_S: Final = 30
PULL_WATCHDOG_S: Final = PULL_EXPIRES_S + 5
"""A pull request that neither delivered nor expired was lost, as after a server restart."""
PULL_AGAIN_S: Final = 0.5
"""After a refusal, as while the stream is still being made or elects a leader."""

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
    in_progress: Callable[[], Awaitable[None]]
    """Tells the server that it is still being worked on."""


@dataclass(frozen=True)
class Waiting:
    """What a stream holds."""

    messages: int
    oldest: datetime | None
    """When the oldest came; None when there is none."""


async def waiting_in(jetstream: JetStreamContext, stream: str) -> Waiting:
    """What it holds now."""
    state = (await jetstream.stream_info(stream)).state
    if not state.messages:
        return Waiting(0, None)
    try:
        oldest = await jetstream.get_msg(stream, seq=state.first_seq)
    except nats.js.errors.NotFoundError:
        return Waiting(state.messages, None)  # handled since we asked
    return Waiting(state.messages, oldest.time)


async def drained(client: Client, subscription: Subscription) -> None:
    """Has nothing more sent, and what was sent handed over, as far as the server answers in time."""
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
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
            "BUS_UNAVAILABLE", f"{what}: {type(error).__name__}", retry_after_s=1
        ) from error


class Puller:
    """Keeps a bounded number of messages coming from one durable consumer.

    One inbox subscription and overlapping pull requests: three times the rate of `fetch`, and no
    request left behind that swallows messages.
    """

    def __init__(
        self,
        client: Client,
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
        self._slots = asyncio.Semaphore(in_flight_max)
        self._in_flight = 0
        self._heard_at = time.monotonic()
        self._asks_again: asyncio.TimerHandle | None = None
        self._stopped = False
        self._watchdog: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begins to handle messages."""
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
        await self.pull()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Takes no more messages; those being handled go on, and what still comes goes to others."""
        self._stopped = True
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
        await self._ask()

    async def _ask(self) -> None:
        wanted = self._in_flight_max - self._in_flight - self._requested
        if self._stopped or wanted <= 0:
            return
        self._requested += wanted
        body = json.dumps({"batch": wanted, "expires": PULL_EXPIRES_S * 1_000_000_000})
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.publish(self._subject, body.encode(), reply=self._inbox)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PULL_WATCHDOG_S)
            if time.monotonic() - self._heard_at > PULL_WATCHDOG_S:
                await self.pull()

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = time.monotonic()
        status = (message.headers or {}).get("Status")
        if status is not None:
            await self._on_status(status, message.headers or {})
            return
        if self._stopped:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(message.reply, b"-NAK")
            return
        self._requested = max(0, self._requested - 1)
        # More may come than there is room for when a request from before a reconnect is still served.
        await self._slots.acquire()
        self._in_flight += 1
        self._spawn(self._deliver(message))

    async def _on_status(self, status: str, headers: Mapping[str, str]) -> None:
        """A pull request has ended: expired (404, 408), or refused for now (409, 503)."""
        if status == _HEARTBEAT:
            return
        left = headers.get(_LEFT, "")
        self._requested = max(0, self._requested - int(left)) if left.isdecimal() else 0
        if status in _USED_UP:
            await self._ask()
        elif self._asks_again is None:
            loop = asyncio.get_running_loop()
            self._asks_again = loop.call_later(PULL_AGAIN_S, self._ask_again)

    def _ask_again(self) -> None:
        self._asks_again = None
        self._spawn(self._ask())

    async def _deliver(self, message: Msg) -> None:
        try:
            verdict = await self._handle(message)
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(message.reply, verdict)
        finally:
            self._in_flight -= 1
            self._slots.release()
            if self._requested <= self._in_flight_max // 2:
                await self._ask()

    async def _handle(self, message: Msg) -> bytes:
        """Runs the handler; gives the acknowledgement to send."""

        async def in_progress() -> None:
            # Without a connection nobody can be told, and the work is not worse for that.
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(message.reply, b"+WPI")

        headers = message.headers or {}
        with (
            messaging.span(SpanKind.CONSUMER, self._template, "process", headers) as span,
            messaging.measured(self._template, "process") as outcome,
        ):
            try:
                metadata = message.metadata
                if telemetry.switch.on:
                    messaging.record_age(self._template, metadata.timestamp.timestamp())
                span.set_attribute("countersign.deliveries", metadata.num_delivered)
                await self._handler(
                    Delivery(message.subject, message.data, metadata.num_delivered, in_progress)
                )
            except Retry as again:
                outcome.failure = "Retry"
                span.add_event("retry")
                delay = timedelta(seconds=again.delay_s)
                return b"-NAK " + json.dumps({"delay": int(delay.total_seconds() * 1e9)}).encode()
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
                return b'-NAK {"delay": 1000000000}'
            return b"+ACK"
