"""Messages cut out of what a NATS server sends: only the plain ones; any other frame goes to nats-py.

The library reads 32 kB at a time into a stream, copies each message four times on its way, and tries
up to seven patterns on each frame. Here TLS writes into one buffer and a message is copied out of it
once. What nats-server writes for a message is one form of what the protocol allows; only that form, and
only for subscriptions that are ours, is read here. All else (PING, INFO, -ERR, statuses as 503, other
spacing) is handed to the library's own parser through the stream that it reads anyway.

Invariants:
- Frames are handled in the order in which they came, by whichever parser: while the library has one,
  nothing is read here.
- The buffer never grows beyond twice what has come, whatever length a frame announces.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.errors import ProtocolError

from shared import envelope, telemetry

log = logging.getLogger(__name__)

Handler = Callable[[bytes, bytes, bytes, Mapping[str, str]], None]
"""Takes the subject, the subject for the reply (perhaps empty), the data and the headers. Must not raise.

The server lets any bytes but white space into a subject: see `text`.
"""

BUFFER_BYTES: Final = 256 * 1024
"""Holds any order with its image, and several small messages."""
_ROOM_MIN: Final = 32 * 1024
"""Two TLS records; with less room it would be read in crumbs."""

# What ends a subject for the server, and so for us: a sender may write other white space into one, and what
# took that for its end would read the rest of the line for another message's. No number is longer than
# Python reads cheaply.
_WORD: Final = rb"[^ \t\n]+"
_MSG: Final = re.compile(rb"MSG (%b) (\d{1,18}) (?:(%b) )?(\d{1,9})\r\n" % (_WORD, _WORD))
_HMSG: Final = re.compile(
    rb"HMSG (%b) (\d{1,18}) (?:(%b) )?(\d{1,9}) (\d{1,9})\r\n" % (_WORD, _WORD)
)
_NO_OTHER_SPACE: Final = bytes.maketrans(b"\r\v\f", b"???")
_M: Final = ord("M")
_END: Final = b"\r\n"

_VERSION: Final = b"NATS/1.0\r\n"
MESSAGE_ID: Final = "Nats-Msg-Id"
OUR_HEADERS: Final = frozenset(
    (MESSAGE_ID, envelope.DEADLINE, envelope.ERROR, *telemetry.TRACE_HEADERS)
)
"""The names that we send ourselves, known to be in order."""
_NAMES: Final = {name.encode(): name for name in OUR_HEADERS}
_NO_HEADERS: Final[Mapping[str, str]] = {}


def text(subject: bytes) -> str:
    """A subject as text; whoever wrote another than UTF-8 gets no answer, and hinders no other."""
    return subject.decode("utf-8", "replace")


def headers_in(block: bytes) -> Mapping[str, str]:
    """The headers in a block without a status, as nats-py reads them."""
    found: dict[str, str] = {}
    lines = block[len(_VERSION) :]
    for line in lines.split(_END):
        if line:
            name, colon, value = line.partition(b":")
            known = _NAMES.get(name)
            if known is None or not colon:
                return Client._parse_header_lines(lines)
            found[known] = value.strip().decode("utf-8", "replace")
    return found


class Frames(asyncio.BufferedProtocol):
    """Stands in for the protocol of a stream, from when nats-py begins to read messages.

    `handlers` are those of our subscriptions by their number, `reader` is what the library reads. Its
    protocol goes on hearing what becomes of the connection.
    """

    def __init__(
        self,
        transport: asyncio.BaseTransport,
        reader: asyncio.StreamReader,
        handlers: Mapping[int, Handler],
    ) -> None:
        stream = transport.get_protocol()
        assert isinstance(stream, asyncio.StreamReaderProtocol)
        self._stream = stream
        self._transport = transport
        self._reader = reader
        self._handlers = handlers
        self._stopped = False
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._fill = 0
        self._wanted = 0
        """How much the frame at `_start` has, as far as that is known."""
        self._handed = 0
        """How much the library has been handed and not yet read."""
        self._all_handed = False

    def begin(self) -> None:
        """Takes what comes from now on, and what the reader has."""
        self._transport.set_protocol(self)
        buffered: bytearray = vars(self._reader)["_buffer"]
        data = bytes(buffered)
        buffered.clear()
        while data:
            room = self.get_buffer(-1)
            part = data[: len(room)]
            room[: len(part)] = part
            self.buffer_updated(len(part))
            data = data[len(part) :]

    def stop(self) -> None:
        """Whatever still comes is dropped."""
        self._stopped = True

    def read(self, count: int, whole: bool) -> None:
        """The library's parser has read so much of what it was handed, and has it all done or not."""
        self._handed -= count
        if self._handed == 0 and not self._stopped:
            # A message whose beginning is not of the plain form has to be ended by who began it.
            self._all_handed = not whole
            self._go_on()

    # The connection, as asyncio tells of it

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        size = len(self._buffer)
        if size - self._fill < _ROOM_MIN or self._start + self._wanted > size:
            self._make_room()
        return self._view[self._fill :]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what came."""
        self._fill += nbytes
        if self._stopped or (self._handed == 0 and self._fill - self._start >= self._wanted):
            self._go_on()

    def pause_writing(self) -> None:
        """See `asyncio`."""
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio`."""
        self._stream.resume_writing()

    def eof_received(self) -> bool | None:
        """See `asyncio`, which warns of whoever would go on to speak over TLS: that cannot be."""
        goes_on = self._stream.eof_received()
        return goes_on and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio`."""
        self._stream.connection_lost(exc)

    def _make_room(self) -> None:
        left = self._fill - self._start
        needed = max(self._wanted, left + _ROOM_MIN)
        before = self._view
        if needed > len(self._buffer):
            self._buffer = bytearray(min(needed, 2 * len(self._buffer)))
            self._view = memoryview(self._buffer)
        self._view[:left] = before[self._start : self._fill]
        self._start, self._fill = 0, left

    def _go_on(self) -> None:
        if self._stopped:
            self._start = self._fill
        elif self._all_handed:
            self._hand(self._fill)
        else:
            try:
                self._parse()
            except Exception:
                # Nothing would be read any more; the library connects anew after this one.
                log.exception("what the bus sent could not be handled")
                self._stopped = True
                self._reader.set_exception(ProtocolError())
        if self._start == self._fill:
            self._start = self._fill = self._wanted = 0
            if len(self._buffer) > BUFFER_BYTES:
                self._buffer = bytearray(BUFFER_BYTES)
                self._view = memoryview(self._buffer)

    def _parse(self) -> None:
        buffer, view, fill, handlers = self._buffer, self._view, self._fill, self._handlers
        while (start := self._start) < fill:
            block_size = b""
            if buffer[start] == _M:
                match = _MSG.match(buffer, start, fill)
                if match is None:
                    return self._hand_line()
                subject, sid, reply, size = match.groups()
            else:
                match = _HMSG.match(buffer, start, fill)
                if match is None:
                    return self._hand_line()
                subject, sid, reply, block_size, size = match.groups()
            body = match.end()
            end = body + int(size)
            self._wanted = end + len(_END) - start
            if start + self._wanted > fill:
                return None
            handler = handlers.get(int(sid))
            if handler is None:
                return self._hand_message(body)
            headers = _NO_HEADERS
            if block_size:
                block = view[body : body + int(block_size)].tobytes()
                if not block.startswith(_VERSION) or len(block) > int(size):
                    return self._hand_message(body)
                headers = headers_in(block)
                body += len(block)
            self._start += self._wanted
            self._wanted = 0
            handler(subject, reply or b"", view[body:end].tobytes(), headers)
            if self._stopped:
                return None
        return None

    def _hand_line(self) -> None:
        """Hands over the line that is no plain message's, once it has come."""
        end = self._buffer.find(_END, self._start, self._fill)
        if end < 0:
            self._wanted = self._fill - self._start + 1
        else:
            self._hand(end + len(_END))

    def _hand_message(self, body: int) -> None:
        """Hands over the message whose line ends before `body`, with a line that the library can read."""
        line = self._view[self._start : body - len(_END)]
        line[:] = line.tobytes().translate(_NO_OTHER_SPACE)
        self._hand(self._start + self._wanted)

    def _hand(self, end: int) -> None:
        """Hands what stands before `end` to the library, which reads it at the next turn of the loop."""
        handed = self._view[self._start : end].tobytes()
        self._start, self._wanted = end, 0
        self._handed = len(handed)
        if handed:
            self._reader.feed_data(handed)
