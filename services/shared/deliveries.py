"""Durable messages as their handlers see them, and the loop that brings them.

A handler returns when its work is done, and only then is the message acknowledged. It raises `Retry`
to have it again later and `Poison` to have it set aside.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind, StatusCode

from shared import messaging, telemetry

log = logging.getLogger(__name__)

PULL_EXPIRES_S: Final = 30
PULL_WATCHDOG_S: Final = PULL_EXPIRES_S + 5
"""A pull request that neither delivered nor expired was lost, as after a server restart."""


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
        self._in_flight = 0
        self._heard_at = time.monotonic()
        self._stopped = False
        self._watchdog: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to handle messages."""
        await self._client.subscribe(self._inbox, cb=self._on_message)
        await self.pull()
        self._watchdog = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Asks for no more messages; those in flight go on."""
        self._stopped = True
        if self._watchdog:
            self._watchdog.cancel()

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
        if message.headers and "Status" in message.headers:
            # 404 and 408: the request is used up. 409: the server dropped it. Others are heartbeats.
            if message.headers["Status"] in ("404", "408", "409"):
                self._requested = 0
                if self._in_flight == 0 and message.headers["Status"] == "409":
                    await asyncio.sleep(1)
                await self._ask()
            return
        self._requested = max(0, self._requested - 1)
        self._in_flight += 1
        self._spawn(self._deliver(message))

    async def _deliver(self, message: Msg) -> None:
        started = time.perf_counter()
        age_s = max(0.0, time.time() - message.metadata.timestamp.timestamp())
        labels = {"messaging.destination.template": self._template}
        messaging.queue_age.record(age_s, labels)
        try:
            verdict = await self._handle(message)
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(message.reply, verdict)
        finally:
            messaging.process_duration.record(time.perf_counter() - started, labels)
            self._in_flight -= 1
            if self._requested <= self._in_flight_max // 2:
                await self._ask()

    async def _handle(self, message: Msg) -> bytes:
        """Runs the handler; gives the acknowledgement to send."""

        async def in_progress() -> None:
            await self._client.publish(message.reply, b"+WPI")

        delivery = Delivery(
            message.subject, message.data, message.metadata.num_delivered, in_progress
        )
        name = f"process {self._template}"
        with (
            telemetry.continued(message.headers or {}),
            messaging.span(name, SpanKind.CONSUMER, self._template, "process") as span,
        ):
            try:
                await self._handler(delivery)
            except Retry as again:
                span.add_event("retry")
                delay = timedelta(seconds=again.delay_s)
                return b"-NAK " + json.dumps({"delay": int(delay.total_seconds() * 1e9)}).encode()
            except Poison:
                log.exception("message set aside", extra={"fields": {"template": self._template}})
                span.set_status(StatusCode.ERROR)
                return b"+TERM"
            except Exception:
                log.exception("message failed", extra={"fields": {"template": self._template}})
                span.set_status(StatusCode.ERROR)
                return b'-NAK {"delay": 1000000000}'
            return b"+ACK"
