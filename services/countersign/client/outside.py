"""Which searches of an audit export no search on record accounts for. Pure.

A search on record accounts for the rows that bear its id; failing such rows, for one row at most, of a time
at which it can have been run: from its decision to its end. Where it is known which searches were a user's,
a row of that user is accounted for by one of those only. All other rows are matched so that as many as
possible are accounted for: what is left over cannot be by chance.
"""

import heapq
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

from countersign.client.audit_export import AuditRow

_NO_ID: Final = bytes(16)
USERS_MAX: Final = 100_000
"""An export that names more users than that has something else in this column."""


class Found(IntEnum):
    """What accounts for a row."""

    OUTSIDE = 0
    BY_ID = 1
    BY_OFFICER = 2
    BY_TIME = 3


@dataclass(frozen=True, slots=True)
class Searched:
    """A search on record that can have been run, and when."""

    from_us: int
    until_us: int


class TooManyUsers(Exception):
    """The column of users has something else."""


class Rows:
    """What has to be known of all rows at once: 36 bytes each."""

    def __init__(self) -> None:
        self.earliest = array("q")
        self.latest = array("q")
        self.user_of = array("i")
        self.users: dict[str, int] = {}
        self._ids = bytearray()

    def add(self, row: AuditRow) -> None:
        """Take a row; raises TooManyUsers."""
        self.earliest.append(row.earliest_us)
        self.latest.append(row.latest_us)
        self.user_of.append(self.users.setdefault(row.user, len(self.users)))
        if len(self.users) > USERS_MAX:
            raise TooManyUsers(f"line {row.line}: more than {USERS_MAX} different users")
        self._ids += UUID(row.search_id).bytes if row.search_id else _NO_ID

    def __len__(self) -> int:
        return len(self.earliest)

    def search_id(self, number: int) -> str:
        """The id that a row bears; empty when none."""
        raw = bytes(self._ids[16 * number : 16 * number + 16])
        return "" if raw == _NO_ID else str(UUID(bytes=raw))


@dataclass(frozen=True)
class Matched:
    """What accounts for each row, and which searches account for none."""

    rows: bytearray
    """A `Found` for each."""
    unused: frozenset[str]


def match(
    rows: Rows,
    searches: Mapping[str, Searched],
    of_user: Mapping[str, Collection[str]],
    window_us: int,
) -> Matched:
    """Find what accounts for each row.

    `of_user` gives the searches of each user of whom they are known.
    """
    found = bytearray(len(rows))
    used: set[str] = set()
    left: dict[int | None, list[int]] = {}
    known = {rows.users[user]: set(ids) for user, ids in of_user.items() if user in rows.users}
    for number in range(len(rows)):
        search_id = rows.search_id(number)
        if search_id:
            if search_id in searches:
                found[number] = Found.BY_ID
                used.add(search_id)
        else:
            user = rows.user_of[number]
            left.setdefault(user if user in known else None, []).append(number)
    anybody = left.pop(None, [])
    for of_one, numbers in left.items():
        ids = [one for one in known.get(of_one or 0, ()) if one in searches and one not in used]
        _take(rows, numbers, ids, searches, window_us, found, used, Found.BY_OFFICER)
    # A search that is known to be somebody else's accounts for nobody's row here.
    others = {one for ids in of_user.values() for one in ids}
    ids = [one for one in searches if one not in used and one not in others]
    _take(rows, anybody, ids, searches, window_us, found, used, Found.BY_TIME)
    return Matched(found, frozenset(searches.keys() - used))


def _take(
    rows: Rows,
    numbers: Iterable[int],
    ids: Iterable[str],
    searches: Mapping[str, Searched],
    window_us: int,
    found: bytearray,
    used: set[str],
    how: Found,
) -> None:
    """Earliest row first, each with the search that ends first: no other way accounts for more."""
    waiting: Sequence[str] = sorted(ids, key=lambda one: searches[one].from_us)
    at = 0
    open_now: list[tuple[int, str]] = []
    for number in sorted(numbers, key=rows.latest.__getitem__):
        earliest, latest = rows.earliest[number], rows.latest[number]
        while at < len(waiting) and searches[waiting[at]].from_us - window_us <= latest:
            heapq.heappush(open_now, (searches[waiting[at]].until_us + window_us, waiting[at]))
            at += 1
        while open_now and open_now[0][0] < earliest:
            heapq.heappop(open_now)
        if open_now:
            _, search_id = heapq.heappop(open_now)
            found[number] = how
            used.add(search_id)
