"""Follows one witness: what it has cosigned, what it is sent next, and what is wrong with it.

A fault never holds up the others: a witness that has one is left alone for a while, and asked again.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.tree import Published
from ledger.witness_client import (
    Alarm,
    Cosignature,
    Cosigned,
    Fault,
    NotConsistent,
    OtherSize,
    Outcome,
    WitnessClient,
    shown,
)
from shared import telemetry
from tlog.errors import TlogError
from tlog.policy import Policy
from tlog.witness_protocol import AddCheckpoint

log = logging.getLogger(__name__)

TRIES_MAX: Final = 3
"""Of one checkpoint: from where we think it is, from where it says it is, and once more if another of our
replicas came between."""
RETRY_S_MAX: Final = 30.0
"""After an outage of a witness, the time until it counts again."""
RETRY_FAULT_S: Final = 60.0
"""Until a person has mended it there is no haste."""
REMIND_S: Final = 600.0
"""An alarm that goes on is logged again."""

_requests = telemetry.meter.create_counter(
    "countersign.ledger.witness.requests",
    unit="{request}",
    description="Checkpoints sent to a witness, by what came of it",
)
_alarms = telemetry.meter.create_gauge(
    "countersign.ledger.witness.alarm",
    description="1 while something is wrong with a witness, by what it is",
)


@dataclass(frozen=True)
class LogView:
    """What a feeder needs of the log."""

    published: Callable[[], Published]
    grown: Callable[[int], Awaitable[Published]]
    """Waits until the log is larger than this."""
    prove: Callable[[int, int], Awaitable[Sequence[bytes]]]
    """Consistency proof between two sizes."""
    root: Callable[[int], Awaitable[bytes]]
    """The root at a size."""
    logs: Policy
    """Knows the log's own keys, and no witness."""


@dataclass(frozen=True)
class SecondHistory:
    """Proof that a key of ours has signed what does not go with this log: a signed note."""

    witness: str
    note: str
    size: int


@dataclass(frozen=True)
class Overtaken:
    """Somebody else has shown the witness a checkpoint of ours that is newer than the one asked for."""


class Follower:
    """One endpoint."""

    def __init__(self, client: WitnessClient, log_view: LogView) -> None:
        self.name = client.endpoint.name
        self.client = client
        self._log = log_view
        self.size = 0
        """What it has cosigned last, as far as we know."""
        self.alarm: Alarm | None = None
        self.detail = ""
        self.proved: SecondHistory | None = None
        self._failures = 0
        self._not_before = 0.0
        self._cosigned_text = ""
        self._cosigned_at = 0.0
        self._reminded_at = 0.0
        for alarm in Alarm:
            _alarms.set(0, {"witness": self.name, "alarm": str(alarm)})

    def due_at(self, text: str, heartbeat_s: float) -> float:
        """When to ask it for a checkpoint, on the monotonic clock."""
        if self.alarm is None and self._cosigned_text == text:
            return self._cosigned_at + heartbeat_s
        return self._not_before

    async def ask(self, published: Published) -> Mapping[str, Cosignature]:
        """Ask for one checkpoint; what goes wrong becomes the alarm."""
        outcome = await self.compare(published)
        now = time.monotonic()
        if isinstance(outcome, Cosigned):
            self.size = published.size
            self._cosigned_text, self._cosigned_at = published.checkpoint.text, now
            self._failures, self._not_before = 0, 0.0
            self._clear()
            _requests.add(1, {"witness": self.name, "outcome": "cosigned"})
            self._warn_of_missing(outcome)
            return outcome.by
        if isinstance(outcome, Overtaken):
            # Anybody may do that: checkpoints are public. The next round asks for the newest.
            _requests.add(1, {"witness": self.name, "outcome": "overtaken"})
            return {}
        fault = outcome if isinstance(outcome, Fault) else Fault(Alarm.ANSWER, "no end of sizes")
        _requests.add(1, {"witness": self.name, "outcome": str(fault.alarm)})
        self._failures += 1
        wait_s = min(2.0 ** min(self._failures - 1, 10), RETRY_S_MAX)
        self._not_before = now + (wait_s if fault.alarm is Alarm.UNREACHABLE else RETRY_FAULT_S)
        if fault.alarm.final:
            self.proved = await self.proof(published.checkpoint.origin) or self.proved
        self._raise(fault)
        return {}

    async def compare(self, published: Published) -> Outcome | Overtaken:
        """Ask for its cosignature on a checkpoint, which it gives when that follows from what it has."""
        outcome: Outcome = OtherSize(None)
        for _ in range(TRIES_MAX):
            # One that was ahead of us is asked again from our own size: its answer is an alarm or not.
            old = min(self.size, published.size)
            proof = await self._log.prove(old, published.size) if 0 < old < published.size else ()
            outcome = await self.client.add_checkpoint(
                AddCheckpoint(old, tuple(proof), published.note)
            )
            if isinstance(outcome, NotConsistent):
                return _refused(old)
            if not isinstance(outcome, OtherSize):
                return outcome
            if outcome.size is not None and (
                published.size < outcome.size <= self._log.published().size
            ):
                self.size = outcome.size
                return Overtaken()
            fault = _contradiction(outcome.size, old, published.size)
            if fault is not None:
                return fault
            assert outcome.size is not None, "without a size it is a contradiction"
            self.size = outcome.size
        return outcome

    async def proof(self, origin: str) -> SecondHistory | None:
        """Give a checkpoint that the witness shows, that we signed and that does not go with our tree.

        What it merely says may be a lie. What our own key has signed is not.
        """
        note = await self.client.newest(origin)
        if note is None:
            return None
        try:
            shown_checkpoint = self._log.logs.judge(note, origin).checkpoint
        except TlogError:
            return None
        size = shown_checkpoint.size
        # With the tree as it is now: the log may have grown since the witness was asked.
        if size > self._log.published().size or shown_checkpoint.root != await self._log.root(size):
            return SecondHistory(self.name, note, size)
        return None

    def _warn_of_missing(self, outcome: Cosigned) -> None:
        missing = [
            shown(one.name) for one in self.client.endpoint.witnesses if one.name not in outcome.by
        ]
        if missing:
            self._raise(Fault(Alarm.ANSWER, f"no valid line of {', '.join(missing)}"))

    def _raise(self, fault: Fault) -> None:
        now = time.monotonic()
        if self.alarm is not fault.alarm:
            self._clear(quietly=True)
            _alarms.set(1, {"witness": self.name, "alarm": str(fault.alarm)})
        elif now < self._reminded_at + REMIND_S:
            return
        self.alarm, self.detail, self._reminded_at = fault.alarm, fault.detail, now
        fields = {"witness": self.name, "alarm": str(fault.alarm), "detail": fault.detail}
        if fault.alarm.final:
            log.critical("witness contradicts our history", extra={"fields": fields})
        elif fault.alarm is Alarm.UNREACHABLE:
            log.warning("witness does not answer", extra={"fields": fields})
        else:
            log.error("witness does not cosign", extra={"fields": fields})

    def _clear(self, *, quietly: bool = False) -> None:
        if self.alarm is None:
            return
        _alarms.set(0, {"witness": self.name, "alarm": str(self.alarm)})
        if not quietly:
            log.warning("witness cosigns again", extra={"fields": {"witness": self.name}})
        self.alarm, self.detail = None, ""


def _refused(old: int) -> Fault:
    """What 422 means: with a proof or of the same size, that it knows another tree of the old size."""
    if old == 0:
        return Fault(Alarm.CONFIGURATION, "it refuses a first checkpoint (422)")
    return Fault(Alarm.HISTORY, f"it knows another tree of size {old} (422)")


def _contradiction(said: int | None, old: int, size: int) -> Fault | None:
    """What is wrong with a 409; None when the number that came with it is to be tried."""
    if said is not None and said > size:
        return Fault(Alarm.AHEAD, f"it has cosigned size {said}, and we have {size} entries")
    if said is not None and said != old:
        return None
    if old == size:
        # tlog-witness up to 1.0.0, and witnesses in use, answer so for "same size, other root".
        return Fault(Alarm.HISTORY, f"it knows another tree of size {size} (409)")
    return Fault(Alarm.ANSWER, "it refuses the size that it asks for (409)")
