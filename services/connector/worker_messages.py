"""What the connector and its worker process say to each other over the worker's pipes.

Each message is a length and that many bytes. The connector sends its settings once as JSON, then one
probe a message. The worker sends JSON only, and the connector reads it as it would read a
stranger's: a worker has looked at hostile pictures. In particular nothing is ever unpickled.
"""

import struct
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from connector.system import Finding, Findings, Refusal

LENGTH = struct.Struct("!I")
"""Precedes every message."""

PROBE_HEADER = struct.Struct("!H")
"""Precedes a probe: how many candidates are wanted."""

REPLY_BYTES_MAX = 256 * 1024
"""Longest reply accepted from a worker: fifty resemblances with long record names, several times."""


class Bounds(Finding):
    """What one search may cost in the worker."""

    memory_bytes: Annotated[int, Field(gt=0)]
    """Address space above what the worker has once its models and gallery are loaded."""
    cpu_s: Annotated[int, Field(gt=0)]
    """CPU seconds for one search."""


class WorkerSettings(Finding):
    """The first message to a worker."""

    gallery: Path
    store: Path
    eye_distance_px_min: float
    bounds: Bounds


class Ready(Finding):
    """The worker can take probes."""

    kind: Literal["ready"] = "ready"
    gallery_size: int
    unusable: int
    loaded_bytes: int
    """Address space in use when the bounds were set."""


class Unusable(Finding):
    """The worker cannot start; the message is for the operator."""

    kind: Literal["unusable"] = "unusable"
    message: Annotated[str, Field(max_length=2000)]


class Decoded(Finding):
    """The picture is decoded; what follows is comparison."""

    kind: Literal["decoded"] = "decoded"


class Found(Finding):
    """The search is done."""

    kind: Literal["found"] = "found"
    findings: Findings


class Refused(Finding):
    """The probe cannot be used."""

    kind: Literal["refused"] = "refused"
    reason: Refusal


class Failed(Finding):
    """The comparison failed; the worker goes on."""

    kind: Literal["failed"] = "failed"


Reply = Ready | Unusable | Decoded | Found | Refused | Failed

_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])


def frame(message: bytes) -> bytes:
    """The message with its length before it."""
    return LENGTH.pack(len(message)) + message


def write_reply(reply: Reply) -> bytes:
    """The reply as a framed message."""
    return frame(reply.model_dump_json().encode())


def read_reply(message: bytes) -> Reply:
    """The reply in a message without its frame; raises ValueError."""
    return _REPLY.validate_json(message)
