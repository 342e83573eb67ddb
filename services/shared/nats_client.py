"""The client of nats-py with a hot path of our own.

The library connects, authenticates, reconnects, subscribes anew, drains and closes; every byte of that
is its own code. What each message passes is ours, because it was the largest part of what a search
costs in each process (docs/decisions/0018): there, a reply goes through a queue, a task and a callback
into a future, a request makes a task and two identifiers, and each write wakes a task.

Invariants:
- What is published goes out in this turn of the event loop or, when the connection was lost in it,
  never: nothing is kept for a later connection.
- Whoever gave up a request (by time or by cancellation) has left nothing behind, and its late reply is
  dropped.
- A subscription of ours is one of the library's: it survives a reconnect and is drained as any other.

It leans on private parts of the library, which is pinned; tests/unit/test_nats_internals.py fails when
one of them changes.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from shared.backoff import Backoff, jittered
from shared.nats_frames import OUR_HEADERS, Frames, Handler

log = logging.getLogger(__name__)

RECONNECT: Final = Backoff(first_s=0.5, most_s=4.0)
"""Before a server that was tried in vain is tried again: all its clients lost it in the same moment."""

GONE: Final = (nats.errors.Error, OSError, TimeoutError, RuntimeError)
"""What the library raises whose connection is gone while it speaks; the last is uvloop's, of a closed one."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_LINES: Final = str.maketrans({"\r": " ", "\n": " "})
_NO_RESPONDERS: Final = "503"
_LARGE_BYTES: Final = 16 * 1024
"""From here on a TLS record more costs less than a copy."""
_CANCELS_MAX: Final = 50
_CANCEL_AGAIN_S: Final = 0.1
"""Each try succeeds but at a few steps of the event loop; all together they outlast a connection attempt."""
_TOKEN_BYTES: Final = 8
_TOKENS_AT_ONCE: Final = 128


class Forbidden(Exception):
    """The server's configuration does not let this process say that; nobody heard it."""


class Reply(NamedTuple):
    """What came back."""

    data: bytes
    headers: Mapping[str, str]


def header_block(headers: Mapping[str, str]) -> bytes:
    """As they go over the wire. Raises BadHeaderError."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if name not in OUR_HEADERS and not _HEADER_NAME.fullmatch(name):
            raise nats.errors.BadHeaderError(name)
        if not value.isprintable():
            value = value.translate(_NO_LINES)
        lines.append(f"{name}: {value.strip()}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode()


class BusClient(Client):
    """A client whose hot path is ours; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)
        self._handlers: dict[int, Handler] = {}
        self.frames: Frames | None = None
        """What reads the connection; None before there is one."""
        self._outgoing: list[bytes] = []
        self._writes = False
        self._inbox = ""
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        self._tokens: list[str] = []
        self._forbidden: dict[str, asyncio.Future[None]] = {}
        self._tried_in_vain = 0

    def tried_in_vain(self) -> None:
        """Has the library wait longer before it tries a server again: by itself it waits alike each time."""
        self._tried_in_vain += 1
        self.options["reconnect_time_wait"] = RECONNECT.wait_s(self._tried_in_vain)

    def is_back(self) -> None:
        """The next failure is a first one."""
        self._tried_in_vain = 0
        # What the library waits, too, before it comes back to a server that it had a moment ago.
        self.options["reconnect_time_wait"] = jittered(RECONNECT.first_s)

    # Request and reply

    async def ask(
        self, subject: str, payload: bytes, timeout_s: float, headers: bytes = b""
    ) -> Reply:
        """Publishes, and waits for the reply. `headers` are a block.

        Raises NoRespondersError when nobody listens, TimeoutError (the library's), and as `send` does.
        """
        if not self._inbox:
            await self._listen_for_replies()
        token = self._tokens.pop() if self._tokens else self._new_token()
        key = token.encode()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting[key] = future
        timer = loop.call_later(timeout_s, _give_up, future)
        try:
            self.send(subject, payload, self._inbox + token, headers)
            reply = await future
        finally:
            timer.cancel()
            del self._waiting[key]
        if reply.headers and reply.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return reply

    async def ask_if_allowed(self, subject: str, payload: bytes, timeout_s: float) -> Reply:
        """As `ask`. Raises Forbidden as soon as the server says so: `ask` waits for its whole time."""
        forbidden = self._forbidden.get(subject)
        if forbidden is None:
            forbidden = self._forbidden[subject] = asyncio.get_running_loop().create_future()
        asking = asyncio.ensure_future(self.ask(subject, payload, timeout_s))
        try:
            await asyncio.wait((asking, forbidden), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Forbidden(subject)
            return asking.result()
        finally:
            asking.cancel()

    def was_forbidden(self, said: str) -> None:
        """Takes what the server says of a violation: it names the subject, and not the request."""
        # The library hands it on in small letters.
        for subject in [one for one in self._forbidden if f'"{one.lower()}"' in said.lower()]:
            self._forbidden.pop(subject).set_result(None)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109  # the library's name
        old_style: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """As the library has it, for its own calls of JetStream."""
        if old_style:
            return await super().request(subject, payload, timeout, old_style, headers)
        block = header_block(headers) if headers else b""
        reply = await self.ask(subject, payload, timeout, block)
        return Msg(_client=self, data=reply.data, headers=dict(reply.headers) or None)

    async def _listen_for_replies(self) -> None:
        inbox = self.new_inbox()
        # The server has this before the request: nothing here waits, and `_write` keeps the order.
        await self.listen(f"{inbox}.*", "", self._on_reply)
        self._inbox = f"{inbox}."

    def _on_reply(self, subject: bytes, _: bytes, data: bytes, headers: Mapping[str, str]) -> None:
        future = self._waiting.get(subject[len(self._inbox) :])
        if future is not None and not future.done():
            future.set_result(Reply(data, headers))

    def _new_token(self) -> str:
        """Names that nobody can guess, drawn many at once: each draw is a system call."""
        drawn, size = secrets.token_hex(_TOKEN_BYTES * _TOKENS_AT_ONCE), 2 * _TOKEN_BYTES
        self._tokens = [drawn[at : at + size] for at in range(0, len(drawn), size)]
        return self._tokens.pop()

    # Subscriptions

    async def listen(self, subject: str, queue: str, handler: Handler) -> Subscription:
        """Subscribes; the handler is called as soon as a message is read, and must not take long."""
        sid = self._sid + 1
        self._handlers[sid] = handler
        try:
            return await self.subscribe(subject, queue=queue, cb=_never)
        except BaseException:
            del self._handlers[sid]
            raise

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._handlers.pop(sid, None)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Takes what the library's parser read."""
        handler = self._handlers.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            found = await self._process_headers(headers)
        except (ValueError, IndexError):
            # A status that is no text: a sender may write anything. It must not end the reading of the rest.
            found = None
        handler(subject, reply, data, found or {})

    async def _read_loop(self) -> None:
        """Has our parser read the connection; the library goes on watching it."""
        link = self._transport
        assert isinstance(link, TcpTransport)
        assert link._io_writer
        assert link._io_reader
        frames = Frames(link._io_writer.transport, link._io_reader, self._handlers)
        self.frames = frames
        try:
            frames.begin()
            await super()._read_loop()
        finally:
            frames.stop()

    # Publishing

    def send(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Publishes, at the end of this turn of the event loop. `headers` are a block.

        Raises BadSubjectError, ConnectionClosedError, ConnectionDrainingError, MaxPayloadError, and
        OutboundBufferLimitError without a connection.
        """
        # No white space, which would end it: printable but for the space.
        if not (subject and subject.isprintable() and reply.isprintable()) or (
            " " in subject or " " in reply
        ):
            raise nats.errors.BadSubjectError
        if self._status != Client.CONNECTED:
            self._check_may_send()
        # With the headers, as the server counts it: too much for it ends the connection, and the process.
        size = len(headers) + len(payload)
        if size > self._max_payload:
            raise nats.errors.MaxPayloadError
        if headers:
            command = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode() + headers
        else:
            command = f"PUB {subject} {reply} {size}\r\n".encode()
        self._outgoing += (command, payload, b"\r\n")
        self._write_soon()

    def _check_may_send(self) -> None:
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As the library has it."""
        self.send(subject, payload, reply, header_block(headers) if headers else b"")

    async def _flush_pending(self, force_flush: bool = False) -> None:
        """What the library sends (subscriptions, PONG) goes the same way as what we publish."""
        if self.is_closed:
            # Its `close` writes out what stands here.
            self._pending += self._outgoing
            self._pending_data_size += sum(map(len, self._outgoing))
            self._outgoing.clear()
        else:
            self._write_soon()

    def _write_soon(self) -> None:
        if not self._writes:
            self._writes = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writes = False
        if not self.is_connected:
            # Subscriptions are repeated; what was published is lost, as what was under way.
            self._outgoing.clear()
            return
        # Subscriptions first: a request follows that for its reply.
        pieces = [*self._pending, *self._outgoing]
        self._pending.clear()
        self._pending_data_size = 0
        self._outgoing.clear()
        if pieces and self._transport is not None:
            # It does not raise: what cannot be written ends the connection.
            self._transport.writelines(_joined(pieces))

    # The end

    async def stop_reconnecting(self) -> None:
        """Cancels, after `close`, what nats-py cancels only once.

        Before Python 3.12 `asyncio.wait_for` may swallow a cancellation; the client would go on reconnecting
        and the process would not end.
        """
        reconnecting = self._reconnection_task
        for _ in range(_CANCELS_MAX):
            if reconnecting is None or reconnecting.done():
                return
            reconnecting.cancel()
            await asyncio.wait({reconnecting}, timeout=_CANCEL_AGAIN_S)
        log.error("the closed connection to the bus does not stop reconnecting")


class _Parser(Parser):
    """The library's, which tells when it has done with what it was handed."""

    async def parse(self, data: bytes = b"") -> None:
        frames = self.nc.frames
        await super().parse(data)
        if frames is not None:
            frames.read(len(data), self.state == AWAITING_CONTROL_LINE and not self.buf)


def _joined(pieces: list[bytes]) -> list[bytes]:
    """The same in few parts, as each becomes TLS records of its own; large ones are not copied."""
    joined: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _LARGE_BYTES:
            small.append(piece)
        else:
            joined += (b"".join(small), piece)
            small = []
    if small:
        joined.append(b"".join(small))
    return joined


def _give_up(future: asyncio.Future[Reply]) -> None:
    if not future.done():
        future.set_exception(nats.errors.TimeoutError())


async def _never(message: Msg) -> None:
    """The callback of a subscription that has a handler of ours."""
