"""Watches a log: what concerns an agency, and whether the log still is what it was, here and elsewhere.

Each look
1. takes the newest checkpoint, if a trusted log key and the policy's quorum signed it;
2. compares it with the one of the look before, and with the one that another source shows: of two
   checkpoints of one log the larger tree must have grown from the smaller;
3. reads the entries that are new, each verified under the checkpoint's root;
4. tells how old the newest sign of life is: a quorum's cosignatures, or the newest entry (a heartbeat, when
   nothing else happens).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final

from countersign.mirror.concerns import Concern, concerns, next_promised, recorded_at
from countersign.mirror.evidence import Evidence, Seen, contradiction
from countersign.mirror.follow import BEHIND_PAUSE_S, BEHIND_TRIES, judge
from countersign.mirror.memory import Memory
from countersign.mirror.sources import CannotFollow, Source, get_checkpoint
from countersign.mirror.tree import VerifiedTree
from shared import telemetry
from shared.clock import Clock
from shared.errors import Unavailable
from tlog.errors import TlogError
from tlog.policy import Policy
from tlog.tiles import CHECKPOINT_FILE, TILE_WIDTH
from tlog.witness_protocol import monitoring_path

CLOCKS_DIFFER_S: Final = 300.0
"""A sign of life from further ahead than clocks differ is none."""

_size = telemetry.meter.create_gauge(
    "countersign.monitor.size", unit="{entry}", description="Size of the newest verified checkpoint"
)
_age = telemetry.meter.create_gauge(
    "countersign.monitor.age", unit="s", description="Age of the log's newest sign of life"
)
_alarms = telemetry.meter.create_counter(
    "countersign.monitor.alarms", unit="{alarm}", description="Looks that found something wrong"
)
_concerning = telemetry.meter.create_counter(
    "countersign.monitor.entries", unit="{entry}", description="New entries of the agencies watched"
)


class AlarmKind(Enum):
    """What can be wrong, the worst last; the values are exit codes."""

    NOT_VERIFIED = 1
    UNREACHABLE = 3
    STALE = 4
    ROLLED_BACK = 5
    SPLIT_VIEW = 6


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong."""

    kind: AlarmKind
    what: str
    evidence: Path | None = None


@dataclass
class Look:
    """What one look found."""

    seen: Seen | None = None
    age_s: float | None = None
    new: int = 0
    concerning: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    not_kept: str = ""
    """Why the next run will not know of this look; empty when it will."""

    @property
    def exit_code(self) -> int:
        """That of the worst alarm; 0 without one."""
        return max((alarm.kind.value for alarm in self.alarms), default=0)


@dataclass(frozen=True)
class Watched:
    """What to watch for."""

    agencies: Sequence[str]
    stale_after_s: float
    evidence: Path
    """Folder in which contradictions are kept."""


@dataclass
class Monitor:
    """Looks at one log, and at what another source shows of it."""

    source: Source
    against: Source | None
    policy: Policy
    watched: Watched
    memory: Memory
    clock: Clock
    pause: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)

    def __post_init__(self) -> None:
        # A counter that begins with its first alarm does not rise in Prometheus' eyes.
        for kind in AlarmKind:
            _alarms.add(0, {"kind": kind.name.lower()})

    async def look(self, tell: Callable[[Concern], None]) -> Look:
        """Look once. What is wrong is an alarm in the answer; nothing is raised for it."""
        look = Look()
        try:
            await self._look(look, tell)
        except CannotFollow as error:
            look.alarms.append(Alarm(AlarmKind.NOT_VERIFIED, str(error)))
        except Unavailable as error:
            look.alarms.append(Alarm(AlarmKind.UNREACHABLE, error.message))
        for alarm in look.alarms:
            _alarms.add(1, {"kind": alarm.kind.name.lower()})
        return look

    async def _look(self, look: Look, tell: Callable[[Concern], None]) -> None:
        seen = await self._newest()
        before = self.memory.seen(self.policy)
        if before is not None and not await self._agrees(look, before, seen, is_own=True):
            return
        look.seen = seen
        _size.set(seen.checkpoint.size)
        tree = await VerifiedTree.open(self.source, seen.checkpoint)
        await self._read_new(look, tree, tell)
        await self._judge_age(look, seen, tree)
        try:
            self.memory.keep(seen, seen.checkpoint.size, self.clock.now())
        except OSError as error:
            # A full disk must not end the comparison that follows, nor what watches.
            look.not_kept = f"{self.memory.file}: {error.strerror or error}"
        if self.against is not None:
            other = await self._elsewhere(seen)
            # A view that is ahead may only be a moment ahead.
            for attempt in range(BEHIND_TRIES):
                if seen.checkpoint.size >= other.checkpoint.size or attempt + 1 == BEHIND_TRIES:
                    break
                await self.pause(BEHIND_PAUSE_S)
                seen = await self._newest()
            await self._agrees(look, seen, other, is_own=False)

    async def _newest(self) -> Seen:
        before = self.memory.size
        for attempt in range(BEHIND_TRIES):
            seen = judge(await get_checkpoint(self.source), self.policy, self.source.name)
            if seen.checkpoint.size >= before or attempt + 1 == BEHIND_TRIES:
                break
            await self.pause(BEHIND_PAUSE_S)
        return seen

    async def _elsewhere(self, seen: Seen) -> Seen:
        """What the other source shows: at the top, or where witnesses and mirrors have it by origin."""
        assert self.against is not None
        origin = seen.checkpoint.origin
        try:
            note = await get_checkpoint(self.against)
        except CannotFollow:
            note = await get_checkpoint(self.against, monitoring_path(origin))
        try:
            judged = self.policy.judge(note)
        except TlogError as error:
            raise CannotFollow("NOT_SIGNED", f"{self.against.name}: {error}") from error
        return Seen(note.decode(), judged, self.against.name)

    async def _agrees(self, look: Look, one: Seen, other: Seen, *, is_own: bool) -> bool:
        """Compare two views; add the alarm if they do not agree, or if the log hides what it signed.

        `is_own`: `one` is what the same source showed at the look before, and `other` is newer.
        """
        earlier, now_shown = (one, other) if is_own else (other, one)
        try:
            found = await contradiction(
                one, other, await self._tree_of(one, other), self.clock.now()
            )
        except (CannotFollow, Unavailable) as error:
            # Nothing shows that they agree. The larger one is signed, and the log cannot show its tree, or
            # does not answer for it: whoever hides something may just as well say that it is out of order.
            found, why = None, f"; {error}"
            evidence = Evidence(
                one.note,
                other.note,
                one.source,
                other.source,
                self.clock.now().isoformat(),
                str(error),
            )
            if now_shown.checkpoint.size >= earlier.checkpoint.size:
                if isinstance(error, Unavailable):
                    raise
                look.alarms.append(self._alarm(AlarmKind.NOT_VERIFIED, str(error), evidence))
                return False
        else:
            why = ""
        if found is not None:
            what = f"{one.source} and {other.source}: the log signed two histories: {found.why}"
            look.alarms.append(self._alarm(AlarmKind.SPLIT_VIEW, what, found))
            return False
        if now_shown.checkpoint.size < earlier.checkpoint.size:
            what = (
                f"{now_shown.source} shows {now_shown.checkpoint.size} entries; the log signed "
                f"{earlier.checkpoint.size}, as {earlier.source} has shown{why}"
            )
            evidence = Evidence(
                now_shown.note,
                earlier.note,
                now_shown.source,
                earlier.source,
                self.clock.now().isoformat(),
                what,
            )
            look.alarms.append(self._alarm(AlarmKind.ROLLED_BACK, what, evidence))
            return False
        return True

    def _alarm(self, kind: AlarmKind, what: str, evidence: Evidence) -> Alarm:
        """The alarm with its evidence saved; a disk that takes no evidence must not silence it."""
        try:
            return Alarm(kind, what, evidence.save(self.watched.evidence))
        except OSError as error:
            unsaved = f"{what}; the evidence could not be saved in {self.watched.evidence}: {error}"
            return Alarm(kind, unsaved)

    async def _tree_of(self, one: Seen, other: Seen) -> VerifiedTree | None:
        """The tree of the larger of two checkpoints, from whichever source has its tiles."""
        older, newer = sorted((one, other), key=lambda seen: seen.checkpoint.size)
        if older.checkpoint.size in (0, newer.checkpoint.size):
            return None
        sources = [self.source] if self.against is None else [self.source, self.against]
        sources.sort(key=lambda source: source.name != newer.source)
        failures: list[Exception] = []
        for source in sources:
            try:
                return await VerifiedTree.open(source, newer.checkpoint)
            except (CannotFollow, Unavailable) as error:
                failures.append(error)
        raise failures[0]

    async def _read_new(
        self, look: Look, tree: VerifiedTree, tell: Callable[[Concern], None]
    ) -> None:
        start, size = self.memory.next_index, tree.checkpoint.size
        for number in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
            for index, leaf in enumerate(await tree.entries(number), number * TILE_WIDTH):
                if index < start:
                    continue
                look.new += 1
                for concern in concerns(index, leaf, self.watched.agencies):
                    look.concerning += 1
                    _concerning.add(1)
                    tell(concern)

    def _vouched_for(self, seen: Seen, latest: float) -> Iterator[int]:
        """When a quorum had last cosigned. One witness alone could keep a view alive that the log froze."""
        # A signed time may be any number.
        cosigned = {name: at for name, at in seen.judged.cosigned.items() if at <= latest}
        for time_s in sorted(cosigned.values(), reverse=True):
            if self.policy.satisfied_by([name for name, at in cosigned.items() if at >= time_s]):
                yield time_s

    async def _judge_age(self, look: Look, seen: Seen, tree: VerifiedTree) -> None:
        now = self.clock.now()
        latest = now.timestamp() + CLOCKS_DIFFER_S
        signs = [datetime.fromtimestamp(time_s, UTC) for time_s in self._vouched_for(seen, latest)]
        if self.memory.grown_at is not None:
            signs.append(self.memory.grown_at)
        if self.memory.note is not None and self.memory.size != seen.checkpoint.size:
            signs.append(now)
        promised: datetime | None = None
        if seen.checkpoint.size:
            last = await tree.entries((seen.checkpoint.size - 1) // TILE_WIDTH)
            signs += filter(None, [recorded_at(last[-1])])
            promised = next_promised(last[-1])
        ahead = now + timedelta(seconds=CLOCKS_DIFFER_S)
        believed = [sign for sign in signs if sign <= ahead] or [self.memory.begun_at or now]
        newest = max(believed)
        look.age_s = max(0.0, (now - newest).total_seconds())
        _age.set(look.age_s)
        where = f"{self.source.name}/{CHECKPOINT_FILE}"
        if look.age_s > self.watched.stale_after_s:
            what = (
                f"{where}: the newest sign of life is {look.age_s:.0f} s old, more than "
                f"{self.watched.stale_after_s:g} s"
            )
            look.alarms.append(Alarm(AlarmKind.STALE, what))
        elif promised is not None and promised < now:
            what = f"{where}: the log promised a sign of life before {promised.isoformat()}"
            look.alarms.append(Alarm(AlarmKind.STALE, what))
