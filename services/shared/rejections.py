"""Which calls that were turned away get an entry of their own, so that nobody can fill the ledger with them.

Invariants:
- Whoever hears why they were turned away is on record with that reason.
- A caller has at most RATE entries of this kind, however often it calls. The next entry says how many calls
  before it have none; a crash loses that count, and nothing else.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from countersign.ledger.v1.entry_pb2 import RequestRejected
from shared import telemetry
from shared.clock import Clock
from shared.errors import Overloaded
from shared.rates import Allowances, Rate

RATE: Final = Rate(per_s=0.1, burst=100)
"""A day of a misconfigured system is 8,740 entries, some 5 MB; a hundred at once is a test run gone wrong."""
CALLERS_MAX: Final = 4096
"""Callers have certificates; of more of them, calls without an entry are only measured."""

_unrecorded = telemetry.meter.create_counter(
    "countersign.rejections.unrecorded",
    unit="{call}",
    description="Calls turned away without an entry of their own",
)


class Rejections:
    """Records who was turned away, within bounds."""

    def __init__(self, clock: Clock, rate: Rate = RATE) -> None:
        self._entries = Allowances(rate, clock)
        self._without: Counter[str] = Counter()
        _unrecorded.add(0)

    async def record(
        self,
        event: RequestRejected,
        append: Callable[[RequestRejected], Awaitable[object]],
    ) -> float:
        """Appends the event, with how many went without, and gives 0; or gives the seconds to wait."""
        who = event.caller
        wait_s = self._entries.wait_s(who)
        if wait_s:
            if who in self._without or len(self._without) < CALLERS_MAX:
                self._without[who] += 1
            _unrecorded.add(1)
            return wait_s
        without = self._without.pop(who, 0)
        event.unrecorded_before = without
        try:
            await append(event)
        except BaseException:
            self._without[who] += without
            raise
        return 0.0


def check_recorded(wait_s: float) -> None:
    """Raises Overloaded where there is no entry: nobody hears a reason that is not on record."""
    if wait_s:
        raise Overloaded(
            "REJECTED_TOO_OFTEN",
            "too many calls of yours were turned away; this one was not looked into",
            retry_after_s=wait_s,
        )
