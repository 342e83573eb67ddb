"""The query index: what entries say, as columns in a DuckDB file beside the ledger.

It is derived. Dropped, it is made again from the entries and gives the same answers; nothing else keeps
anything in it. It is filled outside the append path, a batch in one transaction with the size reached, so
that a crash leaves a shorter index and never a wrong one.

With each batch it hashes the leaves that it read into the tree's frontier and stores that too. So it can
always be said whether it was made from exactly the entries that were signed.
"""

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Final

import duckdb
from google.protobuf.message import DecodeError

from countersign.ledger.v1.entry_pb2 import Entry
from shared.entry_facts import DECIDED, ENDS, NO_EVENT, EntryFacts, facts_of
from shared.kinds import KINDS
from tlog.errors import TlogError
from tlog.merkle import Frontier, leaf_hash

log = logging.getLogger(__name__)

INDEX_VERSION: Final = 4
"""Raised with every change of columns or of their meaning: an index of another version is made anew."""

MEMORY_MAX: Final = "512MB"
"""Past this DuckDB writes to files beside the index; grouping 10^7 entries needs less."""
THREADS: Final = 2
"""A count of a million entries in half the time; appending comes first all the same, by its niceness."""
WAL_MAX: Final = "64MB"

DAY_US: Final = 86_400_000_000
_DISCHARGED: Final = KINDS["obligation_discharged"]

_SCHEMA: Final = """
CREATE TABLE progress (version INTEGER, origin VARCHAR, size BIGINT, peaks BLOB);
CREATE TABLE entries (
    i BIGINT, recorded_us BIGINT, day INTEGER, kind USMALLINT, d BIGINT, search_id VARCHAR,
    origin_agency VARCHAR, beneficiary_agency VARCHAR, operator_agency VARCHAR,
    gallery_owner VARCHAR, caller_agency VARCHAR, system VARCHAR, gallery VARCHAR,
    gallery_class USMALLINT, purpose USMALLINT, suspicion USMALLINT, offence VARCHAR,
    statute VARCHAR, severity USMALLINT, provenance USMALLINT, capture_mode USMALLINT,
    route USMALLINT, protected_basis USMALLINT, probe_edit USMALLINT, investigation USMALLINT,
    charge_status USMALLINT, instrument USMALLINT, emergency USMALLINT, outcome USMALLINT,
    reason VARCHAR, candidates UINTEGER
);
CREATE TABLE agencies (i BIGINT, value VARCHAR, candidates UINTEGER);
CREATE TABLE jurisdictions (i BIGINT, value VARCHAR, candidates UINTEGER);
CREATE TABLE rules (i BIGINT, value VARCHAR, candidates UINTEGER);
CREATE TABLE citations (i BIGINT, value VARCHAR, candidates UINTEGER);
CREATE TABLE duties (
    d BIGINT, kind VARCHAR, rule VARCHAR, party VARCHAR, first_of_kind BOOLEAN, due_us BIGINT
);
CREATE TABLE discharges (
    d BIGINT, i BIGINT, kind VARCHAR, rule VARCHAR, party VARCHAR, result USMALLINT
);
CREATE TABLE ends (d BIGINT, i BIGINT, kind USMALLINT);
"""
# `i` is an entry's index. `d` is the index of the decision that it belongs to, which has the facts that it
# shares; its own index when it belongs to none.
#
# Of what an entry may have several, there is a table with a row for each (one without a value for an entry
# that has none), its own or its decision's, with the entry's candidates: counts by it read that table alone.
# Joined by way of the decision, they took seven times as long.

_TABLES: Final = (
    *("entries", "agencies", "jurisdictions", "rules", "citations", "duties"),
    *("discharges", "ends"),
)
SEVERAL: Final = ("agencies", "jurisdictions", "rules", "citations")
"""Of what an entry may have several; the names of tables, and of facts."""
_SHARED: Final = (
    *("beneficiary_agency", "operator_agency", "gallery_owner", "system", "gallery"),
    *("gallery_class", "purpose", "suspicion", "offence", "statute", "severity", "provenance"),
    *("capture_mode", "route", "protected_basis", "probe_edit", "investigation", "charge_status"),
    *("instrument", "emergency", "outcome"),
)
"""What an entry has from the decision that it belongs to, where it does not say it itself."""
_shared: Final = attrgetter(*_SHARED)

_Row = tuple[object, ...]


class IndexLocked(Exception):
    """Another process has the index open."""


@dataclass(frozen=True)
class _Decision:
    """What later entries of a search share with its decision."""

    search_id: str
    facts: tuple[str | int, ...]
    several: dict[str, tuple[str, ...]]


class QueryIndex:
    """A hand on the file; used by one thread at a time. One process may have it open."""

    def __init__(
        self,
        path: Path,
        origin: str,
        connection: duckdb.DuckDBPyConnection,
        frontier: Frontier,
    ) -> None:
        self.path = path
        self.origin = origin
        self.connection = connection
        self.frontier = frontier
        self._days: dict[int, int] = {}

    @classmethod
    def open(cls, path: Path, origin: str) -> "QueryIndex":
        """Open the index of this log; made anew when missing, unreadable, or of another version or log.

        Raises IndexLocked.
        """
        if path.exists():
            with contextlib.suppress(duckdb.Error, TlogError, ValueError):
                connection = _connect(path)
                try:
                    return cls(path, origin, connection, _progress(connection, origin))
                except BaseException:
                    connection.close()
                    raise
            log.warning("the query index is made anew", extra={"fields": {"path": str(path)}})
        return cls.create(path, origin)

    @classmethod
    def create(cls, path: Path, origin: str) -> "QueryIndex":
        """Begin an empty index, in place of what is there. Raises IndexLocked."""
        remove(path)
        # What an index says is public, except that it says it much more conveniently.
        path.touch(0o600)
        path.unlink()
        connection = _connect(path)
        path.chmod(0o600)
        connection.begin()
        connection.execute(_SCHEMA)
        connection.execute("INSERT INTO progress VALUES (?, ?, 0, ?)", [INDEX_VERSION, origin, b""])
        connection.commit()
        return cls(path, origin, connection, Frontier())

    @property
    def size(self) -> int:
        """How many entries are indexed."""
        return self.frontier.size

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def add(self, leaves: Sequence[bytes]) -> None:
        """Index the entries that follow, all or none."""
        frontier = Frontier.of(self.frontier.size, self.frontier.peaks)
        for leaf in leaves:
            frontier.append(leaf_hash(leaf))
        rows = self._rows(self.size, leaves)
        self.connection.begin()
        try:
            for table, added in rows.items():
                if added:
                    appender = self.connection.appender(table)
                    appender.append_rows(added)
                    appender.flush()
            self.connection.execute(
                "UPDATE progress SET size = ?, peaks = ?", [frontier.size, b"".join(frontier.peaks)]
            )
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise
        self.frontier = frontier

    def _rows(self, start: int, leaves: Sequence[bytes]) -> dict[str, list[_Row]]:
        read = [(index, *_read(leaf)) for index, leaf in enumerate(leaves, start)]
        decisions = self._decisions(start, read)
        ended = self._ended(read)
        rows: dict[str, list[_Row]] = {table: [] for table in _TABLES}
        for index, entry, facts in read:
            decided = None
            # A decision that comes later cannot be meant: whoever counts in order has it open still.
            if facts.decided_index is not None and facts.decided_index < index:
                decided = decisions.get(facts.decided_index)
                if decided is not None and facts.search_id not in ("", decided.search_id):
                    decided = None  # it names a decision on another search: not believed
            d = index if decided is None or facts.decided_index is None else facts.decided_index
            rows["entries"].append(self._entry(index, d, facts, decided))
            several = _several(facts) if decided is None else decided.several
            for table, values in several.items():
                rows[table] += [(index, value, facts.candidates) for value in values or (None,)]
            if d == index:
                rows["duties"] += _duties(index, facts)
            elif facts.kind in ENDS:
                if d not in ended:
                    ended.add(d)
                    rows["ends"].append((d, index, facts.kind))
            elif facts.kind == _DISCHARGED:
                one = entry.obligation_discharged
                rows["discharges"].append((d, index, one.kind, one.rule_id, one.party, one.result))
        return rows

    def _decisions(
        self, start: int, read: Sequence[tuple[int, Entry, EntryFacts]]
    ) -> dict[int, _Decision]:
        """Find the decisions that a batch refers to, in it or before it."""
        referred = {facts.decided_index for _, _, facts in read if facts.decided_index is not None}
        found = {
            index: _Decision(facts.search_id, _shared(facts), _several(facts))
            for index, _, facts in read
            if index in referred and facts.kind == DECIDED
        }
        earlier = [index for index in referred if index < start]
        if earlier:
            rows = self.connection.execute(
                f"SELECT i, search_id, {', '.join(_SHARED)} FROM entries"  # noqa: S608  # constants
                " WHERE i IN (SELECT unnest(CAST(? AS BIGINT[]))) AND kind = ?",
                [earlier, DECIDED],
            )
            of_decision = rows.fetchall()
            several = {table: self._several(table, earlier) for table in SEVERAL}
            for row in of_decision:
                own = {table: tuple(of.get(row[0], ())) for table, of in several.items()}
                found[row[0]] = _Decision(row[1], row[2:], own)
        return found

    def _several(self, table: str, indexes: Sequence[int]) -> dict[int, list[str]]:
        rows = self.connection.execute(
            f"SELECT i, value FROM {table}"  # noqa: S608  # constants
            " WHERE i IN (SELECT unnest(CAST(? AS BIGINT[]))) AND value IS NOT NULL",
            [indexes],
        )
        found: dict[int, list[str]] = {}
        for index, value in rows.fetchall():
            found.setdefault(index, []).append(value)
        return found

    def _ended(self, read: Iterable[tuple[int, Entry, EntryFacts]]) -> set[int]:
        """Find which of the searches that a batch ends had ended before: the first end counts."""
        ending = [facts.decided_index for _, _, facts in read if facts.kind in ENDS]
        if not ending:
            return set()
        rows = self.connection.execute(
            "SELECT d FROM ends WHERE d IN (SELECT unnest(CAST(? AS BIGINT[])))", [ending]
        )
        return {row[0] for row in rows.fetchall()}

    def _entry(self, index: int, d: int, facts: EntryFacts, decided: _Decision | None) -> _Row:
        own: tuple[str | int, ...] = _shared(facts)
        if decided is not None:
            own = tuple(mine or shared for mine, shared in zip(own, decided.facts, strict=True))
        beneficiary, operator, owner, system, gallery, *rest = own
        return (
            *(index, facts.recorded_us, self._day(facts.recorded_us), facts.kind, d),
            *(facts.search_id, facts.origin_agency, beneficiary, operator, owner),
            *(facts.caller_agency, system, gallery, *rest, facts.reason, facts.candidates),
        )

    def _day(self, recorded_us: int) -> int:
        """The day in UTC as 20261122."""
        number = recorded_us // DAY_US
        day = self._days.get(number)
        if day is None:
            day = self._days[number] = _date_number(number * 86_400)
        return day


def _date_number(seconds: int) -> int:
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return 0  # no time that a ledger of ours recorded
    return at.year * 10_000 + at.month * 100 + at.day


def _several(facts: EntryFacts) -> dict[str, tuple[str, ...]]:
    return {table: getattr(facts, table) for table in SEVERAL}


def _duties(index: int, facts: EntryFacts) -> list[_Row]:
    rows: list[_Row] = []
    kinds: set[str] = set()
    for duty in facts.duties:
        due_us = facts.recorded_us + duty.term_us if duty.term_us else None
        rows.append((index, duty.kind, duty.rule_id, duty.party, duty.kind not in kinds, due_us))
        kinds.add(duty.kind)
    return rows


def _read(leaf: bytes) -> tuple[Entry, EntryFacts]:
    """An entry that cannot be read is in the index all the same: as one of which nothing is known."""
    try:
        entry = Entry.FromString(leaf)
    except DecodeError:
        return Entry(), EntryFacts(NO_EVENT, 0, "")
    return entry, facts_of(entry)


def _progress(connection: duckdb.DuckDBPyConnection, origin: str) -> Frontier:
    """How far an index has come; raises ValueError if it is of another version or log."""
    row = connection.execute("SELECT version, origin, size, peaks FROM progress").fetchone()
    if row is None or row[:2] != (INDEX_VERSION, origin):
        raise ValueError("an index of another version or another log")
    _, _, size, peaks = row
    return Frontier.of(size, [peaks[at : at + 32] for at in range(0, len(peaks), 32)])


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": THREADS,
        "memory_limit": MEMORY_MAX,
        "checkpoint_threshold": WAL_MAX,
        # It reads and writes its own file and nothing else, whatever a statement says.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    try:
        return duckdb.connect(str(path), config=settings)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise IndexLocked(f"another process has {path} open") from error
        raise


def remove(path: Path) -> None:
    """Remove an index with what DuckDB keeps beside it."""
    for one in (path, path.with_name(f"{path.name}.wal")):
        one.unlink(missing_ok=True)
