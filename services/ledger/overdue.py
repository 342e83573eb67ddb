"""Tells how many duties are open and how many overdue, so that a term that passes is noticed."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Observation

from ledger.index_process import START_AFTER_S, IndexProcess
from ledger.questions import OpenDuties
from ledger.sequencer import Sequencer
from shared import telemetry
from shared.clock import Clock, stamp
from shared.entry_facts import micros
from shared.errors import ServiceError
from shared.obligations import OBLIGATION_KINDS

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 60.0
"""Terms are hours and days; a look at a million entries with as many duties took 0.08 s of a processor."""


class DutyWatch:
    """Asks the query index again and again."""

    def __init__(self, sequencer: Sequencer, index: IndexProcess, clock: Clock) -> None:
        self._sequencer = sequencer
        self._index = index
        self._clock = clock
        self.found: list[OpenDuties] = []
        """At the last look; nothing before the first, so that no figure jumps at a start."""
        _observed.add(self)

    async def run(self) -> None:
        """Look until cancelled; not before the index would start by itself, which nobody waits for."""
        await asyncio.sleep(START_AFTER_S)
        while True:
            try:
                await self.look()
            except ServiceError as error:
                fields = {"fields": {"reason": error.reason}}
                log.warning("duties are not counted yet", extra=fields)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Count once. Raises ServiceError, and what was found before stands."""
        now_us = micros(stamp(self._clock.now()))
        found = await self._index.duties(self._sequencer.published.size, now_us)
        # The closed list and no others: an entry of another release may bear whatever it likes.
        none = {kind: OpenDuties(kind, 0, 0) for kind in sorted(OBLIGATION_KINDS)}
        self.found = list((none | {one.kind: one for one in found if one.kind in none}).values())


# Gauges are the process's, and the first callbacks that one was made with are asked for ever.
_observed: Final[WeakSet[DutyWatch]] = WeakSet()


def _open(_: CallbackOptions) -> Iterator[Observation]:
    for watch in _observed:
        for one in watch.found:
            yield Observation(one.open, {"kind": one.kind})


def _overdue(_: CallbackOptions) -> Iterator[Observation]:
    for watch in _observed:
        for one in watch.found:
            yield Observation(one.overdue, {"kind": one.kind})


telemetry.meter.create_observable_gauge(
    "countersign.ledger.obligations.open",
    [_open],
    unit="{obligation}",
    description="Duties of recorded decisions of which no entry says that they were done",
)
telemetry.meter.create_observable_gauge(
    "countersign.ledger.obligations.overdue",
    [_overdue],
    unit="{obligation}",
    description="Open duties whose term is past",
)
