"""Has witnesses cosign the newest checkpoint, and holds it back until they make a quorum.

Invariants:
- nothing here is in the way of an append: the feeder only reads what is published;
- a line counts only after it verified against its witness's key in the policy;
- a checkpoint with a quorum is shown only after it is on disk, and never replaced by a smaller one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.cosigned import CosignedFile, CosignedNote
from ledger.tree import Published
from ledger.witness_client import Cosignature
from ledger.witness_follower import Follower, LogView, SecondHistory
from shared import telemetry
from shared.errors import ServiceError
from tlog.errors import TlogError
from tlog.policy import Policy

log = logging.getLogger(__name__)

LOOK_S_MAX: Final = 5.0
"""How old the state of the quorum in health and metrics may be."""
HEARTBEATS_FRESH: Final = 2
"""A witness that has been silent for longer is not counted as being there."""
PAUSE_S_MIN: Final = 0.02
"""Between two looks at what is due, whatever the times say: a bound on a loop that finds nothing."""

_size = telemetry.meter.create_gauge(
    "countersign.ledger.cosigned.size",
    unit="{entry}",
    description="Size of the newest checkpoint with a quorum",
)
_age = telemetry.meter.create_gauge(
    "countersign.ledger.cosigned.age",
    unit="s",
    description="Since a quorum of witnesses last cosigned what was the newest checkpoint then",
)


@dataclass(frozen=True)
class Times:
    """When what is done."""

    interval_s: float = 1.0
    """Between two checkpoints that witnesses are asked to cosign."""
    heartbeat_s: float = 60.0
    """After which an unchanged checkpoint is cosigned afresh."""
    alarm_after_s: float = 120.0
    """Without a quorum: an alarm."""
    unhealthy_after_s: float = 300.0
    """Without a quorum: the health check of the witnesses fails."""


class Witnessing:
    """Feeds the witnesses of a policy."""

    def __init__(
        self,
        policy: Policy,
        followers: Sequence[Follower],
        store: CosignedFile,
        log_view: LogView,
        times: Times,
    ) -> None:
        self.policy = policy
        self.followers = tuple(followers)
        self._store = store
        self._log = log_view
        self._times = times
        self._cosigned: CosignedNote | None = None
        self._changed = asyncio.Event()
        self._gathered: CosignedNote | None = None
        self._text = ""
        self._lines: dict[str, Cosignature] = {}
        self._received: dict[str, float] = {}
        self._round_at = 0.0
        self._quorum_at = time.monotonic()
        self._alarmed = False
        self._told: dict[str, bool] = {}
        self._proved: set[str] = set()
        self.on_health: Callable[[str, bool], None] = lambda _, __: None
        """Told on the loop when "witnesses" as a whole, or "witness/" and a name, become well or unwell."""
        self.on_second_history: Callable[[SecondHistory], None] = lambda _: None
        """Told once of each witness that shows what our key has signed and our tree contradicts."""

    @property
    def cosigned(self) -> CosignedNote | None:
        """The newest checkpoint with a quorum; None until there is one."""
        return self._cosigned

    @property
    def gathered(self) -> CosignedNote | None:
        """The checkpoint that witnesses were asked for last, with what they gave; it may lack a quorum."""
        return self._gathered

    async def wait_for(self, size: int, timeout_s: float) -> CosignedNote | None:
        """Wait until a checkpoint of at least this size has a quorum; None when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self._changed
                    if self._cosigned is not None and self._cosigned.size >= size:
                        return self._cosigned
                    await changed.wait()
        except TimeoutError:
            return None

    async def take_up(self) -> None:
        """Go on from what was kept, if it is of this log as it is. Raises OSError."""
        try:
            kept = await asyncio.to_thread(self._store.load, self.policy)
        except TlogError as error:
            fields = {"file": str(self._store.path), "why": str(error)}
            log.error("kept checkpoint is not used", extra={"fields": fields})
            return
        if kept is None or not kept.quorum:
            return
        size = self._log.published().size
        if kept.size > size or kept.checkpoint.root != await self._log.root(kept.size):
            self._tell_of(SecondHistory("the kept checkpoint", kept.note, kept.size))
            return
        self._cosigned = kept
        _size.set(kept.size)

    async def run(self) -> None:
        """Feed the witnesses until cancelled."""
        while True:
            try:
                await self._wait()
                await self._round()
            except (ServiceError, TlogError, OSError) as error:
                why = {"error": type(error).__name__}
                log.error("witnesses were not asked", extra={"fields": why}, exc_info=error)
            except Exception:
                log.exception("witnesses were not asked, for a reason that nobody foresaw")

    async def _wait(self) -> None:
        """Wait until a witness is due, or the log has grown; not longer than the state may be old."""
        published, now = self._log.published(), time.monotonic()
        due = min((self._due_at(one, published) for one in self.followers), default=float("inf"))
        if published.checkpoint.text == self._text and now < due:
            wait_s = max(PAUSE_S_MIN, min(due - now, LOOK_S_MAX))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._log.grown(published.size)
        rest_s = self._round_at + self._times.interval_s - time.monotonic()
        await asyncio.sleep(max(PAUSE_S_MIN, rest_s))

    def _due_at(self, follower: Follower, published: Published) -> float:
        return follower.due_at(published.checkpoint.text, self._times.heartbeat_s)

    async def _round(self) -> None:
        """Ask everybody who is due for the newest checkpoint, all at once."""
        now = self._round_at = time.monotonic()
        published = self._log.published()
        if published.checkpoint.text != self._text:
            self._text, self._lines = published.checkpoint.text, {}
            await self._take(published, {})
        due = [one for one in self.followers if self._due_at(one, published) <= now]
        asked = [asyncio.create_task(one.ask(published)) for one in due]
        try:
            for answer in asyncio.as_completed(asked):
                await self._take(published, await answer)
        finally:
            for task in asked:
                task.cancel()
            self._look()

    async def _take(self, published: Published, lines: Mapping[str, Cosignature]) -> None:
        """Add lines; when they make a quorum, keep the checkpoint with them and then show it."""
        now = time.monotonic()
        self._lines |= lines
        self._received |= dict.fromkeys(lines, now)
        ordered = [self._lines[name] for name in self.policy.witnesses if name in self._lines]
        note = published.note + "".join(one.line for one in ordered)
        # All is judged once more as a reader would: what is shown must be good for others.
        gathered = CosignedNote.judged(note, self.policy)
        self._gathered = gathered
        if not gathered.quorum:
            return
        if self._cosigned is not None and gathered.size < self._cosigned.size:
            return
        await asyncio.to_thread(self._store.save, note)
        self._cosigned = gathered
        # Lines of witnesses that have gone since are good, but do not say that there is a quorum now.
        fresh_since = now - HEARTBEATS_FRESH * self._times.heartbeat_s
        if self.policy.satisfied_by([n for n, at in self._received.items() if at >= fresh_since]):
            self._quorum_at = now
        _size.set(gathered.size)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _look(self) -> None:
        """Tell health, metrics and log how things stand."""
        asks_for_none = self.policy.satisfied_by(())
        age_s = 0.0 if asks_for_none else time.monotonic() - self._quorum_at
        _age.set(age_s)
        alarmed = age_s > self._times.alarm_after_s
        if alarmed != self._alarmed:
            self._alarmed = alarmed
            if alarmed:
                lacking = "" if self._gathered is None else self._gathered.lacking
                fields = {"age_s": round(age_s), "lacking": lacking}
                log.error("no quorum of witnesses", extra={"fields": fields})
            else:
                log.warning("quorum of witnesses again")
        self._tell("witnesses", age_s <= self._times.unhealthy_after_s)
        for one in self.followers:
            self._tell(f"witness/{one.name}", one.alarm is None)
            if one.proved is not None and one.name not in self._proved:
                self._proved.add(one.name)
                self._tell_of(one.proved)

    def _tell(self, name: str, well: bool) -> None:
        if self._told.get(name) is not well:
            self._told[name] = well
            self.on_health(name, well)

    def _tell_of(self, proof: SecondHistory) -> None:
        fields = {"from": proof.witness, "size": proof.size, "note": proof.note}
        log.critical("our key has signed a second history", extra={"fields": fields})
        self.on_second_history(proof)


@contextlib.asynccontextmanager
async def feeding(witnessing: Witnessing) -> AsyncIterator[Witnessing]:
    """The feeder while the context lasts."""
    await witnessing.take_up()
    task = asyncio.create_task(witnessing.run())
    try:
        yield witnessing
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
