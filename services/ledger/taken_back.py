"""Finds searches that were referred to a peer and ended here without it: it may not have heard of that."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.reading import Reading
from shared.kinds import KINDS
from shared.referral import VALIDITY_S

ROWS_MAX: Final = 500
"""Ends of a kind that are looked at in one go, so that no other question waits for long."""

_WITHDRAWN: Final = KINDS["search_withdrawn"]
_FAILED: Final = KINDS["search_failed"]
_REJECTED: Final = FailureReason.FAILURE_REASON_PEER_REJECTED


@dataclass(frozen=True)
class TakenBack:
    """What is asked for: ends from `start` to below `before`, of searches with a deadline to come."""

    start: int
    before: int
    deadline_after_s: int


def find(reading: Reading, wanted: TakenBack) -> tuple[list[tuple[int, int]], int | None]:
    """Give the indexes of decision and end of each, and below which to go on; None at the end."""
    ends: list[tuple[int, bytes]] = []
    low = wanted.start
    for kind in (_WITHDRAWN, _FAILED):
        found = reading.newest(kind, wanted.before, ROWS_MAX)
        ends += found
        if len(found) == ROWS_MAX:
            # Below it there may be more of this kind, and what there is of the other waits for them.
            low = max(low, found[-1][0])
    entries = [(index, Entry.FromString(leaf)) for index, leaf in sorted(ends) if index >= low]
    # Nothing waits for longer, so that nothing older can have a deadline to come.
    since_s = wanted.deadline_after_s - VALIDITY_S
    is_old = bool(entries) and entries[0][1].recorded_at.seconds < since_s
    at_the_end = low == wanted.start or is_old
    return list(_taken_back(reading, wanted, reversed(entries))), None if at_the_end else low


def _taken_back(
    reading: Reading, wanted: TakenBack, entries: Iterator[tuple[int, Entry]]
) -> Iterator[tuple[int, int]]:
    for index, entry in entries:
        if entry.HasField("search_failed"):
            if entry.search_failed.reason != _REJECTED:
                continue
            decided_index = entry.search_failed.decided_index
        else:
            decided_index = entry.search_withdrawn.decided_index
        leaf = reading.leaf(decided_index)
        decided = Entry() if leaf is None else Entry.FromString(leaf)
        if (
            decided.search_decided.referred_to
            and decided.search_decided.deadline.seconds > wanted.deadline_after_s
        ):
            yield decided_index, index
