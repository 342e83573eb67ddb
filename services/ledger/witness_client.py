"""Asks one witness for its cosignature (C2SP tlog-witness add-checkpoint) and sorts what it answers.

Nothing that a witness says is believed beyond what it signed: a size that it names only decides what is
sent next. Answers are bounded in bytes and time, redirects are not followed, and every status has a
meaning here, also those that differ between the witnesses in use (ledger-format sheet, section 6).
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import aiohttp

from shared import telemetry
from tlog.errors import TlogError
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import Policy, PolicyWitness
from tlog.witness_protocol import AddCheckpoint, monitoring_path, read_cosignature, read_size

ANSWER_BYTES_MAX: Final = 64 * 1024
"""A post-quantum line has 3 kB; nobody signs twenty times."""

_duration = telemetry.meter.create_histogram(
    "countersign.ledger.witness.request.duration",
    unit="s",
    description="From asking a witness until its answer",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


class Alarm(StrEnum):
    """What is wrong with a witness, or with us in its eyes."""

    UNREACHABLE = "unreachable"
    """It does not answer, or says that it cannot now."""
    CONFIGURATION = "configuration"
    """It does not know the log or its key, or the address is not a witness's."""
    ANSWER = "answer"
    """It answers what is no cosignature of its key on what was sent."""
    AHEAD = "ahead"
    """It says that it has cosigned a larger tree than ours."""
    HISTORY = "history"
    """It has cosigned another tree than ours of a size that we had."""

    @property
    def final(self) -> bool:
        """Whether it can mean that two histories were signed."""
        return self in (Alarm.AHEAD, Alarm.HISTORY)


@dataclass(frozen=True)
class Cosignature:
    """A verified signature line."""

    line: str
    time_s: int


@dataclass(frozen=True)
class Cosigned:
    """It cosigned, with each of these witnesses' keys."""

    by: Mapping[str, Cosignature]


@dataclass(frozen=True)
class OtherSize:
    """409: its last checkpoint is not of the size that was sent; it may say of which it is."""

    size: int | None


@dataclass(frozen=True)
class NotConsistent:
    """422: the proof does not lead from its last checkpoint to ours."""


@dataclass(frozen=True)
class Fault:
    """Anything else."""

    alarm: Alarm
    detail: str


Outcome: TypeAlias = Cosigned | OtherSize | NotConsistent | Fault


@dataclass(frozen=True)
class Endpoint:
    """A URL with the witnesses of the policy that answer there."""

    url: str
    witnesses: tuple[PolicyWitness, ...]

    @property
    def name(self) -> str:
        """Their names, for logs and metrics."""
        return "+".join(shown(one.name) for one in self.witnesses)


def shown(name: str) -> str:
    """A policy's name as text that can be written anywhere."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def endpoints(policy: Policy) -> list[Endpoint]:
    """The places to ask, each once; witnesses without a URL are left out."""
    by_url: dict[str, list[PolicyWitness]] = {}
    for one in policy.witnesses.values():
        if one.url is not None:
            by_url.setdefault(one.url.rstrip("/"), []).append(one)
    return [Endpoint(url, tuple(witnesses)) for url, witnesses in by_url.items()]


class WitnessClient:
    """Asks one endpoint."""

    def __init__(
        self, session: "aiohttp.ClientSession", endpoint: Endpoint, timeout_s: float
    ) -> None:
        self.endpoint = endpoint
        self._session = session
        self._timeout_s = timeout_s

    async def add_checkpoint(self, request: AddCheckpoint) -> Outcome:
        """Send one request. Never raises for what the other side does."""
        started = time.perf_counter()
        try:
            status, body = await self._fetch(
                "POST", f"{self.endpoint.url}/add-checkpoint", request.encoded, ANSWER_BYTES_MAX
            )
        except _Failed as failed:
            return failed.fault
        _duration.record(time.perf_counter() - started, {"witness": self.endpoint.name})
        return self._sorted(status, body, request.unverified_note.text)

    async def newest(self, origin: str) -> str | None:
        """Read the newest checkpoint that it shows for a log; None when there is none to be had."""
        url = f"{self.endpoint.url}/{monitoring_path(origin)}"
        try:
            status, body = await self._fetch("GET", url, None, NOTE_BYTES_MAX)
            return body.decode() if status == 200 else None
        except (_Failed, UnicodeDecodeError):
            return None

    async def _fetch(
        self, method: str, url: str, body: bytes | None, bytes_max: int
    ) -> tuple[int, bytes]:
        answer = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers={"Content-Type": "text/plain; charset=utf-8"} if body else None,
                    allow_redirects=False,
                ) as response,
            ):
                async for part in response.content.iter_any():
                    answer += part
                    if len(answer) > bytes_max:
                        raise _Failed(Alarm.ANSWER, f"more than {bytes_max} bytes")
                return response.status, bytes(answer)
        except TimeoutError:
            raise _Failed(Alarm.UNREACHABLE, f"no answer in {self._timeout_s:g} s") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise _Failed(Alarm.CONFIGURATION, "its URL cannot be used") from None
        except aiohttp.ClientConnectorCertificateError:
            raise _Failed(Alarm.CONFIGURATION, "its certificate is not trusted") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Failed(Alarm.UNREACHABLE, type(error).__name__) from None

    def _sorted(self, status: int, body: bytes, checkpoint_text: str) -> Outcome:
        if status == 200:
            return self._cosignatures(body, checkpoint_text)
        if status == 409:
            # Not every witness sets the type of the body, so that only the body tells.
            try:
                return OtherSize(read_size(body.strip(b" \t\r\n")))
            except TlogError:
                return OtherSize(None)
        if status == 422:
            return NotConsistent()
        if status in (408, 425, 429, 502, 503, 504):
            return Fault(Alarm.UNREACHABLE, f"status {status}")
        says = {
            400: "it takes the request for malformed",
            403: "it does not trust our key",
            404: "it does not know our log, or its URL is wrong",
        }
        return Fault(
            Alarm.CONFIGURATION, says.get(status, "not an answer of a witness") + f" ({status})"
        )

    def _cosignatures(self, body: bytes, checkpoint_text: str) -> Outcome:
        """Keep the lines that verify. One that does not sinks only the witness that it names."""
        found: dict[str, Cosignature] = {}
        fault = "no line"
        for witness in self.endpoint.witnesses:
            try:
                line, time_s = read_cosignature(body, checkpoint_text, witness.verifier)
            except TlogError as error:
                fault = str(error)
                continue
            found[witness.name] = Cosignature(line, time_s)
        return Cosigned(found) if found else Fault(Alarm.ANSWER, fault)


class _Failed(Exception):
    """There is no answer to be read."""

    def __init__(self, alarm: Alarm, detail: str) -> None:
        super().__init__(detail)
        self.fault = Fault(alarm, detail)
