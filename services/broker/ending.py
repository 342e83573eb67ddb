"""Ends that no connector brings: the deadline, and the origin agency's withdrawal."""

import asyncio
import logging
import time
from typing import Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Observation

from broker.ledger import Ledger
from broker.record import Record, expired_entry, withdrawn_entry
from broker.streams import order_subject, orders_stream
from broker.watch import KnownSearches
from countersign.ledger.v1.append_pb2 import PendingEntry
from shared import telemetry
from shared.backoff import Backoff, PutOff
from shared.bus import Bus
from shared.clock import Clock
from shared.errors import ServiceError

log = logging.getLogger(__name__)

SWEEP_S: Final = 0.5
AGAIN: Final = Backoff(first_s=1.0, most_s=10.0)
"""Before what a sweep did in vain is tried again: each end by itself, the look for open searches, purges."""
ENDS_AT_ONCE_MAX: Final = 64
UNPURGED_MAX: Final = 10_000
"""Past it, orders of ended searches are left to the stream's own age limit."""
RESYNC_S: Final = 30.0
"""Searches that other brokers decided are taken into care at least this often."""


_RESYNC: Final = "resync"
_PURGE: Final = "purge"


class Ending:
    """Ends searches under the one key that an end can have."""

    def __init__(self, *, bus: Bus, ledger: Ledger, known: KnownSearches, clock: Clock) -> None:
        self._bus = bus
        self._ledger = ledger
        self._known = known
        self._clock = clock
        self._unpurged: dict[str, Record] = {}
        self._late = PutOff(AGAIN)
        self._put_off = PutOff(AGAIN)

    def observe(self) -> None:
        """Has the open searches measured until the broker stops."""
        _observed.add(self)

    @property
    def open_since(self) -> list[int]:
        """When each open search was decided, in seconds; nothing once the broker stops."""
        if self._known.stopping:
            return []
        return [record.decided_at.seconds for record in list(self._known.open.values())]

    async def withdraw(self, record: Record) -> Record:
        """Ends the search by withdrawal, unless it has ended."""
        return await self._end(record, withdrawn_entry(record)) if record.is_open else record

    async def as_recorded(self, record: Record) -> Record:
        """The record, ended if any broker has ended it. Raises ServiceError."""
        found = await self._ledger.look_up(record.search_id)
        if found is None or found.is_open:
            return record
        self._known.put(found)
        return found

    async def keep_sweeping(self) -> None:
        """Expires what is past its deadline, for ever. Survives an unreachable ledger."""
        loop = asyncio.get_running_loop()
        resync_at = 0.0
        while True:
            try:
                if loop.time() >= resync_at and self._put_off.is_due(_RESYNC):
                    await self._resync()
                    resync_at = loop.time() + RESYNC_S
                    self._put_off.succeeded(_RESYNC)
                await self._sweep()
            except ServiceError as error:
                self._put_off.failed(_RESYNC)
                log.warning("sweep put off", extra={"fields": {"reason": error.reason}})
            await asyncio.sleep(SWEEP_S)

    async def _resync(self) -> None:
        """Has at hand as open what is open on record, and nothing that another broker has seen end."""
        before = set(self._known.open)
        for record in await self._ledger.open_searches():
            before.discard(record.search_id)
            if self._known.get(record.search_id) is None:
                self._known.put(record)
        for search_id in before:
            self._known.forget(search_id)

    async def _sweep(self) -> None:
        now = self._clock.now()
        late = [record for record in self._known.open.values() if record.deadline <= now]
        self._late.keep_only({record.search_id for record in late})
        late = [record for record in late if self._late.is_due(record.search_id)]
        for start in range(0, len(late), ENDS_AT_ONCE_MAX):
            some = late[start : start + ENDS_AT_ONCE_MAX]
            ends = [self._end(record, expired_entry(record)) for record in some]
            # One search that cannot be ended must not keep the others open.
            outcomes = await asyncio.gather(*ends, return_exceptions=True)
            for record, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, ServiceError):
                    self._late.failed(record.search_id)
                    fields = {"reason": outcome.reason}
                    log.warning("search not ended yet", extra={"fields": fields})
                elif isinstance(outcome, BaseException):
                    raise outcome
        if self._unpurged and self._put_off.is_due(_PURGE):
            for record in list(self._unpurged.values()):
                await self.purge(record)
            (self._put_off.failed if self._unpurged else self._put_off.succeeded)(_PURGE)

    async def _end(self, record: Record, pending: PendingEntry) -> Record:
        ended = await self._ledger.end(record, pending)
        self._known.put(ended)
        await self.purge(ended)
        return ended

    async def purge(self, record: Record) -> None:
        """Takes the order of an ended search off the bus; tries again with a later sweep."""
        if record.referred_to:
            return  # its order, if there is one, is on the peer's
        subject = order_subject(record.system, record.search_id)
        try:
            await self._bus.purge(orders_stream(record.system), subject)
        except ServiceError:
            # The connector checks the deadline and a late answer is void, so it may stay a while.
            if len(self._unpurged) < UNPURGED_MAX:
                self._unpurged[record.search_id] = record
        else:
            self._unpurged.pop(record.search_id, None)


# Gauges are the process's, and the first callbacks that one was made with are asked for ever.
_observed: Final[WeakSet[Ending]] = WeakSet()


def _count_open(_: CallbackOptions) -> list[Observation]:
    return [Observation(sum(len(one.open_since) for one in _observed))]


def _oldest_open(_: CallbackOptions) -> list[Observation]:
    now = time.time()
    ages = [now - since for one in _observed for since in one.open_since]
    return [Observation(max(ages, default=0))]


telemetry.meter.create_observable_gauge(
    "countersign.searches.open",
    [_count_open],
    unit="{search}",
    description="Permitted searches without an end",
)
telemetry.meter.create_observable_gauge(
    "countersign.searches.open.age",
    [_oldest_open],
    unit="s",
    description="Age of the oldest permitted search without an end",
)
