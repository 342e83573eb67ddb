"""What our parser of the bus reads is what nats-py's own reads, however the bytes are cut."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError, UnexpectedEOF
from nats.protocol.parser import Parser

from shared import nats_frames
from shared.nats_client import BusClient
from shared.nats_frames import Frames, Handler

OURS: Final = (1, 2, 30)
"""The subscriptions with a handler; the library has the others."""
TURNS_AT_THE_END: Final = 100
Event = tuple[object, ...]

words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=12
)
payloads = st.binary(max_size=200) | st.sampled_from(
    [b"", b"\r\n", b"PING\r\n", b"MSG a 1 2\r\nhi\r\n", b"5\r\n", b"\r\nMSG a 1 9\r\n", b"x" * 3000]
)
names = st.sampled_from(
    ["Countersign-Deadline", "Nats-Service-Error-Code", "traceparent", "Nats-Msg-Id", "Other", "Ö"]
)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
header_lines = st.lists(
    st.tuples(names, st.sampled_from([": ", ":", " : ", ""]), values).map("".join), max_size=4
).map(lambda lines: "".join(f"{line}\r\n" for line in lines))
blocks = header_lines.map(lambda lines: f"NATS/1.0\r\n{lines}\r\n".encode())
statuses = st.sampled_from(
    [b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"]
) | header_lines.map(lambda lines: f"NATS/1.0 100 Idle Heartbeat\r\n{lines}\r\n".encode())
lines = st.sampled_from(
    [
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b"-ERR 'Permissions Violation'\r\n",
        b'INFO {"a": 1}\r\n',
    ]
)
broken = st.sampled_from(
    [
        b"FOO\r\n",
        b"MSG a x 5\r\n",
        b"MSG a 1 5x\r\n",
        b"HMSG a 1 5\r\n",
        b"MSG a\r\n",
        b"mSG a 1 1\r\n",
    ]
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message, in the form of nats-server or in another that the protocol allows."""
    space = draw(st.sampled_from([" "] * 8 + ["  ", "\t"]))
    sid = str(draw(st.sampled_from([*OURS, 4, 5])))
    parts = [draw(words), sid, *draw(st.lists(words, max_size=1))]
    payload = draw(payloads)
    if draw(st.booleans()):
        block = draw(blocks | statuses)
        parts = ["HMSG", *parts, str(len(block)), str(len(block) + len(payload))]
        payload = block + payload
    else:
        parts = ["MSG", *parts, str(len(payload))]
    return space.join(parts).encode() + b"\r\n" + payload + b"\r\n"


frames = st.lists(messages() | messages() | lines, max_size=8)


class Told:
    """Notes what a parser says; for nats-py's own parser it is the client."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        read = await Client()._process_headers(headers)
        self.events.append((sid, subject, reply, data, read or {}))

    async def _process_ping(self) -> None:
        self.events.append(("ping",))

    async def _process_pong(self) -> None:
        self.events.append(("pong",))

    async def _process_err(self, err_msg: str) -> None:
        self.events.append(("error", err_msg))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.events.append(("info", info))

    async def _process_op_err(self, e: Exception) -> None:
        self.events.append((type(e),))


class OurClient(Told, BusClient):
    """Notes the same."""

    def __init__(self) -> None:
        super().__init__()
        for sid in OURS:
            self._handlers[sid] = self._noting(sid)

    def _noting(self, sid: int) -> Handler:
        def note(subject: bytes, reply: bytes, data: bytes, headers: Mapping[str, str]) -> None:
            self.events.append((sid, subject, reply, data, headers))

        return note

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        kind = BusClient if sid in OURS else Told
        await kind._process_msg(self, sid, subject, reply, data, headers)


class Wire(asyncio.Transport):
    """What TLS would be: it hands bytes to its protocol."""

    def __init__(self, reader: asyncio.StreamReader, **extra: object) -> None:
        super().__init__(extra)
        self.reader = reader
        self._protocol: asyncio.BaseProtocol = asyncio.StreamReaderProtocol(reader)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return True

    def carry(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)
            return
        assert isinstance(protocol, asyncio.BufferedProtocol)
        while data:
            room = memoryview(protocol.get_buffer(-1))
            part = data[: len(room)]
            room[: len(part)] = part
            protocol.buffer_updated(len(part))
            data = data[len(part) :]

    def end(self) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        protocol.eof_received()


async def read_by_the_library(chunks: list[bytes]) -> list[Event]:
    told = Told()
    parser = Parser(told)
    try:
        for chunk in chunks:
            await parser.parse(chunk)
    except ProtocolError:
        told.events.append((ProtocolError,))
    return told.events


async def read_by_us(chunks: list[bytes], turns: int, early: int = 0) -> list[Event]:
    """`turns` of the event loop pass between two chunks; `early` of these come before we read at all."""
    client = OurClient()
    loop = asyncio.get_running_loop()
    wire = Wire(asyncio.StreamReader())
    link = TcpTransport()  # type: ignore[no-untyped-call]  # NATS's
    link._io_reader = wire.reader
    link._io_writer = asyncio.StreamWriter(wire, wire.get_protocol(), wire.reader, loop)
    client._transport = link
    client._error_cb = ignored
    for chunk in chunks[:early]:
        wire.carry(chunk)
    reading = loop.create_task(client._read_loop())
    await asyncio.sleep(0)
    for chunk in chunks[early:]:
        wire.carry(chunk)
        for _ in range(turns):
            await asyncio.sleep(0)
    # What the library was handed it reads at later turns, one frame at each.
    for _ in range(TURNS_AT_THE_END):
        await asyncio.sleep(0)
    wire.end()
    await reading
    return [event for event in client.events if event != (UnexpectedEOF,)]


FramesOf = Callable[[Mapping[int, Handler]], tuple[Frames, Wire]]


@pytest.fixture
async def frames_of() -> FramesOf:
    """Makes a parser and what feeds it."""

    def make(handlers: Mapping[int, Handler]) -> tuple[Frames, Wire]:
        wire = Wire(asyncio.StreamReader())
        made = Frames(wire, wire.reader, handlers)
        made.begin()
        return made, wire

    return make


async def test_a_connection_over_tls_that_the_server_ends_is_not_held_open() -> None:
    plain, over_tls = (
        Frames(wire, wire.reader, {})
        for wire in (
            Wire(asyncio.StreamReader()),
            Wire(asyncio.StreamReader(), sslcontext=object()),
        )
    )
    assert (plain.eof_received(), over_tls.eof_received()) == (True, False)


async def ignored(_: Exception) -> None:
    return None


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(stream) + 1) for place in at), len(stream)]
    return [stream[a:b] for a, b in pairwise(places) if a < b]


@contextlib.contextmanager
def tight_buffer() -> Iterator[None]:
    """So small that most messages overflow it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nats_frames, "BUFFER_BYTES", 128)
        patch.setattr(nats_frames, "_ROOM_MIN", 16)
        yield


@given(frames, st.lists(st.integers(0, 100_000), max_size=12), st.integers(0, 2), st.integers(0, 3))
def test_we_read_what_the_library_reads(
    sent: list[bytes], at: list[int], turns: int, early: int
) -> None:
    chunks = cut(b"".join(sent), at)

    async def both() -> None:
        expected = await read_by_the_library(chunks)
        assert len(expected) == sum(frame != b"+OK\r\n" for frame in sent)
        with tight_buffer():
            assert await read_by_us(chunks, turns, early) == expected

    asyncio.run(both())


@given(
    frames,
    broken,
    frames.map(lambda after: after[:1]),
    st.lists(st.integers(0, 100_000), max_size=12),
    st.integers(0, 2),
)
def test_what_is_no_frame_ends_the_connection_after_what_came_before_it(
    sent: list[bytes], garbage: bytes, after: list[bytes], at: list[int], turns: int
) -> None:
    """Little comes after it: of a line with 4 kB behind it the library says nothing, and waits for more."""
    chunks = cut(b"".join([*sent, garbage, *after]), at)

    async def both() -> None:
        expected = await read_by_the_library([b"".join(sent)])
        with tight_buffer():
            assert await read_by_us(chunks, turns) == [*expected, (ProtocolError,)]

    asyncio.run(both())


@pytest.mark.parametrize("sid", [1, 4])
@pytest.mark.parametrize("piece", [1000, 16_384, 5_000_000])
async def test_messages_larger_than_the_buffer_arrive_whole(sid: int, piece: int) -> None:
    data = bytes(range(256)) * 4096
    stream = (b"MSG a %d r %d\r\n%b\r\n" % (sid, len(data), data)) * 2 + b"MSG a 2 1\r\n.\r\n"
    chunks = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    large: Event = (sid, b"a", b"r", data, {})
    expected = [large, large, (2, b"a", b"", b".", {})]
    assert await read_by_us(chunks, 1) == expected


async def test_announcement_of_a_large_message_takes_no_room(frames_of: FramesOf) -> None:
    made, wire = frames_of({})
    wire.carry(b"MSG a 1 999999999\r\n.")
    assert len(made.get_buffer(-1)) < 4 * nats_frames.BUFFER_BYTES


async def test_buffer_that_had_to_grow_is_given_back(frames_of: FramesOf) -> None:
    data = bytes(4 * nats_frames.BUFFER_BYTES)
    made, wire = frames_of({1: lambda *_: None})
    wire.carry(b"MSG a 1 %d\r\n%b\r\n" % (len(data), data))
    assert len(made.get_buffer(-1)) == nats_frames.BUFFER_BYTES


async def test_mistake_of_ours_ends_the_connection_and_nothing_after_it_is_handled(
    caplog: pytest.LogCaptureFixture, frames_of: FramesOf
) -> None:
    called: list[bytes] = []

    def fails(_: bytes, __: bytes, data: bytes, ___: Mapping[str, str]) -> None:
        called.append(data)
        raise ValueError

    _, wire = frames_of({1: fails})
    wire.carry(b"MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n")
    wire.carry(b"MSG a 1 1\r\n3\r\n")
    reader = wire.reader
    with pytest.raises(ProtocolError):
        await reader.read()
    assert called == [b"1"]
    assert "what the bus sent could not be handled" in caplog.text


async def test_what_an_abandoned_connection_still_brings_is_dropped(frames_of: FramesOf) -> None:
    called: list[bytes] = []
    made, wire = frames_of({1: lambda _, __, data, ___: called.append(data)})
    wire.carry(b"MSG a 1 1\r\n1\r\nMSG a 1 1\r\n")
    made.stop()
    wire.carry(b"2\r\nMSG a 1 1\r\n3\r\n")
    assert called == [b"1"]


async def test_abandoned_connection_is_not_kept_though_the_library_never_reads(
    frames_of: FramesOf,
) -> None:
    made, wire = frames_of({})
    wire.carry(b"PING\r\n")
    made.stop()
    for _ in range(8):
        wire.carry(bytes(nats_frames.BUFFER_BYTES))
    assert len(made.get_buffer(-1)) == nats_frames.BUFFER_BYTES
