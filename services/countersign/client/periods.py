"""Periods: the ledger's own counts, made again from the entries, and reports held against them.

Trusts no server: what is counted here are entries that the caller has verified.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError

from countersign.client.verify import VerificationError
from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from shared.entry_facts import (
    DECIDED,
    ENDS,
    OPENING_OUTCOMES,
    EntryFacts,
    facts_of,
    kind_text,
    micros,
)
from shared.kinds import kind_of


@dataclass(frozen=True)
class Closing:
    """What the ledger says a span comes to: all parts of it together."""

    index: int
    """Of its first part."""
    first_index: int
    end_index: int
    previous_index: int | None
    starts_us: int
    ends_us: int
    totals: Mapping[tuple[str, int], int]
    open_searches: int
    open_searches_sha256: bytes


@dataclass
class _Counted:
    """What was counted since the last span."""

    totals: Counter[tuple[str, int]] = field(default_factory=Counter)
    open_decisions: dict[int, str] = field(default_factory=dict)


def closings_in(entries: Iterable[tuple[int, bytes]]) -> list[Closing]:
    """Find the closings among entries; raises VerificationError when parts of one are missing."""
    found: list[Closing] = []
    parts: list[tuple[int, Entry]] = []
    for index, leaf in entries:
        entry = _entry(leaf)
        if entry is None or not entry.HasField("period_closed"):
            continue
        closed = entry.period_closed
        if closed.part != len(parts) + 1 or (parts and index != parts[-1][0] + 1):
            raise _failed(index, "a part of the period before it is missing")
        parts.append((index, entry))
        if closed.part == closed.parts:
            found.append(_closing(parts))
            parts = []
    if parts:
        raise _failed(parts[-1][0], "the parts after it are missing")
    return found


def _closing(parts: Sequence[tuple[int, Entry]]) -> Closing:
    index, first = parts[0][0], parts[0][1].period_closed
    totals: dict[tuple[str, int], int] = {}
    for at, entry in parts:
        closed = entry.period_closed
        if (closed.first_index, closed.end_index) != (first.first_index, first.end_index):
            raise _failed(at, "its parts speak of different spans")
        for one in closed.totals:
            totals[one.origin_agency, one.kind] = one.count
    return Closing(
        index=index,
        first_index=first.first_index,
        end_index=first.end_index,
        previous_index=first.previous_index if first.HasField("previous_index") else None,
        starts_us=micros(first.starts_at),
        ends_us=micros(first.ends_at),
        totals=totals,
        open_searches=first.open_searches,
        open_searches_sha256=first.open_searches_sha256,
    )


def verify_periods(entries: Iterable[bytes], closings: Sequence[Closing]) -> int:
    """Count all entries of a log from its first, and compare with every closing; gives how many there are.

    Raises VerificationError at the first closing that is not what the entries come to.
    """
    _verify_order(closings)
    following = list(reversed(closings))
    counted = _Counted()
    size = 0
    for index, leaf in enumerate(entries):
        while following and following[-1].end_index == index:
            counted = _verify(following.pop(), counted)
        facts = _facts(leaf)
        if following and facts.recorded_us >= following[-1].ends_us:
            raise _failed(following[-1].index, f"entry {index} was recorded after its period ended")
        _count(counted, index, facts)
        size = index + 1
    while following and following[-1].end_index == size:
        counted = _verify(following.pop(), counted)
    if following:
        raise _failed(following[-1].index, "its span has entries that are not there")
    return size


def _verify_order(closings: Sequence[Closing]) -> None:
    end, ends_us, previous = 0, None, None
    for one in closings:
        if one.first_index != end or one.end_index < one.first_index:
            raise _failed(one.index, f"its span does not begin where the last one ended ({end})")
        if ends_us is not None and one.starts_us != ends_us:
            raise _failed(one.index, "its period does not begin when the last one ended")
        if one.previous_index != previous or one.end_index > one.index:
            raise _failed(one.index, "it does not follow the period that it names")
        end, ends_us, previous = one.end_index, one.ends_us, one.index


def _verify(closing: Closing, counted: _Counted) -> _Counted:
    for agency, kind in sorted(set(closing.totals) | set(counted.totals)):
        said = closing.totals.get((agency, kind), 0)
        there = counted.totals.get((agency, kind), 0)
        if said != there:
            who = agency or "no agency"
            raise _failed(
                closing.index,
                f"it says {said} entries of kind {kind_text(kind)} for {who}; there are {there}",
            )
    indexes = b"".join(index.to_bytes(8, "big") for index in sorted(counted.open_decisions))
    if (closing.open_searches, closing.open_searches_sha256) != (
        len(counted.open_decisions),
        sha256(indexes).digest(),
    ):
        raise _failed(closing.index, "the searches still open are not those that it says")
    return _Counted(open_decisions=counted.open_decisions)


def _count(counted: _Counted, index: int, facts: EntryFacts) -> None:
    counted.totals[facts.origin_agency, facts.kind] += 1
    if facts.kind == DECIDED and facts.outcome in OPENING_OUTCOMES:
        counted.open_decisions[index] = facts.search_id
    elif facts.kind in ENDS and facts.decided_index is not None:
        of_search = counted.open_decisions.get(facts.decided_index)
        if of_search is not None and facts.search_id in ("", of_search):
            del counted.open_decisions[facts.decided_index]


@dataclass(frozen=True)
class Complete:
    """Spans in which a report was counted and lacks nothing."""

    spans: tuple[tuple[int, int], ...]
    rows: int

    @property
    def text(self) -> str:
        """For a person; spans that follow each other are said as one."""
        joined: list[tuple[int, int]] = []
        for first, end in self.spans:
            if joined and joined[-1][1] == first:
                joined[-1] = (joined[-1][0], end)
            elif first < end:
                joined.append((first, end))
        where = ", ".join(f"{first} to {end - 1}" for first, end in joined if first < end)
        return f"nothing is left out of entries {where}" if where else "no closed period covers it"


def countable(query: Mapping[str, object]) -> pb.EntryFilter | None:
    """The filter of a query whose rows periods can be counted against; None of any other."""
    known = {"start_index", "end_index", "agency", "agency_role", "kinds"}
    known |= {"recorded_from", "recorded_until"}
    if not set(query) <= known or ("agency" in query and query.get("agency_role") != _ORIGIN):
        return None
    try:
        return ParseDict(dict(query), pb.EntryFilter())
    except ParseError:
        return None


def answers(wanted: pb.EntryFilter, index: int, leaf: bytes) -> bool:
    """Whether an entry is what a countable query asks for: no other may stand in for one that is left out."""
    facts = _facts(leaf)
    kinds = {kind_of(name) for name in wanted.kinds}
    return (
        wanted.start_index <= index
        and (not wanted.end_index or index < wanted.end_index)
        and (not wanted.agency or facts.origin_agency == wanted.agency)
        and (not kinds or facts.kind in kinds)
        and (
            not wanted.HasField("recorded_from")
            or wanted.recorded_from.ToMicroseconds() <= facts.recorded_us
        )
        and (
            not wanted.HasField("recorded_until")
            or facts.recorded_us < wanted.recorded_until.ToMicroseconds()
        )
    )


_ORIGIN = pb.AgencyRole.Name(pb.AGENCY_ROLE_ORIGIN)


def verify_complete(
    indexes: Sequence[int], wanted: pb.EntryFilter, tree_size: int, closings: Iterable[Closing]
) -> Complete:
    """Hold the rows of a report against the ledger's own counts; raises VerificationError.

    A span is counted when the report asked for all of it. A span that begins when the time asked for does is
    not: what was recorded just before may be in it.
    """
    end = min(wanted.end_index or tree_size, tree_size)
    kinds = {kind_of(name) for name in wanted.kinds}
    spans = []
    counted = 0
    for one in closings:
        within = wanted.start_index <= one.first_index and one.end_index <= end
        if not within or not _within_time(one, wanted):
            continue
        expected = sum(
            number
            for (agency, kind), number in one.totals.items()
            if (not wanted.agency or agency == wanted.agency) and (not kinds or kind in kinds)
        )
        there = sum(1 for index in indexes if one.first_index <= index < one.end_index)
        if there != expected:
            raise VerificationError(
                "REPORT_INCOMPLETE",
                f"of entries {one.first_index} to {one.end_index - 1} it has {there} rows; the ledger "
                f"counted {expected} (period closed in entry {one.index})",
            )
        spans.append((one.first_index, one.end_index))
        counted += there
    return Complete(tuple(spans), counted)


def _within_time(closing: Closing, wanted: pb.EntryFilter) -> bool:
    after = (
        not wanted.HasField("recorded_from")
        or wanted.recorded_from.ToMicroseconds() < closing.starts_us
    )
    before = (
        not wanted.HasField("recorded_until")
        or closing.ends_us <= wanted.recorded_until.ToMicroseconds()
    )
    return after and before


def _facts(leaf: bytes) -> EntryFacts:
    entry = _entry(leaf)
    return EntryFacts(0, 0, "") if entry is None else facts_of(entry)


def _entry(leaf: bytes) -> Entry | None:
    try:
        return Entry.FromString(leaf)
    except DecodeError:
        return None


def _failed(index: int, what: str) -> VerificationError:
    return VerificationError("PERIOD_WRONG", f"the period closed in entry {index}: {what}")
