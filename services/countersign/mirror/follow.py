"""Follows a log: takes what is new of it into a copy, or says exactly why not.

Of a new checkpoint it believes nothing until
1. a trusted log key signed it, and the quorum of witnesses that the policy asks for;
2. the entries that it adds, put after those of the copy, come to its root. That shows at once that every
   entry is under the signed root and that the new tree grew from the copy's.

If it is not so, the tiles of the log say which it is: a tree that did not grow from the copy's (then both
checkpoints and the proof are kept as evidence), or entries that are not those of the log's own tree.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from countersign.mirror.copy import Copy, Progress, root_of
from countersign.mirror.evidence import Evidence, Seen, contradiction
from countersign.mirror.sources import (
    CannotFollow,
    Source,
    get_checkpoint,
    get_entries,
)
from countersign.mirror.tree import VerifiedTree
from shared import telemetry
from shared.clock import Clock
from shared.errors import Unavailable
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.merkle import leaf_hash
from tlog.policy import Policy
from tlog.tiles import CHECKPOINT_FILE, TILE_WIDTH, TileName

AHEAD_MAX: Final = 8
"""Bundles asked for before they are needed: as many as there are connections."""
BEHIND_TRIES: Final = 4
BEHIND_PAUSE_S: Final = 2.0
"""A cache or a second server may be some seconds behind; longer, and the log has shrunk."""

REASONS: Final = (
    *("NOT_SIGNED", "NO_QUORUM", "OTHER_LOG", "ROLLED_BACK", "FORKED"),
    *("NOT_AS_SIGNED", "NOT_SERVED", "TOO_LARGE", "LOG_UNREACHABLE"),
)
"""Why a pass may take nothing over."""

_size = telemetry.meter.create_gauge(
    "countersign.mirror.size", unit="{entry}", description="Entries of the verified copy"
)
_refusals = telemetry.meter.create_counter(
    "countersign.mirror.refusals", unit="{refusal}", description="Passes that took nothing over"
)


class Forked(CannotFollow):
    """The log shows another history than before, or than elsewhere."""

    def __init__(self, reason: str, message: str, evidence: Evidence) -> None:
        super().__init__(reason, message)
        self.evidence = evidence


@dataclass(frozen=True)
class Followed:
    """What one pass came to."""

    checkpoint: Checkpoint
    added: int
    cosigned: tuple[str, ...]
    """The policy's witnesses that cosigned."""


def judge(note: bytes, policy: Policy, source: str) -> Seen:
    """Take a checkpoint with a trusted signature and a quorum; raises CannotFollow."""
    try:
        judged = policy.judge(note)
    except TlogError as error:
        raise CannotFollow("NOT_SIGNED", f"{source}: {error}") from error
    if not judged.quorum:
        raise CannotFollow("NO_QUORUM", f"{source}: the quorum is not there: {judged.shortfall}")
    return Seen(note.decode(), judged, source)


@dataclass
class Mirror:
    """One log and its copy."""

    source: Source
    copy: Copy
    policy: Policy
    clock: Clock
    pause: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)

    def __post_init__(self) -> None:
        # A counter that begins with its first refusal does not rise in Prometheus' eyes.
        for reason in REASONS:
            _refusals.add(0, {"reason": reason})

    async def follow(self, progress: Progress | None = None) -> Followed:
        """Take over what is new. Raises Forked, CannotFollow, Unavailable; then the copy is as before."""
        try:
            followed = await self._follow(progress)
        except (CannotFollow, Unavailable) as error:
            _refusals.add(1, {"reason": error.reason})
            raise
        _size.set(followed.checkpoint.size)
        return followed

    async def _follow(self, progress: Progress | None) -> Followed:
        seen = await self._newest()
        own = self.copy.checkpoint
        if own is not None and seen.checkpoint.size <= own.size:
            if seen.checkpoint.size < own.size or seen.checkpoint.root != own.root:
                await self._refuse(seen, f"it has {seen.checkpoint.size} entries now")
            if seen.note != self.copy.note:
                await self.copy.commit(seen.note, seen.checkpoint, await self.copy.edge())
            added = 0
        else:
            added = seen.checkpoint.size - self.copy.size
            # What an interrupted pass left is not fetched again; should it be wrong, all is.
            for trust_held in (True, False):
                if await self._grow(seen, progress, trust_held=trust_held):
                    break
            else:
                await self._refuse(seen, "its entries do not come to its root")
        return Followed(seen.checkpoint, added, tuple(seen.judged.cosigned))

    async def _newest(self) -> Seen:
        """The newest checkpoint; one that is older than the copy only after asking a few times."""
        own = self.copy.checkpoint
        for attempt in range(BEHIND_TRIES):
            seen = judge(await get_checkpoint(self.source), self.policy, self.source.name)
            if own is None or seen.checkpoint.size >= own.size:
                break
            if attempt + 1 < BEHIND_TRIES:
                await self.pause(BEHIND_PAUSE_S)
        if own is not None and seen.checkpoint.origin != own.origin:
            raise CannotFollow(
                "OTHER_LOG",
                f"{self.source.name} is {seen.checkpoint.origin}, and the copy is of {own.origin}",
            )
        return seen

    async def _grow(self, seen: Seen, progress: Progress | None, *, trust_held: bool) -> bool:
        """Fetch, write and hash what is new; commit it if it comes to the signed root."""
        checkpoint, edge = seen.checkpoint, await self.copy.edge()
        first = self.copy.size // TILE_WIDTH
        async for number, entries in self._bundles(first, checkpoint.size, trust_held=trust_held):
            leaves = [leaf_hash(entry) for entry in entries]
            if number == first and (held := self.copy.size % TILE_WIDTH):
                if leaves[:held] != edge.partial_tiles[0].rows[0]:
                    return False
                leaves = leaves[held:]
            self.copy.put_bundle(number, entries)
            edge, full = edge.extended(leaves)
            self.copy.put_tiles(full)
            if progress is not None:
                progress(edge.size, checkpoint.size)
        if root_of(edge) != checkpoint.root:
            return False
        await self.copy.commit(seen.note, checkpoint, edge)
        return True

    async def _bundles(
        self, first: int, size: int, *, trust_held: bool
    ) -> AsyncIterator[tuple[int, list[bytes]]]:
        """Bundles in order, some of them fetched ahead."""
        # Named one by one: a log may sign any size, and would fill our memory with names.
        numbers = range(first, -(-size // TILE_WIDTH))
        waiting: list[asyncio.Task[list[bytes]]] = []
        try:
            for number in numbers:
                for ahead in range(number + len(waiting), min(number + AHEAD_MAX, numbers.stop)):
                    name = TileName(None, ahead, min(TILE_WIDTH, size - ahead * TILE_WIDTH))
                    waiting.append(asyncio.create_task(self._bundle(name, trust_held=trust_held)))
                yield number, await waiting.pop(0)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _bundle(self, name: TileName, *, trust_held: bool) -> list[bytes]:
        held = await self.copy.held(name) if trust_held else None
        return await get_entries(self.source, name) if held is None else held

    async def _refuse(self, seen: Seen, what: str) -> None:
        """Find out what is wrong and raise it; keep both checkpoints whenever they are in question."""
        own, note = self.copy.checkpoint, self.copy.note
        if own is None or note is None:
            raise await self._wrong_entries(seen)
        kept = Seen(note, self.policy.judge(note), str(self.copy.folder))
        now = self.clock.now()
        try:
            newer_here = seen.checkpoint.size <= own.size
            newest = own if newer_here else seen.checkpoint
            tree = await VerifiedTree.open(self.copy.source if newer_here else self.source, newest)
            found = await contradiction(kept, seen, tree, now)
        except (CannotFollow, Unavailable) as error:
            unproven = Evidence(
                kept.note, seen.note, kept.source, seen.source, now.isoformat(), str(error)
            )
            raise CannotFollow(
                "NOT_AS_SIGNED",
                f"{self.source.name}: {what}, and nothing shows which tree is signed: {error}; both "
                f"checkpoints are {self._saved(unproven)}",
            ) from error
        if found is not None:
            raise Forked(
                "FORKED",
                f"{self.source.name}: the log signed two histories: {found.why}; the copy keeps the one "
                f"that it has, and both checkpoints and the proof are {self._saved(found)}",
                found,
            )
        if seen.checkpoint.size < own.size:
            raise CannotFollow(
                "ROLLED_BACK",
                f"{self.source.name}: {what}, and the copy has {own.size}, which the log signed: it has "
                "lost entries or hides them",
            )
        raise await self._wrong_entries(seen)

    def _saved(self, evidence: Evidence) -> str:
        """Where the evidence is; a disk that takes none must not silence what it is of."""
        try:
            return f"in {evidence.save(self.copy.evidence)}"
        except OSError as error:
            return f"not saved ({error}): {evidence.older!r} and {evidence.newer!r}"

    async def _wrong_entries(self, seen: Seen) -> CannotFollow:
        """Which bundle is not the one of the log's own tree."""
        tree = await VerifiedTree.open(self.source, seen.checkpoint)
        for number in range(self.copy.size // TILE_WIDTH, -(-tree.checkpoint.size // TILE_WIDTH)):
            await tree.entries(number)
        return CannotFollow(
            "NOT_AS_SIGNED",
            f"{self.source.name}/{CHECKPOINT_FILE}: the entries served did not come to the root; asked "
            "again, they did",
        )
