"""Dry runs and searches for like facts on one route after another."""

from datetime import UTC, datetime, timedelta
from typing import Any

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.circumstances_pb2 import Circumstances
from countersign.type.v1.decision_pb2 import (
    DECISION_OUTCOME_PERMITTED,
    DECISION_OUTCOME_REFUSED,
)
from countersign.type.v1.search_pb2 import PURPOSE_CRIMINAL_INVESTIGATION
from shared.clock import stamp
from support.ledgers import LAPD

BEGAN = datetime(2026, 6, 1, 12, tzinfo=UTC)


def attempt(
    route: str,
    *,
    permitted: bool = False,
    dry: bool = True,
    minutes: float = 0,
    agency: str = LAPD,
    circumstances: Circumstances | None = None,
    **summary: Any,
) -> Entry:
    """One attempt, so many minutes after the first, on a route such as "lacris/booking"."""
    entry = Entry(recorded_at=stamp(BEGAN + timedelta(minutes=minutes)))
    event = entry.search_checked if dry else entry.search_decided
    event.summary.purpose = PURPOSE_CRIMINAL_INVESTIGATION
    event.summary.offence.nibrs_code = summary.pop("offence", "120")
    event.summary.offence.statute = summary.pop("statute", "")
    for name, value in summary.items():
        setattr(event.summary, name, value)
    event.summary.origin_agency = agency
    event.summary.system, _, event.summary.gallery = route.partition("/")
    if circumstances is not None:
        event.summary.circumstances.CopyFrom(circumstances)
    event.decision.outcome = DECISION_OUTCOME_PERMITTED if permitted else DECISION_OUTCOME_REFUSED
    return entry


def by_officer(entry: Entry, officer: str) -> PendingEntry:
    """An attempt as the broker records it, with a commitment to the officer."""
    pending = PendingEntry(entry=entry)
    pending.entry.ClearField("recorded_at")
    pending.sensitive.add(field="officer", value=officer)
    return pending
