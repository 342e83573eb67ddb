"""How much one agency and one officer may ask, so that nobody is kept waiting by somebody else's load.

Every refusal here comes before anything is asked of policy or ledger, and leaves nothing behind. Each broker
counts for itself: an installation with three of them lets three times as much through.
"""

from contextlib import AbstractContextManager
from typing import Final

from pydantic import Field

from broker.watch import KnownSearches
from shared import telemetry
from shared.clock import Clock
from shared.errors import Overloaded
from shared.identity import SpiffeId
from shared.rates import Allowances, Rate
from shared.settings import Section

RETRY_S: Final = 5.0
"""Searches in flight end when they are answered, which nobody can foresee."""

PEER_CALLS: Final = Rate(per_s=300.0, burst=3000)
"""Calls of one peer's brokers: each follows 64 searches and asks after one every two seconds at most."""

_limited = telemetry.meter.create_counter(
    "countersign.limited", unit="{call}", description="Calls turned away by a limit, by reason"
)


class LimitSettings(Section):
    """Section `[limits]` of `broker.toml`. The figures left out suit an agency of a state."""

    agency_calls_per_s: float = Field(default=100.0, gt=0)
    """Calls of one agency in the long run, whatever they ask, per second."""
    agency_calls_burst: int = Field(default=1000, ge=1)
    """And so many at once: a record system that comes back asks after everything it has open."""
    agency_searches_per_minute: float = Field(default=300.0, gt=0)
    """Submissions and dry runs of one agency. Each is an entry for ever; LAPD made 30,000 in eleven years."""
    agency_searches_burst: int = Field(default=600, ge=1)
    """And so many at once."""
    agency_in_flight_max: int = Field(default=2000, ge=1)
    """Searches of one agency that are permitted and have no end yet."""
    officer_searches_per_minute: float = Field(default=30.0, gt=0)
    """Submissions and dry runs of one officer: more than a person types, fewer than a script makes."""
    officer_searches_burst: int = Field(default=60, ge=1)
    """And so many at once."""
    officer_in_flight_max: int = Field(default=100, ge=1)
    """Searches of one officer that were submitted to this broker and have no end yet."""


class Limits:
    """Turns away what is too much. Everything raises Overloaded with the time to wait."""

    def __init__(self, settings: LimitSettings, known: KnownSearches, clock: Clock) -> None:
        self._settings = settings
        self._known = known
        calls = Rate(settings.agency_calls_per_s, settings.agency_calls_burst)
        agency = Rate(settings.agency_searches_per_minute / 60, settings.agency_searches_burst)
        officer = Rate(settings.officer_searches_per_minute / 60, settings.officer_searches_burst)
        self._calls = Allowances(calls, clock)
        self._peers = Allowances(PEER_CALLS, clock)
        self._agencies = Allowances(agency, clock)
        # Said again it is no new entry, but costs the ledger a key for openings each time.
        self._discharges = Allowances(agency, clock)
        self._officers = Allowances(officer, clock)

    def call(self, caller: SpiffeId) -> None:
        """Any call of an agency's system."""
        wait_s = self._calls.wait_s(caller.name)
        if wait_s:
            raise _limit("AGENCY_CALLS_LIMIT", "your agency calls too often", wait_s)

    def peer(self, caller: SpiffeId) -> None:
        """Any call of a peer, whichever of its brokers makes it."""
        wait_s = self._peers.wait_s(caller.trust_domain)
        if wait_s:
            raise _limit("PEER_CALLS_LIMIT", "your installation calls too often", wait_s)

    def agency(self, ori: str) -> None:
        """A search or dry run in an agency's name, before anything of it is looked at."""
        wait_s = self._agencies.wait_s(ori)
        if wait_s:
            raise _limit("AGENCY_SEARCHES_LIMIT", "your agency searches too often", wait_s)

    def discharge(self, ori: str) -> None:
        """A discharge by an agency. Its searches do not wait for a pile of duties."""
        wait_s = self._discharges.wait_s(ori)
        if wait_s:
            raise _limit("AGENCY_DISCHARGES_LIMIT", "your agency discharges too often", wait_s)

    def officer(self, ori: str, officer: str) -> None:
        """A search or dry run of an officer who is vouched for."""
        wait_s = self._officers.wait_s(f"{ori}/{officer}")
        if wait_s:
            raise _limit("OFFICER_SEARCHES_LIMIT", "the officer searches too often", wait_s)

    def submitting(self, search_id: str, ori: str, officer: str) -> AbstractContextManager[None]:
        """Around a submission. One that is on record already needs no place of its own."""
        return _Submitting(self._settings, self._known, search_id, ori, f"{ori}/{officer}")


class _Submitting:
    """Holds a submission's place. No generator: every search has one."""

    __slots__ = ("_known", "_ori", "_person", "_search_id", "_settings")

    def __init__(
        self, settings: LimitSettings, known: KnownSearches, search_id: str, ori: str, person: str
    ) -> None:
        self._settings = settings
        self._known = known
        self._search_id = search_id
        self._ori = ori
        self._person = person

    def __enter__(self) -> None:
        known, search_id = self._known, self._search_id
        if known.get(search_id) is None:
            if known.in_flight[self._ori] >= self._settings.agency_in_flight_max:
                text = "your agency has too many searches without an end"
                raise _limit("AGENCY_IN_FLIGHT_LIMIT", text, RETRY_S)
            if known.in_flight[self._person] >= self._settings.officer_in_flight_max:
                text = "the officer has too many searches without an end"
                raise _limit("OFFICER_IN_FLIGHT_LIMIT", text, RETRY_S)
        known.hold(search_id, self._ori)
        known.hold(search_id, self._person)

    def __exit__(self, *_: object) -> None:
        self._known.let_go(self._search_id)


def _limit(reason: str, text: str, wait_s: float) -> Overloaded:
    _limited.add(1, {"reason": reason})
    return Overloaded(reason, f"{text}; wait as long as RetryInfo says", retry_after_s=wait_s)
