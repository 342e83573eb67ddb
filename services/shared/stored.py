"""What a stream holds: looked at, and taken off message by message. Raises the library's errors."""

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import nats.js.errors
from nats.js.client import JetStreamContext

from shared.nats_client import BusClient

_DELETE: Final = "$JS.API.STREAM.MSG.DELETE.{}"


@dataclass(frozen=True)
class Waiting:
    """What a stream holds."""

    messages: int
    oldest: datetime | None
    """When the oldest came; None when there is none."""


class Stored(NamedTuple):
    """One message."""

    sequence: int
    """Its number in the stream."""
    data: bytes


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


async def first_in(
    jetstream: JetStreamContext, stream: str, subject: str, count_max: int
) -> list[Stored]:
    """The oldest messages on a subject."""
    found: list[Stored] = []
    after = 0
    with contextlib.suppress(nats.js.errors.NotFoundError):
        while len(found) < count_max:
            message = await jetstream.get_msg(stream, seq=after + 1, subject=subject, next=True)
            after = int(message.seq or 0)
            found.append(Stored(after, bytes(message.data or b"")))
    return found


async def subject_in(jetstream: JetStreamContext, stream: str, sequence: int) -> str | None:
    """Of a message that it holds, None when it holds it no more."""
    try:
        return (await jetstream.get_msg(stream, seq=sequence)).subject
    except nats.js.errors.NotFoundError:
        return None


async def delete_in(
    client: BusClient, jetstream: JetStreamContext, stream: str, sequence: int, timeout_s: float
) -> None:
    """Takes one message off, if it is there. Raises Forbidden, too."""
    # Not nats-py's, which has the server write noise over the message: answers are sealed, and whoever fills
    # a stream with others would have the server do more for each of them than it costs him.
    what = json.dumps({"seq": sequence, "no_erase": True}).encode()
    reply = await client.ask_if_allowed(_DELETE.format(stream), what, timeout_s)
    said = json.loads(reply.data)
    # That it is there no more, the server says in several ways.
    if "error" in said and await subject_in(jetstream, stream, sequence) is not None:
        raise nats.js.errors.APIError.from_error(said["error"])


async def may_delete_in(client: BusClient, stream: str, timeout_s: float) -> None:
    """Raises Forbidden when this process may take nothing off."""
    # The server refuses a request that names no message, and touches nothing.
    await client.ask_if_allowed(_DELETE.format(stream), b"", timeout_s)
