"""What the engine is told of the circumstances of a search, and what of them nobody knows.

Some are stated with the search, some follow from the registry. They are worked out only for a party whose
rules read one of them.

Invariants:
- A fact is told, or it is unknown, or it may rightly be absent: what belongs to an instrument or an emergency
  is absent where it is stated that there is none.
- What is not stated is unknown, and never "no". Nobody knows which sets have an offence that is neither coded
  nor cited.
- The times of instruments and emergencies are compared with the time of the decision here, so that rules need
  no arithmetic; what is told of them is the same for most moments.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.type.v1.circumstances_pb2 import (
    Emergency,
    Instrument,
    InstrumentKind,
    InstrumentStatus,
)
from countersign.type.v1.search_pb2 import OffenceSeverity, SearchFacts
from directive.entities import ref
from directive.vocabulary import Vocabulary
from shared.agency_class import class_of_agency
from shared.registry import Registry

YEAR_AGO: Final = "yearAgo"
"""Follows from the time of the decision, which has a likeness of its own."""
_SETS: Final = ("offenceSets", "equivalentSets")
STATED: Final = {
    "probeEdit": ("probe_edit", "ProbeEdit"),
    "route": ("route", "RequestRoute"),
    "protectedBasis": ("protected_basis", "ProtectedBasis"),
    "investigation": ("investigation", "InvestigationStage"),
    "chargeStatus": ("charge_status", "ChargeStatus"),
}
FLAGS: Final = {
    "consentGiven": "consent_given",
    "askedForIdentity": "asked_for_identity",
    "requestFormAttested": "request_form_attested",
    "unsolicited": "unsolicited",
}
_OF_INSTRUMENT: Final = {
    "instrumentStatus": ("status", "InstrumentStatus"),
    "instrumentIssuer": ("issuer", "InstrumentIssuer"),
    "instrumentScope": ("scope", "InstrumentScope"),
}
INSTRUMENT: Final = (
    *("instrument", *_OF_INSTRUMENT),
    *("instrumentJurisdiction", "instrumentInForce"),
)
"""Those that tell of the instrument."""
EMERGENCY: Final = ("emergency", "emergencyHours", "emergencyBasisGiven", "ratificationOverdue")
_REGISTERED: Final = ("requesterClass", "galleryOrigin", "lowestGroupAccuracy")

CIRCUMSTANCES: Final = frozenset((*_SETS, *STATED, *FLAGS, *INSTRUMENT, *EMERGENCY, *_REGISTERED))
"""The facts that are told here."""
CLOSED_CIRCUMSTANCES: Final[Mapping[str, str]] = {
    **{fact: enum for fact, (_, enum) in (*STATED.items(), *_OF_INSTRUMENT.items())},
    "instrument": "InstrumentKind",
    "requesterClass": "AgencyClass",
    "galleryOrigin": "GalleryOrigin",
}
"""Those that are told in the words of a closed list."""

_NOT_CRIMINAL: Final = OffenceSeverity.OFFENCE_SEVERITY_NOT_CRIMINAL
_NONE: Final = InstrumentKind.INSTRUMENT_KIND_NONE
_GRANTED: Final = InstrumentStatus.INSTRUMENT_STATUS_GRANTED


@dataclass(frozen=True)
class Told:
    """The circumstances of one search."""

    phrases: Mapping[str, str]
    """Fact to what the engine is told of it."""
    unknown: frozenset[str]
    """Facts that somebody would have to know and nobody said."""


class Circumstanced:
    """Puts circumstances into the words of one vocabulary and one registry."""

    def __init__(self, registry: Registry, vocabulary: Vocabulary) -> None:
        self._registry = registry
        self._words = vocabulary.words
        self._by_code: dict[str, set[str]] = defaultdict(set)
        self._by_statute: dict[str, set[str]] = defaultdict(set)
        for name, offences in registry.offence_sets.items():
            for code in offences.nibrs:
                self._by_code[code].add(name)
            for statute in offences.statutes:
                self._by_statute[statute].add(name)

    def tell(self, facts: SearchFacts, at: datetime) -> Told:
        """What is told of them at that time."""
        values: dict[str, object] = {}
        said = facts.circumstances
        for fact, (name, enum) in STATED.items():
            self._word(values, fact, enum, getattr(said, name))
        for fact, name in FLAGS.items():
            if said.HasField(name):  # type: ignore[arg-type]  # one of the names above
                values[fact] = getattr(said, name)
        offence = facts.offence
        if offence.nibrs_code or offence.statute or offence.severity == _NOT_CRIMINAL:
            values["offenceSets"] = _sets(
                self._by_code.get(offence.nibrs_code, set())
                | self._by_statute.get(offence.statute, set())
            )
        values["equivalentSets"] = _sets(self._by_statute.get(said.equivalent_statute, set()))
        absent = self._instrument(values, said.instrument, at)
        if said.HasField("emergency"):
            absent |= emergency_told(values, said.emergency, facts.emergency_basis, at)
        self._registered(values, facts)
        return Told(
            {fact: phrase(fact, value) for fact, value in values.items()},
            CIRCUMSTANCES - values.keys() - absent,
        )

    def _word(self, values: dict[str, object], fact: str, enum: str, number: int) -> None:
        word = self._words(enum).get(number)
        if word is not None:
            values[fact] = ref(enum, word)

    def _instrument(
        self, values: dict[str, object], instrument: Instrument, at: datetime
    ) -> set[str]:
        """What of it may rightly be absent."""
        self._word(values, "instrument", "InstrumentKind", instrument.kind)
        if instrument.kind == _NONE:
            return set(INSTRUMENT[1:])
        for fact, (name, enum) in _OF_INSTRUMENT.items():
            self._word(values, fact, enum, getattr(instrument, name))
        if instrument.jurisdiction:
            values["instrumentJurisdiction"] = ref("Jurisdiction", instrument.jurisdiction)
        in_force = instrument_in_force(instrument, at)
        if in_force is not None:
            values["instrumentInForce"] = in_force
        return set()

    def _registered(self, values: dict[str, object], facts: SearchFacts) -> None:
        self._word(values, "requesterClass", "AgencyClass", class_of_agency(facts.origin_agency))
        gallery = self._registry.galleries.get(facts.gallery)
        if gallery is not None:
            self._word(values, "galleryOrigin", "GalleryOrigin", gallery.proto_origin)
        system = self._registry.systems.get(facts.system)
        if system is not None and system.lowest_group_accuracy is not None:
            values["lowestGroupAccuracy"] = system.lowest_group_accuracy


def phrase(fact: str, value: object) -> str:
    """One member of the context in JSON."""
    return f'"{fact}": {json.dumps(value)}'


def year_before(moment: datetime) -> datetime:
    """The same day and time a year earlier; of 29 February, the 28th."""
    day = 28 if (moment.month, moment.day) == (2, 29) else moment.day
    return moment.replace(year=max(moment.year - 1, 1), day=day)


def _sets(names: Iterable[str]) -> list[dict[str, str]]:
    return [ref("OffenceSet", name) for name in sorted(names)]


def _moment(stamp: Timestamp) -> datetime | None:
    """The time; None for one that is no time at all."""
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None


def instrument_in_force(instrument: Instrument, at: datetime) -> bool | None:
    """Whether it authorises one more search; None when that cannot be known."""
    if instrument.status != _GRANTED:
        return False if instrument.status else None
    bounds: list[bool | None] = [
        _not_after(instrument.issued_at, at) if instrument.HasField("issued_at") else None
    ]
    if not instrument.never_expires:
        expired = _not_after(instrument.expires_at, at)
        known = instrument.HasField("expires_at") and expired is not None
        bounds.append(not expired if known else None)
    if not instrument.unlimited_uses:
        bounds.append(instrument.uses_left > 0 if instrument.HasField("uses_left") else None)
    if False in bounds:
        return False
    return None if None in bounds else True


def _not_after(stamp: Timestamp, at: datetime) -> bool | None:
    moment = _moment(stamp)
    return None if moment is None else moment <= at


def emergency_told(
    values: dict[str, object], emergency: Emergency, basis: str, at: datetime
) -> set[str]:
    """What of it may rightly be absent."""
    values["emergency"] = emergency.claimed
    if not emergency.claimed:
        return set(EMERGENCY[1:])
    values["emergencyBasisGiven"] = bool(basis.strip())
    began = _moment(emergency.began_at) if emergency.HasField("began_at") else None
    if began is not None and began <= at:
        values["emergencyHours"] = (at - began) // timedelta(hours=1)
    overdue = _not_after(emergency.ratify_by, at) if emergency.HasField("ratify_by") else None
    if overdue is not None:
        values["ratificationOverdue"] = overdue
    return set()
