"""The searches of a system that are on record, each proved, and when each can have been run."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from countersign.cli.ledger_keys import trusted
from countersign.cli.ledger_query import basis_dict, opening_of, say_who_asks, verified
from countersign.client import ClientSettings, VerificationError
from countersign.client.ledger_query import LedgerQueryClient
from countersign.client.outside import Searched
from countersign.connector.v1.connector_pb2 import (
    FAILURE_REASON_NOT_PERMITTED_HERE,
    FAILURE_REASON_ORDER_EXPIRED,
    FAILURE_REASON_ORDER_REJECTED,
)
from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DECISION_OUTCOME_PERMITTED
from shared.entry_facts import micros

PAGE_SIZE: Final = 500
SEARCHES_MAX: Final = 1_000_000
"""More than that is asked for in parts: --since, --until."""
OFFICERS_MAX: Final = 200
"""Each look-up is an entry."""
VALIDITY_MAX: Final = timedelta(days=7)
"""Longest time from a decision to the end of its search."""
_ENDS: Final = ("search_answered", "search_failed", "search_expired", "search_withdrawn")
_NOT_RUN: Final = frozenset(
    {
        FAILURE_REASON_ORDER_REJECTED,
        FAILURE_REASON_ORDER_EXPIRED,
        FAILURE_REASON_NOT_PERMITTED_HERE,
    }
)


@dataclass(frozen=True)
class Wanted:
    """What is asked of the record."""

    system: str
    times: tuple[int, int] | None
    """First and last row, in microseconds; None when there is no row."""
    window: timedelta
    officers: Mapping[str, str]
    """User of the export to officer, of those whose searches are looked up."""
    agency: str
    authority: str
    why: str
    as_officer: str | None

    def filter(self, *kinds: str) -> pb.EntryFilter:
        """Entries that may be of a search that was run at these times."""
        assert self.times is not None, "without rows nothing is asked"
        wanted = pb.EntryFilter(system=self.system, kinds=kinds)
        margin = VALIDITY_MAX + self.window
        wanted.recorded_from.FromDatetime(_time(self.times[0]) - margin)
        wanted.recorded_until.FromDatetime(_time(self.times[1]) + margin)
        return wanted


@dataclass(frozen=True)
class OnRecord:
    """What the record says."""

    searches: Mapping[str, Searched]
    of_user: Mapping[str, Collection[str]]
    within: frozenset[str]
    """Searches that were answered, and can only have been run between the first and the last row."""
    basis: dict[str, Any] | None


async def on_record(settings: ClientSettings, wanted: Wanted) -> OnRecord:
    """Ask, and verify. Raises ServiceError, VerificationError, click.ClickException."""
    if wanted.times is None:
        return OnRecord({}, {}, frozenset(), None)
    if len(wanted.officers) > OFFICERS_MAX:
        raise click.ClickException(
            f"{len(wanted.officers)} officers are to be looked up, each on record: at most {OFFICERS_MAX}"
        )
    asked = _Asked(settings)
    async with LedgerQueryClient.connect(settings) as client:
        begun: dict[str, Entry] = {}
        ended: dict[str, Entry] = {}
        async for entry in asked.entries(client, wanted.filter("search_decided", *_ENDS)):
            if not entry.HasField("search_decided"):
                ended[entry.search_id] = entry
            elif entry.search_decided.decision.outcome == DECISION_OUTCOME_PERMITTED:
                _require_system(entry, wanted.system)
                begun[entry.search_id] = entry
            if len(begun) > SEARCHES_MAX:
                raise click.ClickException(
                    f"more than {SEARCHES_MAX} searches are on record of these times: --since, --until"
                )
        of_user = {}
        for user, officer in wanted.officers.items():
            of_one = _of_officer(settings, wanted, officer)
            of_user[user] = {one.search_id async for one in asked.entries(client, of_one)}
    searches: dict[str, Searched] = {}
    within = set()
    for search_id, decided in begun.items():
        end = ended.get(search_id)
        if end is not None and end.search_failed.reason in _NOT_RUN:
            continue
        until = decided.search_decided.deadline if end is None else end.recorded_at
        searches[search_id] = one = Searched(micros(decided.recorded_at), micros(until))
        inside = wanted.times[0] <= one.from_us and one.until_us <= wanted.times[1]
        if inside and end is not None and end.HasField("search_answered"):
            within.add(search_id)
    return OnRecord(searches, of_user, frozenset(within), asked.basis)


def _require_system(decided: Entry, system: str) -> None:
    """Another system's search must account for no row of this one, though it is on record."""
    found = decided.search_decided.summary.system
    if found != system:
        what = f"search {decided.search_id} is of system {found!r}, not of {system!r}"
        raise VerificationError("NOT_ASKED_FOR", what)


def _of_officer(settings: ClientSettings, wanted: Wanted, officer: str) -> pb.EntryFilter:
    sought = wanted.filter("search_decided")
    sought.agency = wanted.agency
    given = {
        "officer": officer,
        "case_number": None,
        "agency": wanted.agency,
        "authority": wanted.authority,
        "why": wanted.why,
    }
    opening_of(sought, given)
    who = {"as_officer": wanted.as_officer, "token_file": None, "request_id": None}
    say_who_asks(sought, settings, who)
    return sought


class _Asked:
    """Reads entries page by page and verifies each."""

    def __init__(self, settings: ClientSettings) -> None:
        self._verifiers = trusted(settings)
        self.basis: dict[str, Any] | None = None

    async def entries(
        self, client: LedgerQueryClient, wanted: pb.EntryFilter
    ) -> AsyncIterator[Entry]:
        """Every entry that a filter finds."""
        request = pb.QueryEntriesRequest(filter=wanted, page_size=PAGE_SIZE, with_receipts=True)
        while True:
            page = await client.query(request)
            self.basis = self.basis or basis_dict(page.basis, self._verifiers)
            for one in page.entries:
                verified(one, self._verifiers)
                yield one.record.entry
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _time(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
