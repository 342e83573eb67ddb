"""One search as the engine is asked about it, and what stands in the way of asking.

Whatever the registry or the vocabulary does not know is a fault, never a guess: the engine is only
asked about searches in which every name and every value is known.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from countersign.type.v1.decision_pb2 import Seat
from countersign.type.v1.search_pb2 import SearchFacts
from directive.entities import ref
from directive.vocabulary import NAMESPACE, Vocabulary
from shared.registry import Registry

CANDIDATES_DEFAULT: Final = 20
"""What the contract says that 0 asks for."""


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
    _request: Mapping[str, Any]
    _context: str

    def request(self, seat_word: str) -> dict[str, Any]:
        """The engine's request for one seat. Written by hand: the words of a seat are plain letters."""
        seat = f'{{"seat": {{"type": "{NAMESPACE}::Seat", "id": "{seat_word}"}}, '
        return {**self._request, "context": seat + self._context}


def ask(
    facts: SearchFacts, officer: str, at: datetime, registry: Registry, vocabulary: Vocabulary
) -> Question:
    """The question about one search."""
    moment = at.astimezone(UTC)
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    words = _words(facts, vocabulary)
    beneficiary = facts.beneficiary_agency if facts.HasField("beneficiary_agency") else None
    context: dict[str, Any] = {
        "now": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
        **{name: ref(kind, word) for name, (kind, word) in words.items() if word is not None},
        "nibrsCode": facts.offence.nibrs_code,
        "statute": facts.offence.statute,
        "attempt": facts.offence.attempt,
        "caseNumber": facts.case_number,
        "narrativeGiven": bool(facts.narrative),
        "candidatesMax": facts.candidates_max or CANDIDATES_DEFAULT,
    }
    if beneficiary in registry.agencies:
        # One that is not registered is as good as unknown: it stays absent.
        context["beneficiary"] = ref("Agency", str(beneficiary))
    return Question(
        at=moment,
        seats=_seats(facts, registry),
        faults=_faults(facts, officer, words, registry),
        _request={
            "principal": ref("Officer", officer),
            "action": ref("Action", "submitSearch"),
            "resource": ref("Gallery", facts.gallery),
        },
        _context=json.dumps(context)[1:],
    )


def _words(facts: SearchFacts, vocabulary: Vocabulary) -> dict[str, tuple[str, str | None]]:
    return {
        "purpose": ("Purpose", vocabulary.word("Purpose", facts.purpose)),
        "suspicion": ("SuspicionLevel", vocabulary.word("SuspicionLevel", facts.suspicion)),
        "severity": (
            "OffenceSeverity",
            vocabulary.word("OffenceSeverity", facts.offence.severity),
        ),
        "provenance": ("ProbeProvenance", vocabulary.word("ProbeProvenance", facts.provenance)),
        "captureMode": ("CaptureMode", vocabulary.word("CaptureMode", facts.capture_mode)),
    }


def _seats(facts: SearchFacts, registry: Registry) -> tuple[SeatOf, ...]:
    """Who must be asked, in the order of the seats. The same party may hold several."""
    parties = registry.parties(facts)

    def agency(seat: Seat.ValueType, ori: str | None, unknown: Fault) -> SeatOf:
        if not ori:
            return SeatOf(seat, "", unknown)
        return SeatOf(seat, ori, None if ori in registry.agencies else Fault.UNKNOWN_AGENCY)

    jurisdictions = [SeatOf(Seat.SEAT_JURISDICTION, code, None) for code in parties.jurisdictions]
    return (
        agency(Seat.SEAT_ORIGIN, parties.origin, Fault.UNKNOWN_AGENCY),
        agency(Seat.SEAT_BENEFICIARY, parties.beneficiary, Fault.BENEFICIARY_UNKNOWN),
        agency(Seat.SEAT_OPERATOR, parties.operator, Fault.UNKNOWN_SYSTEM),
        agency(Seat.SEAT_GALLERY_OWNER, parties.gallery_owner, Fault.UNKNOWN_GALLERY),
        *(jurisdictions or [SeatOf(Seat.SEAT_JURISDICTION, "", Fault.JURISDICTION_UNKNOWN)]),
    )


def _faults(
    facts: SearchFacts,
    officer: str,
    words: Mapping[str, tuple[str, str | None]],
    registry: Registry,
) -> tuple[Fault, ...]:
    known = registry.officers.get(officer)
    gallery = registry.galleries.get(facts.gallery)
    checks = {
        Fault.UNKNOWN_AGENCY: facts.origin_agency not in registry.agencies,
        Fault.UNKNOWN_SYSTEM: facts.system not in registry.systems,
        # A gallery of another system is unknown to this one.
        Fault.UNKNOWN_GALLERY: gallery is None or gallery.system != facts.system,
        Fault.UNKNOWN_OFFICER: known is None,
        Fault.OFFICER_OF_ANOTHER_AGENCY: known is not None and known.agency != facts.origin_agency,
        Fault.FACT_UNKNOWN: any(word is None for _, word in words.values()),
    }
    return tuple(fault for fault, found in checks.items() if found)
