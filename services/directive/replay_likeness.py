"""Which searches of the past are alike to all rules, with a proposal and without: they are decided once.

It is `directive.likeness` over a whole search, told from the record before a question is made of it.

Invariants:
- Only the rules of those who are asked about a search count for it, and only the facts that these rules read.
  That a value has no word is a fault, whether a rule reads the fact or not.
- Officers are alike only where the registry says the same of them but for the days of their certificates, no
  rule names an officer, and each such day is compared with the time alone, with which it compares the same.
- Of circumstances the key has what `directive.circumstances` makes of them at the time, not the times.
- What is not known to be alike is not.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, Protocol, TypeAlias

from cedarpy import pst

from countersign.ledger.v1.entry_pb2 import SearchSummary
from countersign.type.v1.search_pb2 import OffenceSeverity, SearchFacts
from directive.book import Book
from directive.circumstances import (
    EMERGENCY,
    FLAGS,
    INSTRUMENT,
    STATED,
    YEAR_AGO,
    emergency_told,
    instrument_in_force,
    year_before,
)
from directive.entities import certificates, instants
from directive.likeness import Likeness, likeness
from directive.projection import facts_read
from directive.question import Question, in_words
from directive.recorded import RecordedSearch
from directive.rules import Rule, walk
from directive.vocabulary import NAMESPACE
from shared.registry import Officer, Registry

PLANS_KEPT_MAX: Final = 20_000
"""Who asks whom for what gallery, between two changes of the rules."""
OFFICERS_KEPT_MAX: Final = 200_000

_OFFICER: Final = pst.EntityType("Officer", (NAMESPACE,))
_CLOSED: Final = ("purpose", "suspicion", "provenance", "captureMode", "severity")
_NOT_CRIMINAL: Final = OffenceSeverity.OFFENCE_SEVERITY_NOT_CRIMINAL
_NOW: Final = "now"
_ORDERED: Final = frozenset({"eq", "not_eq", "less", "less_eq", "greater", "greater_eq"})
_TIMES: Final = (pst.GetAttr(pst.Var("context"), _NOW), pst.GetAttr(pst.Var("context"), YEAR_AGO))

_Said: TypeAlias = SearchSummary | SearchFacts
_Standing: TypeAlias = tuple[int, tuple[datetime, ...]]
"""A number for what the registry says of officers, and the days of one's certificates."""


class Asks(Protocol):
    """Makes a question of a search."""

    def ask(self, facts: SearchFacts, officer: str, at: datetime) -> Question:
        """The question."""


@dataclass(frozen=True)
class _Plan:
    """What the rules of those who are asked tell apart."""

    number: int
    read: frozenset[str]
    likeness: Likeness
    officer_by_standing: bool
    """Whether officers of whom the registry says the same are alike."""
    circumstances: "_Circumstances"


class Alike:
    """Tells searches of one world apart, or of worlds that differ in officers alone."""

    def __init__(self, books: Sequence[tuple[Book, Asks]], registry: Registry) -> None:
        """`books` each with what makes questions for it."""
        self._books = tuple(books)
        self._registry = registry
        self._days = instants(registry)
        self._agreed = _agreed(registry)
        words = {fact: in_words(books[0][0].vocabulary, fact) for fact in _CLOSED}
        self._words = {fact: frozenset(found) for fact, found in words.items()}
        self._facts = books[0][0].vocabulary.facts
        self._coded = _Offences(registry)
        self._plans: dict[Hashable, _Plan] = {}
        self._made = 0
        self._standings: dict[str, tuple[Officer, _Standing]] = {}
        self._said_of_officers: dict[Hashable, int] = {}

    def over(self, registry: Registry) -> None:
        """From now on by a registry in which officers, and nothing else, may have changed."""
        if registry.days != self._registry.days:
            self._days = instants(registry)
            # The others know no day of an officer's.
            kept = {asked: plan for asked, plan in self._plans.items() if plan.officer_by_standing}
            self._plans = kept
        self._registry = registry

    def key(self, search: RecordedSearch) -> Hashable | None:
        """Equal for searches of which all rules say the same; None when that cannot be told."""
        if search.unfamiliar:
            return None
        said, at = search.said, search.at
        moment = at.replace(microsecond=at.microsecond // 1000 * 1000)
        plan = self._plan(search, moment.date())
        read, alike, offence, opened = plan.read, plan.likeness, said.offence, search.openings
        return (
            plan.number,
            self._officer(search, plan, moment),
            *self._closed(said, read),
            alike.of_moment(_NOW, moment) if _NOW in read else None,
            alike.of_moment(YEAR_AGO, year_before(moment)) if YEAR_AGO in read else None,
            offence.attempt if "attempt" in read else None,
            bool(opened.get("narrative")) if "narrativeGiven" in read else None,
            said.candidates_max if "candidatesMax" in read else None,
            alike.of_text("nibrsCode", offence.nibrs_code) if "nibrsCode" in read else None,
            alike.of_text("statute", offence.statute) if "statute" in read else None,
            alike.of_text("caseNumber", opened.get("case_number", ""))
            if "caseNumber" in read
            else None,
            self._coded.key(said) if "offenceSets" in read else None,
            plan.circumstances.key(search, moment) if plan.circumstances.read else None,
        )

    def _plan(self, search: RecordedSearch, day: date) -> _Plan:
        said = search.said
        asked = (
            said.origin_agency,
            said.beneficiary_agency,
            said.system,
            said.gallery,
            *[book.period(day) for book, _ in self._books],
        )
        plan = self._plans.get(asked)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT_MAX:
                self._plans.clear()
            plan = self._plans[asked] = self._planned(search, day)
        return plan

    def _planned(self, search: RecordedSearch, day: date) -> _Plan:
        rules: dict[int, Rule] = {}
        for book, asks in self._books:
            for seat in asks.ask(search.facts, search.officer, search.at).seats:
                applied = book.slice(seat.party, day)
                rules |= {id(one): one for one in applied.rules.values()} if applied else {}
        by_standing = _days_only_compared(rules.values())
        days = self._agreed if by_standing else self._days
        read = facts_read(rules.values(), self._facts)
        self._made += 1
        return _Plan(
            self._made,
            read,
            likeness(rules.values(), days),
            by_standing,
            _Circumstances(read, self._coded),
        )

    def _officer(self, search: RecordedSearch, plan: _Plan, moment: datetime) -> Hashable:
        name = search.officer
        known = self._registry.officers.get(name)
        if known is None:
            # Then no party is asked, whoever it is.
            return None
        if not plan.likeness.officer:
            return known.agency == search.said.origin_agency
        standing, days = self._standing(name, known)
        if not plan.officer_by_standing:
            return name, standing, days
        year_ago = year_before(moment) if days and YEAR_AGO in plan.read else None
        return (
            standing,
            *[_beside(day, moment) for day in days],
            *[_beside(day, year_ago) for day in days if year_ago is not None],
        )

    def _standing(self, name: str, officer: Officer) -> _Standing:
        kept = self._standings.get(name)
        found = kept[1] if kept is not None and kept[0] is officer else None
        if found is None:
            tags = sorted(certificates(officer).items())
            named = tuple(tag for tag, _ in tags)
            data = officer.agency, officer.active, frozenset(officer.lists), named
            number = self._said_of_officers.setdefault(data, len(self._said_of_officers))
            found = number, tuple(datetime.combine(day, time(), UTC) for _, day in tags)
            if len(self._standings) >= OFFICERS_KEPT_MAX:
                self._standings.clear()
            self._standings[name] = officer, found
        return found

    def _closed(self, said: _Said, read: frozenset[str]) -> Iterable[Hashable]:
        told = (
            said.purpose,
            said.suspicion,
            said.provenance,
            said.capture_mode,
            said.offence.severity,
        )
        words = self._words
        return [
            number if fact in read else number in words[fact]
            for fact, number in zip(_CLOSED, told, strict=True)
        ]


class _Offences:
    """Codes and statutes by which an offence is in a set of the registry."""

    def __init__(self, registry: Registry) -> None:
        sets = registry.offence_sets.values()
        self._codes = frozenset(code for one in sets for code in one.nibrs)
        self._statutes = frozenset(statute for one in sets for statute in one.statutes)

    def key(self, said: _Said) -> Hashable:
        """Equal for offences in the same sets. Of one that is neither coded nor cited nobody knows them."""
        offence = said.offence
        code, statute = offence.nibrs_code, offence.statute
        return (
            code if code in self._codes else bool(code),
            self.statute(statute) or bool(statute),
            offence.severity == _NOT_CRIMINAL,
        )

    def statute(self, statute: str) -> str:
        """The statute where some set has it."""
        return statute if statute in self._statutes else ""


class _Circumstances:
    """What rules that read these facts are told of the circumstances."""

    def __init__(self, read: Collection[str], offences: _Offences) -> None:
        self._stated = [name for fact, (name, _) in STATED.items() if fact in read]
        self._flags = [name for fact, name in FLAGS.items() if fact in read]
        self._equivalent = "equivalentSets" in read
        self._instrument = any(fact in read for fact in INSTRUMENT)
        self._in_force = "instrumentInForce" in read
        self._emergency = any(fact in read for fact in EMERGENCY)
        self._offences = offences
        self.read = bool(
            self._stated or self._flags or self._equivalent or self._instrument or self._emergency
        )
        """Whether they read any that a search states."""

    def key(self, search: RecordedSearch, moment: datetime) -> Hashable:
        """Equal for circumstances of which they are told the same."""
        if not search.said.HasField("circumstances"):
            return None
        said = search.said.circumstances
        key: list[Hashable] = [getattr(said, name) for name in self._stated]
        for name in self._flags:
            key.append(getattr(said, name) if said.HasField(name) else None)  # type: ignore[arg-type]
        if self._equivalent:
            key.append(self._offences.statute(said.equivalent_statute))
        if self._instrument and said.HasField("instrument"):
            one = said.instrument
            key += (one.kind, one.status, one.issuer, one.scope, one.jurisdiction)
            key.append(instrument_in_force(one, moment) if self._in_force else None)
        if self._emergency and said.HasField("emergency"):
            told: dict[str, object] = {}
            basis = search.openings.get("emergency_basis", "")
            emergency_told(told, said.emergency, basis, moment)
            key.append(tuple(told.items()))
        return tuple(key)


def _beside(day: datetime, moment: datetime) -> int:
    return (day > moment) - (day < moment)


def _agreed(registry: Registry) -> tuple[datetime, ...]:
    """The times that entities other than officers hold, sorted."""
    days = {day for one in registry.agencies.values() for day in one.agreements.values()}
    return tuple(datetime.combine(day, time(), UTC) for day in sorted(days))


def _days_only_compared(rules: Iterable[Rule]) -> bool:
    """Whether no rule names an officer, and each day of a certificate is compared with the time alone."""
    mentions = compared = 0
    for node in walk(tuple(rule.template for rule in rules)):
        if isinstance(node, pst.EntityUid) and node.type == _OFFICER:
            return False
        if not isinstance(node, pst.BinaryOp):
            continue
        mentions += node.op == "get_tag"
        if node.op in _ORDERED:
            for one, other in ((node.left, node.right), (node.right, node.left)):
                is_day = isinstance(other, pst.BinaryOp) and other.op == "get_tag"
                compared += one in _TIMES and is_day
    return mentions == compared
