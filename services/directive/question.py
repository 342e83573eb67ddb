"""One search as the engine is asked about it, and what stands in the way of asking.

Whatever the registry or the vocabulary does not know is a fault, never a guess: the engine is only
asked about searches in which every name and every value is known.
"""

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from countersign.type.v1.decision_pb2 import Seat
from countersign.type.v1.search_pb2 import SearchFacts
from directive.cedar_values import Value
from directive.circumstances import (
    CIRCUMSTANCES,
    CLOSED_CIRCUMSTANCES,
    YEAR_AGO,
    Circumstanced,
    Told,
    phrase,
    year_before,
)
from directive.entities import ref
from directive.likeness import Likeness
from directive.vocabulary import Vocabulary
from shared.referral import ASKED_AT_PEER
from shared.registry import PartiesOf, Registry
from shared.unknown_fields import has_unknown_fields

CANDIDATES_DEFAULT: Final = 20
"""What the contract says that 0 asks for."""

SEATS_KEPT_MAX: Final = 1024
"""Names come from requesters, so there may be any number of them; the true ones are few."""

_NOW: Final = "now"
_SEAT: Final = "seat"
_CLOSED: Final = {
    _SEAT: "Seat",
    "purpose": "Purpose",
    "suspicion": "SuspicionLevel",
    "severity": "OffenceSeverity",
    "provenance": "ProbeProvenance",
    "captureMode": "CaptureMode",
}
"""The facts that every search tells in the words of a closed list."""
_GALLERY_CLASS: Final = "class"
"""Not a fact but an attribute of the gallery, which is told in the words of a closed list all the same."""
CLOSED: Final[Mapping[str, str]] = {
    **_CLOSED,
    **CLOSED_CIRCUMSTANCES,
    _GALLERY_CLASS: "GalleryClass",
}
"""All that is told in the words of a closed list, to the list."""
_ACTION: Final = ref("Action", "submitSearch")

# Looking an enum's value up by its name costs more than comparing it.
_ORIGIN: Final = Seat.SEAT_ORIGIN
_BENEFICIARY: Final = Seat.SEAT_BENEFICIARY
_OPERATOR: Final = Seat.SEAT_OPERATOR
_GALLERY_OWNER: Final = Seat.SEAT_GALLERY_OWNER
_JURISDICTION: Final = Seat.SEAT_JURISDICTION


class Fault(StrEnum):
    """Why a verdict cannot be told. Append-only: clients and reports branch on these."""

    NO_DIRECTIVE = "NO_DIRECTIVE"
    EVALUATION_ERROR = "EVALUATION_ERROR"
    NO_DECISION = "NO_DECISION"
    BENEFICIARY_UNKNOWN = "BENEFICIARY_UNKNOWN"
    JURISDICTION_UNKNOWN = "JURISDICTION_UNKNOWN"
    UNKNOWN_AGENCY = "UNKNOWN_AGENCY"
    UNKNOWN_SYSTEM = "UNKNOWN_SYSTEM"
    UNKNOWN_GALLERY = "UNKNOWN_GALLERY"
    UNKNOWN_OFFICER = "UNKNOWN_OFFICER"
    OFFICER_OF_ANOTHER_AGENCY = "OFFICER_OF_ANOTHER_AGENCY"
    FACT_UNKNOWN = "FACT_UNKNOWN"
    ASKED_AT_PEER = ASKED_AT_PEER
    """Of a search between two installations: the party is asked at the other one."""
    PARTY_EXPELLED = "PARTY_EXPELLED"
    """The registrars have expelled the party, or who registered what its rules ask for."""


@dataclass(frozen=True)
class SeatOf:
    """A seat with the party that holds it; the party is empty when nobody knows."""

    seat: Seat.ValueType
    party: str
    fault: Fault | None


@dataclass(frozen=True)
class Question:
    """What is asked, of whom, and what makes it unanswerable."""

    at: datetime
    """The time that the rules see, in whole milliseconds as Cedar counts."""
    seats: tuple[SeatOf, ...]
    faults: tuple[Fault, ...]
    """When there are any, no party can tell."""
    officer: str
    gallery: str
    beneficiary: str
    """Empty when it is not registered, or not known."""
    _told: Mapping[str, str]
    """Facts that have few values, as the engine is told them."""
    _texts: Mapping[str, str]
    """Facts that may be any text."""
    _seats_told: Mapping[int, str]
    _tell: Callable[[], Told]

    @cached_property
    def _circumstances(self) -> Told:
        """Worked out when the first party reads one of them."""
        return self._tell()

    def unknown(
        self,
        seat: Seat.ValueType,
        circumstances: frozenset[str],
        lacking: Mapping[str, frozenset[str]],
    ) -> list[str]:
        """Which of these circumstances nobody knows, and which facts are told in a word that is lacking."""
        known = self._told
        found = [
            fact
            for fact, told in lacking.items()
            if (known.get(fact) or self._phrase(fact, seat)) in told
        ]
        if circumstances:
            found += circumstances & self._circumstances.unknown
        return sorted(found)

    def supposing(self, circumstances: Mapping[str, str]) -> "Question":
        """The same search, were the engine told these circumstances of it instead."""
        told = self._circumstances
        supposed = Told({**told.phrases, **circumstances}, told.unknown.difference(circumstances))
        return replace(self, _tell=lambda: supposed)

    def request(self, seat: Seat.ValueType, facts: Iterable[str]) -> dict[str, Any]:
        """The engine's request for one seat, in which these facts are told as far as they are known."""
        phrases = [told for fact in facts if (told := self._phrase(fact, seat)) is not None]
        context = ", ".join(phrases)
        return {
            "principal": ref("Officer", self.officer),
            "action": _ACTION,
            "resource": ref("Gallery", self.gallery),
            "context": f"{{{context}}}",
        }

    def values(self, facts: Iterable[str], read: Callable[[str], Value]) -> dict[str, Value]:
        """The values that `request` tells of these facts, which are the same for each seat.

        `read` gives that of a phrase. The seat is the caller's to tell.
        """
        values: dict[str, Value] = {}
        for fact in facts:
            told = self._told.get(fact)
            if told is not None:
                values[fact] = read(told)
            elif fact in self._texts:
                values[fact] = self._texts[fact]
            elif fact == _NOW:
                values[fact] = self.at.replace(tzinfo=None)
            elif fact == YEAR_AGO:
                values[fact] = year_before(self.at).replace(tzinfo=None)
            elif fact in CIRCUMSTANCES:
                told = self._circumstances.phrases.get(fact)
                if told is not None:
                    values[fact] = read(told)
        return values

    def _phrase(self, fact: str, seat: Seat.ValueType) -> str | None:
        """What is told of one fact; None when it is not told."""
        if fact in self._texts:
            return phrase(fact, self._texts[fact])
        if fact in CIRCUMSTANCES:
            return self._circumstances.phrases.get(fact)
        if fact == _SEAT:
            return self._seats_told[seat]
        if fact == _NOW:
            return _time_phrase(_NOW, self.at)
        if fact == YEAR_AGO:
            return _time_phrase(YEAR_AGO, year_before(self.at))
        return self._told.get(fact)

    def key(self, facts: Iterable[str], likeness: Likeness) -> tuple[Hashable, ...]:
        """Equal for questions about which rules that are told these facts cannot but say the same.

        The seat is left out: it is the caller's to add what the rules tell of seats.
        """
        told, texts = self._told, self._texts
        key: list[Hashable] = [
            self.officer if likeness.officer else None,
            self.gallery if likeness.gallery else None,
        ]
        for fact in facts:
            if fact == _NOW:
                key.append(likeness.of_moment(_NOW, self.at))
            elif fact in texts:
                key.append(likeness.of_text(fact, texts[fact]))
            elif fact in CIRCUMSTANCES:
                key.append(self._circumstances.phrases.get(fact))
            elif fact == YEAR_AGO:
                key.append(likeness.of_moment(YEAR_AGO, year_before(self.at)))
            elif fact != _SEAT:
                key.append(told.get(fact))
        return tuple(key)


class Asking:
    """Puts searches into the words of one vocabulary and one registry."""

    def __init__(
        self, registry: Registry, vocabulary: Vocabulary, has_ordered: Callable[[str, date], bool]
    ) -> None:
        """`has_ordered` says of a country or union whether it has had a directive in force by a day."""
        self._registry = registry
        self._has_ordered = has_ordered
        self._parties: dict[tuple[str | None, ...], PartiesOf] = {}
        self._seats: dict[tuple[object, ...], tuple[SeatOf, ...]] = {}
        self._words_fit = vocabulary.words_fit
        self._phrases: dict[str, dict[int, str]] = {}
        for fact in _CLOSED:
            self._phrases[fact] = in_words(vocabulary, fact)
        self._agencies = {
            ori: phrase("beneficiary", ref("Agency", ori)) for ori in registry.agencies
        }
        self._circumstanced = Circumstanced(registry, vocabulary)
        classes = in_words(vocabulary, _GALLERY_CLASS)
        self._classes = {
            name: classes[one.proto_class]
            for name, one in registry.galleries.items()
            if one.proto_class in classes
        }
        self._flags = {
            fact: (phrase(fact, False), phrase(fact, True))
            for fact in ("attempt", "narrativeGiven")
        }

    def with_officers(self, registry: Registry) -> "Asking":
        """Of a registry in which officers, and nothing else, may have changed."""
        other = copy.copy(self)
        other._registry = registry
        return other

    def ask(self, facts: SearchFacts, officer: str, at: datetime) -> Question:
        """The question about one search."""
        moment = at.astimezone(UTC)
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        offence = facts.offence
        closed = {
            "purpose": facts.purpose,
            "suspicion": facts.suspicion,
            "severity": offence.severity,
            "provenance": facts.provenance,
            "captureMode": facts.capture_mode,
        }
        told = {
            fact: phrase
            for fact, number in closed.items()
            if (phrase := self._phrases[fact].get(number)) is not None
        }
        all_known = len(told) == len(closed) and not has_unknown_fields(facts)
        faults = self._faults(facts, officer, all_known=all_known)
        told["attempt"] = self._flags["attempt"][offence.attempt]
        told["narrativeGiven"] = self._flags["narrativeGiven"][bool(facts.narrative)]
        told["candidatesMax"] = f'"candidatesMax": {facts.candidates_max or CANDIDATES_DEFAULT}'
        beneficiary = ""
        if facts.HasField("beneficiary_agency") and facts.beneficiary_agency in self._agencies:
            # One that is not registered is as good as unknown: it stays absent.
            told["beneficiary"] = self._agencies[facts.beneficiary_agency]
            beneficiary = facts.beneficiary_agency
        if facts.gallery in self._classes:
            told[_GALLERY_CLASS] = self._classes[facts.gallery]
        return Question(
            at=moment,
            seats=self._seats_of(facts, moment.date()),
            faults=faults,
            officer=officer,
            gallery=facts.gallery,
            beneficiary=beneficiary,
            _told=told,
            _texts={
                "nibrsCode": offence.nibrs_code,
                "statute": offence.statute,
                "caseNumber": facts.case_number,
            },
            _seats_told=self._phrases[_SEAT],
            _tell=lambda: self._circumstanced.tell(facts, moment),
        )

    def _seats_of(self, facts: SearchFacts, day: date) -> tuple[SeatOf, ...]:
        """What `_seats` gives, kept: it follows from four names and from who above them has ordered
        anything by that day, and the registry never changes."""
        beneficiary = facts.beneficiary_agency if facts.HasField("beneficiary_agency") else None
        names = facts.origin_agency, beneficiary, facts.system, facts.gallery
        parties = self._parties.get(names)
        if parties is None:
            if len(self._parties) >= SEATS_KEPT_MAX:
                self._parties.clear()
                self._seats.clear()
            parties = self._parties[names] = self._registry.parties(facts)
        above = tuple(one for one in parties.jurisdictions_above if self._has_ordered(one, day))
        seats = self._seats.get((*names, above))
        if seats is None:
            seats = self._seats[*names, above] = _seats(parties, above, self._registry)
        return seats

    def _faults(self, facts: SearchFacts, officer: str, *, all_known: bool) -> tuple[Fault, ...]:
        registry = self._registry
        known = registry.officers.get(officer)
        gallery = registry.galleries.get(facts.gallery)
        foreign = known is not None and known.agency != facts.origin_agency
        checks = (
            (Fault.UNKNOWN_AGENCY, facts.origin_agency not in registry.agencies),
            (Fault.UNKNOWN_SYSTEM, facts.system not in registry.systems),
            # A gallery of another system is unknown to this one.
            (Fault.UNKNOWN_GALLERY, gallery is None or gallery.system != facts.system),
            (Fault.UNKNOWN_OFFICER, known is None),
            (Fault.OFFICER_OF_ANOTHER_AGENCY, foreign),
            (Fault.FACT_UNKNOWN, not all_known),
            # Not told of the fact in question, the engine would not notice a word that it lacks.
            (Fault.NO_DECISION, not self._words_fit),
        )
        return tuple(fault for fault, found in checks if found)


def in_words(vocabulary: Vocabulary, fact: str) -> dict[int, str]:
    """What the engine is told for each value of what is told in the words of a closed list."""
    enum = CLOSED[fact]
    return {n: phrase(fact, ref(enum, word)) for n, word in vocabulary.words(enum).items()}


def _time_phrase(fact: str, moment: datetime) -> str:
    # Cedar's calendar begins with the year 0001, as Python's does.
    return f'"{fact}": "{moment.isoformat(timespec="milliseconds")[:-6]}Z"'


def _seats(parties: PartiesOf, above: Iterable[str], registry: Registry) -> tuple[SeatOf, ...]:
    """Who must be asked, in the order of the seats. The same party may hold several."""

    def agency(seat: Seat.ValueType, ori: str | None, unknown: Fault) -> SeatOf:
        if not ori:
            return SeatOf(seat, "", unknown)
        if ori not in registry.agencies:
            return SeatOf(seat, ori, Fault.UNKNOWN_AGENCY)
        return party(seat, ori)

    def party(seat: Seat.ValueType, name: str) -> SeatOf:
        return SeatOf(seat, name, Fault.PARTY_EXPELLED if name in registry.expelled else None)

    binding = sorted((*parties.jurisdictions, *above))
    jurisdictions = [party(_JURISDICTION, code) for code in binding]
    return (
        agency(_ORIGIN, parties.origin, Fault.UNKNOWN_AGENCY),
        agency(_BENEFICIARY, parties.beneficiary, Fault.BENEFICIARY_UNKNOWN),
        agency(_OPERATOR, parties.operator, Fault.UNKNOWN_SYSTEM),
        agency(_GALLERY_OWNER, parties.gallery_owner, Fault.UNKNOWN_GALLERY),
        *(jurisdictions or [SeatOf(_JURISDICTION, "", Fault.JURISDICTION_UNKNOWN)]),
    )
