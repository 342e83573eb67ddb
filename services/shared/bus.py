"""The bus: request and reply between our services, and durable orders and answers, over NATS.

Invariants:
- A message is never sent later than its caller waits for it: nothing is buffered while disconnected,
  each request carries its deadline, and a service drops what has passed it.
- A durable publish returns only after JetStream has acknowledged it.
- A delivery is acknowledged only after its handler has returned.
- When the client has closed for good, `closed` is set and the process must end: a process that looks
  alive but hears nothing is worse than one that restarts.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import nats
import nats.errors
import nats.js.errors
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from nats.aio.subscription import Subscription
from nats.js import api
from opentelemetry.trace import SpanKind

from shared import envelope, messaging, telemetry
from shared.bus_failures import in_words
from shared.deliveries import Delivery as Delivery
from shared.deliveries import Poison as Poison
from shared.deliveries import Puller, as_unavailable, check_acknowledged, drained
from shared.deliveries import Retry as Retry
from shared.errors import (
    Broken,
    Overloaded,
    ServiceError,
    Unavailable,
    from_status,
)
from shared.nats_client import GONE, BusClient, header_block
from shared.nats_client import Forbidden as Forbidden
from shared.nats_frames import MESSAGE_ID, text
from shared.settings import BusSettings
from shared.stored import (
    Stored,
    Waiting,
    delete_in,
    first_in,
    may_delete_in,
    subject_in,
    waiting_in,
)
from shared.tls import Renewal, bus_context

log = logging.getLogger(__name__)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

CONNECT_TIMEOUT_S: Final = 30
"""How long a starting process waits for the bus, so that any start order works."""
ACK_TIMEOUT_S: Final = 8
"""A cluster elects a new stream leader within 7 s (measured); an acknowledgement may take as long."""
PING_INTERVAL_S: Final = 5
"""With two pings outstanding, a half-open link is found in about 15 s."""


class Bus:
    """A connection to NATS."""

    def __init__(self, client: BusClient, closed: asyncio.Event) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=ACK_TIMEOUT_S)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pullers: list[Puller] = []
        self._served: list[Subscription] = []
        self.closed = closed

    @classmethod
    async def connect(cls, settings: BusSettings, name: str) -> "Bus":
        """Connects; raises Unavailable when there is no server within CONNECT_TIMEOUT_S.

        Raises SettingsError when the TLS files cannot be used.
        """
        closed = asyncio.Event()
        client = BusClient()
        bus = cls(client, closed)
        renewal = Renewal(settings.tls)
        tls_context = bus_context(settings)

        async def on_error(error: Exception) -> None:
            # An exception here would end the client's read loop and leave a deaf process.
            # It is told of each failed try to connect too, perhaps for a certificate that has lapsed.
            renewal.load_into(tls_context)
            if not client.is_connected:
                client.tried_in_vain()
            fields = {"error": type(error).__name__}
            if "permissions violation" in str(error).lower():
                # Whoever published or subscribed hears nothing but silence, so this must be heard.
                fields["said"] = str(error)  # which subject
                log.error("the bus forbids what this process did", extra={"fields": fields})
                client.was_forbidden(str(error))
            else:
                log.warning("bus error", extra={"fields": fields})

        async def on_disconnected() -> None:
            renewal.load_into(tls_context)

        async def on_closed() -> None:
            closed.set()

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    servers=list(settings.servers),
                    name=name,
                    tls=tls_context,
                    tls_handshake_first=True,
                    inbox_prefix=f"_INBOX_{name}",
                    pending_size=0,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=2,
                    max_reconnect_attempts=-1,
                    connect_timeout=3,
                    error_cb=on_error,
                    disconnected_cb=on_disconnected,
                    closed_cb=on_closed,
                    reconnected_cb=bus._on_reconnected,
                )
                client.is_back()
                await client.flush()
        except (TimeoutError, OSError, nats.errors.Error, ssl.SSLError) as error:
            await bus.close()
            raise Unavailable(
                "BUS_UNAVAILABLE", f"no NATS server answered within {CONNECT_TIMEOUT_S} s"
            ) from error
        return bus

    @property
    def is_connected(self) -> bool:
        """True while the connection stands."""
        return bool(self._client.is_connected)

    async def _on_reconnected(self) -> None:
        self._client.is_back()
        for puller in self._pullers:
            await puller.pull()

    # Request and reply

    async def request(
        self,
        subject: str,
        message: Message,
        response: type[Response],
        timeout_s: float,
        begin_within_s: float | None = None,
    ) -> Response:
        """Asks a service. Raises the ServiceError it raised, or Unavailable.

        What the service has not begun after `begin_within_s`, it drops; what it has, is waited for.
        """
        within_s = timeout_s if begin_within_s is None else min(timeout_s, begin_within_s)
        headers = {envelope.DEADLINE: str(int((time.time() + within_s) * 1000))}
        with messaging.span(SpanKind.CLIENT, subject, "request") as span:
            telemetry.inject(headers)
            with messaging.measured(subject, "request") as outcome:
                try:
                    reply = await self._client.ask(
                        subject, message.SerializeToString(), timeout_s, header_block(headers)
                    )
                    if envelope.ERROR not in reply.headers:
                        return response.FromString(reply.data)
                    refusal = from_status(status_pb2.Status.FromString(reply.data))
                    outcome.failure = refusal.reason
                    span.set_attribute("error.type", refusal.reason)
                except (nats.errors.Error, TimeoutError, OSError) as error:
                    raise Unavailable(
                        "SERVICE_UNAVAILABLE",
                        f"no answer on {subject}: {in_words(error)}",
                        metadata={"subject": subject},
                        retry_after_s=1,
                    ) from error
                except DecodeError as error:
                    what = f"the reply on {subject} is garbled"
                    raise Broken("REPLY_UNREADABLE", what) from error
        raise refusal

    async def serve(
        self,
        subject: str,
        queue: str,
        request: type[Request],
        handler: Callable[[Request], Awaitable[Message]],
        in_flight_max: int,
    ) -> None:
        """Answers requests on a subject, sharing them with others of the same queue."""
        in_flight = 0

        async def answer(reply: str, data: bytes, headers: Mapping[str, str]) -> None:
            nonlocal in_flight
            try:
                self._reply(
                    subject, reply, *await self._handled(subject, data, headers, request, handler)
                )
            finally:
                in_flight -= 1

        def on_message(_: bytes, reply: bytes, data: bytes, headers: Mapping[str, str]) -> None:
            nonlocal in_flight
            if in_flight >= in_flight_max:
                error = Overloaded(
                    "SERVICE_BUSY",
                    f"{subject} has {in_flight_max} requests in flight",
                    retry_after_s=1,
                )
                self._reply(subject, text(reply), *envelope.error_reply(error))
                return
            in_flight += 1
            self._spawn(answer(text(reply), data, headers))

        self._served.append(await self._client.listen(subject, queue, on_message))
        # Twice: the first ping may be written before what was buffered, so its answer proves nothing.
        await self._client.flush()
        await self._client.flush()

    def _reply(self, subject: str, to: str, data: bytes, headers: dict[str, str] | None) -> None:
        """Replies, if that is still possible."""
        with contextlib.suppress(nats.errors.Error, OSError):
            try:
                self._client.send(to, data, headers=header_block(headers) if headers else b"")
            except nats.errors.MaxPayloadError:
                log.exception("reply too large", extra={"fields": {"subject": subject}})
                error = Broken("REPLY_TOO_LARGE", f"the reply on {subject} exceeds the bus's bound")
                data, headers = envelope.error_reply(error)
                self._client.send(to, data, headers=header_block(headers))

    async def _handled(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        request: type[Request],
        handler: Callable[[Request], Awaitable[Message]],
    ) -> tuple[bytes, dict[str, str] | None]:
        with (
            messaging.span(SpanKind.SERVER, subject, "process", headers) as span,
            messaging.measured(subject, "process") as outcome,
        ):
            try:
                asked = envelope.asked(subject, data, headers, request)
                return (await handler(asked)).SerializeToString(), None
            except ServiceError as error:
                outcome.failure = error.reason
                span.set_attribute("error.type", error.reason)
                return envelope.error_reply(error)
            except Exception as error:
                log.exception("request failed", extra={"fields": {"subject": subject}})
                outcome.failure = type(error).__name__
                telemetry.failed(span, outcome.failure)
                return envelope.error_reply(Broken("INTERNAL", "internal error"))

    async def hear(
        self, subject: str, queue: str, handler: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Handles what the server says there, once among all of a queue. It may be lost."""

        def on_message(_: bytes, __: bytes, data: bytes, ___: Mapping[str, str]) -> None:
            self._spawn(handled(data))

        async def handled(data: bytes) -> None:
            try:
                await handler(data)
            except Exception:
                log.exception("message failed", extra={"fields": {"subject": subject}})

        self._served.append(await self._client.listen(subject, queue, on_message))

    # Durable messages

    async def publish_durable(
        self, subject: str, data: bytes, message_id: str, template: str
    ) -> None:
        """Publishes to the stream that holds the subject; returns once it is durable.

        Within the stream's window a second message with the same id is dropped. `template` is the
        subject with its changing parts named, for telemetry. Raises Unavailable.
        """
        headers = {MESSAGE_ID: message_id}
        with (
            messaging.span(SpanKind.PRODUCER, template, "publish"),
            messaging.measured(template, "publish"),
        ):
            telemetry.inject(headers)
            try:
                reply = await self._client.ask(subject, data, ACK_TIMEOUT_S, header_block(headers))
                check_acknowledged(reply.data)
            except (nats.errors.Error, TimeoutError, OSError) as error:
                raise Unavailable(
                    "BUS_UNAVAILABLE",
                    f"the bus did not take a message on {template}: {in_words(error)}",
                    retry_after_s=1,
                ) from error

    async def consume(
        self,
        stream: str,
        consumer: str,
        handler: Callable[[Delivery], Awaitable[None]],
        in_flight_max: int,
        template: str,
    ) -> None:
        """Handles the messages of a durable consumer until the bus is closed."""
        puller = Puller(
            self._client, self._spawn, stream, consumer, handler, in_flight_max, template
        )
        self._pullers.append(puller)
        await puller.start()

    async def ensure_stream(self, config: api.StreamConfig) -> None:
        """Makes the stream, or brings an existing one to this configuration. Raises Unavailable."""
        with as_unavailable(f"stream {config.name}"):
            try:
                await self._jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:
                await self._jetstream.update_stream(config)

    async def ensure_consumer(self, stream: str, config: api.ConsumerConfig) -> None:
        """Makes the durable consumer, or updates it. Raises Unavailable."""
        with as_unavailable(f"consumer {config.durable_name} of {stream}"):
            await self._jetstream.add_consumer(stream, config)

    async def waiting(self, stream: str) -> Waiting:
        """How many messages a stream holds, and since when the oldest. Raises Unavailable."""
        with as_unavailable(f"stream {stream}"):
            return await waiting_in(self._jetstream, stream)

    async def last_message(self, stream: str, subject: str) -> bytes | None:
        """The newest message on a subject, None when there is none. Raises Unavailable."""
        with as_unavailable(f"stream {stream}"):
            try:
                message = await self._jetstream.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError:
                return None
            return bytes(message.data or b"")

    async def first_messages(self, stream: str, subject: str, count_max: int) -> list[Stored]:
        """The oldest messages on a subject. Raises Unavailable."""
        with as_unavailable(f"stream {stream}"):
            return await first_in(self._jetstream, stream, subject, count_max)

    async def subject_of(self, stream: str, sequence: int) -> str | None:
        """Of a message that a stream holds, None when it holds it no more. Raises Unavailable."""
        with as_unavailable(f"stream {stream}"):
            return await subject_in(self._jetstream, stream, sequence)

    async def purge(self, stream: str, subject: str) -> None:
        """Deletes what a stream holds on a subject. Raises Unavailable."""
        with as_unavailable(f"stream {stream}"):
            await self._jetstream.purge_stream(stream, subject=subject)

    async def delete(self, stream: str, sequence: int) -> None:
        """Takes one message off a stream, if it is there. Raises Unavailable, and Forbidden."""
        with as_unavailable(f"stream {stream}"):
            await delete_in(self._client, self._jetstream, stream, sequence, ACK_TIMEOUT_S)

    async def may_delete(self, stream: str) -> None:
        """Raises Forbidden when the bus's configuration does not let this process, and Unavailable."""
        with as_unavailable(f"stream {stream}"):
            await may_delete_in(self._client, stream, ACK_TIMEOUT_S)

    async def close(self) -> None:
        """Leaves new work to others, lets handlers finish, for a bounded time, and closes."""
        leaving = [puller.stop() for puller in self._pullers]
        leaving += [drained(self._client, subscription) for subscription in self._served]
        await asyncio.gather(*leaving)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ACK_TIMEOUT_S)
        with contextlib.suppress(*GONE):
            await self._client.close()
        await self._client.stop_reconnecting()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def connected(settings: BusSettings, name: str) -> AsyncIterator[Bus]:
    """A bus that is closed at the end."""
    bus = await Bus.connect(settings, name)
    try:
        yield bus
    finally:
        await bus.close()
