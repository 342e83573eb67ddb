"""What stands between a tree and its signature: a log that signs two histories is worth nothing.

Every batch is hashed a second time here, from the bytes that the database gives back, into a tree of this
module's own; what is signed must be what both came to, must follow from what was signed last, and must be
later than it. What was signed last is remembered outside the database (`ledger.last_signed`), so that a
database from yesterday, a replica that missed the last commits, and a second writer are all noticed.

A refusal is either for now (the clock, witnesses that have to be heard first), or until a person has
looked: then nothing is signed any more.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.history import Leaves, Peaks, followed
from ledger.last_signed import LastSigned, RecordDamaged, Signed, SigningRefused, recorded, unusable
from shared import telemetry
from shared.clock import Clock
from tlog.errors import TlogError
from tlog.merkle import verify_consistency

log = logging.getLogger(__name__)

CLOCK_SLACK_US: Final = 2_000_000
"""Clocks are stepped by less in normal operation; within it, the time of the last signature is used again."""

_refusals = telemetry.meter.create_counter(
    "countersign.ledger.signing_refused",
    unit="{refusal}",
    description="Signatures that a guard refused, by reason",
)
_signing = telemetry.meter.create_gauge(
    "countersign.ledger.signing", description="1 while the log signs, 0 while a guard refuses"
)
_size = telemetry.meter.create_gauge(
    "countersign.ledger.size", unit="{entry}", description="Entries under the newest checkpoint"
)
_signed_at = telemetry.meter.create_gauge(
    "countersign.ledger.checkpoint.time",
    unit="s",
    description="When the newest checkpoint was signed, in seconds since 1970",
)


@dataclass(frozen=True)
class Tree:
    """A tree that is to be signed, with the proof that it follows from the one signed before."""

    size: int
    root: bytes
    consistency: Sequence[bytes]


class Guard:
    """Says what may be signed. After `take_up` used by the writer's thread alone, but where it says so."""

    def __init__(self, origin: str, vkeys: Sequence[str], store: LastSigned, clock: Clock) -> None:
        self._origin = origin
        self._vkeys = tuple(map(recorded, vkeys))
        self._store = store
        self._clock = clock
        self._announcement: bytes | None = None
        self._last = Signed(origin)
        self._found: Signed | None = None
        self._waits: SigningRefused | None = None
        self._lock = threading.Lock()
        self._refused: SigningRefused | None = None

    @property
    def refused(self) -> SigningRefused | None:
        """Why nothing is signed until a person has looked; None while the log signs."""
        return self._refused

    @property
    def last(self) -> Signed:
        """What was signed last."""
        return self._last

    def announce(self, leaf: bytes) -> None:
        """Name the entry that tells of changed keys. The record has the keys before until it is signed for,
        so that a start announces them again whatever came between. Any thread may call this."""
        self._announcement = leaf

    def refuse(self, refusal: SigningRefused) -> None:
        """Sign nothing more, and say why, loudly. The first reason stays. Any thread may call this."""
        with self._lock:
            first = self._refused is None
            self._refused = self._refused or refusal
        _alarm(refusal)
        if first:
            _signing.set(0)

    def take_up(self, size: int, root: bytes, leaves: Leaves) -> None:
        """Compare the database's tree with what was signed last. Raises SigningRefused.

        1. A database that is behind the record has lost entries that were vouched for.
        2. One that is ahead was stopped between its commit and the record, by one batch: its entries are
           hashed on from the record's tree, and must come to the root that the database has.
        3. One of the same size has the same root.

        The record stays as it is until `settle`.
        """
        try:
            self._found, self._last = self._taken_up(size, root, leaves)
        except OSError as error:
            raise unusable(self._store.where, error) from error

    def doubt(self, batch_max: int) -> str | None:
        """Say why the record does not vouch for the database by itself; None when it does.

        A process that ended between commit and record leaves it behind by one batch, not by more.
        """
        if self._found is None:
            return f"{self._store.where} does not know of any signature"
        behind = self._last.size - self._found.size
        if behind > batch_max:
            return f"{self._store.where} is {behind} entries behind the database"
        return None

    def wait(self, refusal: SigningRefused) -> None:
        """Sign nothing until `settle`, and say why."""
        if self._waits is None:
            _alarm(refusal)
        self._waits = refusal
        _signing.set(0)

    def settle(self) -> None:
        """Let it sign, with the record as it was taken up. Raises SigningRefused."""
        try:
            if self._found != self._last:
                self._store.swap(self._found, self._last)
        except OSError as error:
            raise unusable(self._store.where, error) from error
        self._found, self._waits = self._last, None
        _tell_of(self._last)
        if self._refused is None:
            _signing.set(1)

    def _taken_up(self, size: int, root: bytes, leaves: Leaves) -> tuple[Signed | None, Signed]:
        """Give the record as found, and as it is to be."""
        try:
            last = self._store.read()
        except RecordDamaged as damage:
            # A crash in the middle of the record's write, which comes after the commit, leaves the record
            # of the batch before. Any other damage must not pass for that.
            if damage.survivor is None or size <= damage.survivor.size:
                raise
            last = damage.survivor
        if last is None and size > 0:
            raise SigningRefused(
                "LAST_SIGNED_MISSING",
                f"the database has {size} entries, and {self._store.where} does not say what was "
                "signed last: this may be an old copy. Put the record back in its place; if "
                "there never was one, and it is certain that nothing beyond was signed: "
                f"`countersign-ledger adopt CONFIG --size {size}`",
            )
        if last is not None and last.origin != self._origin:
            raise SigningRefused(
                "LAST_SIGNED_OF_ANOTHER",
                f"{self._store.where} is of the log {last.origin}, not of {self._origin}",
            )
        if last is not None and last.ended:
            raise SigningRefused("LOG_ENDED", last.ended)
        first = last or Signed(self._origin)
        peaks = followed(first, size, root, leaves, self._store.where)
        # The time stays: what came after it was signed by a clock that is not known to be right.
        return last, replace(first, size=size, root=root, peaks=peaks.hashes)

    def obstacle(self) -> SigningRefused | None:
        """Say why nothing could be signed at this moment; None when it could."""
        try:
            self._due()
        except SigningRefused as refusal:
            return self._refused or self._waits or refusal
        return self._refused or self._waits

    # Before each signature, on the writer's thread.

    def examine(self, stored: Sequence[bytes], tree: Tree) -> Signed:
        """Give the record of a tree that may be signed; raises SigningRefused.

        `stored` are the batch's entries as the database gives them back.
        """
        if (refusal := self._refused or self._waits) is not None:
            raise refusal
        last = self._last
        peaks = Peaks(last.size, last.peaks).grown(stored)
        if (peaks.size, peaks.root) != (tree.size, tree.root):
            raise self._stops(
                "LEDGER_HASHES_DISAGREE",
                "two ways of hashing the stored entries came to different roots: memory or disk "
                "of this machine cannot be trusted. Nothing was signed. Run `countersign-ledger "
                "check`, and test the machine",
            )
        if last.size:
            try:
                verify_consistency(last.size, tree.size, last.root, tree.root, tree.consistency)
            except TlogError as error:
                raise self._stops(
                    "LEDGER_HASHES_DISAGREE",
                    f"the new tree does not follow from the one that was signed last: {error}. "
                    "Nothing was signed. Run `countersign-ledger check`, and test the machine",
                ) from error
        time_us = self._due()
        try:
            found = self._store.read()
        except OSError as error:
            raise unusable(self._store.where, error) from error
        if found != last:
            raise self._stops(
                "SIGNED_ELSEWHERE",
                f"{self._store.where} is no longer as this process left it: somebody else signs "
                "for this log. Stop all writers, and start the one whose database has the size "
                "in that record",
            )
        vkeys = self._announced(stored)
        return Signed(self._origin, tree.size, tree.root, time_us, peaks=peaks.hashes, vkeys=vkeys)

    def _announced(self, stored: Sequence[bytes]) -> tuple[str, ...]:
        """Give the keys that the log has told of with these entries; a first signature tells of its own."""
        known = self._last.vkeys
        if not known or known == self._vkeys or self._announcement in stored:
            return self._vkeys
        return known

    def record(self, following: Signed) -> None:
        """Remember what was signed, durably, before it is let out; raises SigningRefused or OSError."""
        try:
            self._store.swap(self._last, following)
        except SigningRefused as refusal:
            self.refuse(refusal)
            raise
        self._last = following
        _tell_of(following)

    def close(self) -> None:
        """Let go of the record."""
        self._store.close()

    def _stops(self, reason: str, message: str) -> SigningRefused:
        refusal = SigningRefused(reason, message)
        self.refuse(refusal)
        return refusal

    def _due(self) -> int:
        """Give the time of the next signature, which is never before the last; raises SigningRefused."""
        now, last = self._now_us(), self._last.time_us
        if now < last - CLOCK_SLACK_US:
            refusal = SigningRefused(
                "CLOCK_WENT_BACK",
                f"this machine's clock is {(last - now) / 1e6:.0f} s before the last signature. "
                "Nothing is signed until it has passed that time: set the clock right (or wait, "
                "if it is right now and was ahead)",
            )
            _alarm(refusal)
            raise refusal
        return max(now, last)

    def _now_us(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000)


def _tell_of(signed: Signed) -> None:
    _size.set(signed.size)
    if signed.time_us:  # a log that never signed has no age
        _signed_at.set(signed.time_us / 1e6)


def _alarm(refusal: SigningRefused) -> None:
    _refusals.add(1, {"reason": refusal.reason})
    log.error(
        "refusing to sign", extra={"fields": {"reason": refusal.reason, "why": refusal.message}}
    )
