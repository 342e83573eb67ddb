"""What an entry says of itself, as flat columns: the query index, exports and their verifiers read the same.

Invariant: everything here follows from the entry's own bytes, so whoever has the bytes can repeat it.
An event that this code does not know has its number and no further facts; none at all is kind 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.ledger.v1.entry_pb2 import Entry, SearchSummary
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome
from shared.kinds import KINDS, kind_number
from shared.obligations import term_us

_EVENTS = {field.name: field for field in Entry.DESCRIPTOR.oneofs_by_name["event"].fields}
EVENT_NAMES: Final = {number: name for name, number in KINDS.items()}
NO_EVENT: Final = 0

ENDS: Final = frozenset(
    KINDS[name]
    for name in ("search_answered", "search_failed", "search_expired", "search_withdrawn")
)
DECIDED: Final = KINDS["search_decided"]
OPENING_OUTCOMES: Final = frozenset(
    {DecisionOutcome.DECISION_OUTCOME_PERMITTED, DecisionOutcome.DECISION_OUTCOME_REFERRED}
)
"""Decisions that are followed by exactly one end: with any other the search has ended."""

_AGENCY = "agency"


def _with(field_name: str) -> frozenset[str]:
    return frozenset(
        name
        for name, event in _EVENTS.items()
        if event.message_type and field_name in event.message_type.fields_by_name
    )


WITH_SUMMARY = _with("summary")
_WITH_DECISION = _with("decision")
_WITH_DECIDED_INDEX = _with("decided_index")
WITH_ORIGIN = _with("origin_agency")
_WITH_CALLER = _with("caller")
_WITH_SYSTEM = _with("system")
_WITH_REASON = frozenset({"search_undecided", "request_rejected", "alarm_raised"})


class Claim(IntEnum):
    """Whether an emergency is claimed; 0 when nobody said."""

    NOT_CLAIMED = 1
    CLAIMED = 2


@dataclass(frozen=True, slots=True)
class Duty:
    """An obligation that came with a decision."""

    kind: str
    rule_id: str
    party: str
    term_us: int = 0
    """Within how long of the decision it is to be done; 0 when its rule sets no term."""


@dataclass(slots=True)
class EntryFacts:
    """One entry, flat. Text is empty and numbers are 0 where the entry says nothing."""

    kind: int
    recorded_us: int
    search_id: str
    decided_index: int | None = None
    """The decision that the entry belongs to, as it says; None in the decision itself."""
    origin_agency: str = ""
    beneficiary_agency: str = ""
    operator_agency: str = ""
    gallery_owner: str = ""
    caller_agency: str = ""
    """The agency whose system called, where the entry is about a call."""
    system: str = ""
    gallery: str = ""
    gallery_class: int = 0
    purpose: int = 0
    suspicion: int = 0
    offence: str = ""
    statute: str = ""
    severity: int = 0
    provenance: int = 0
    capture_mode: int = 0
    route: int = 0
    protected_basis: int = 0
    probe_edit: int = 0
    investigation: int = 0
    charge_status: int = 0
    instrument: int = 0
    """Its kind."""
    emergency: int = 0
    """Of `Claim`."""
    outcome: int = 0
    reason: str = ""
    candidates: int = 0
    jurisdictions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Rules that determined the decision, and rules with requirements that were not met; each once."""
    citations: tuple[str, ...] = ()
    duties: tuple[Duty, ...] = ()

    @property
    def agencies(self) -> tuple[str, ...]:
        """Each agency in whatever role, once."""
        return _distinct(
            (
                self.origin_agency,
                self.beneficiary_agency,
                self.operator_agency,
                self.gallery_owner,
                self.caller_agency,
            )
        )

    @property
    def kind_name(self) -> str:
        """Name of the event; its number when this code does not know it."""
        return kind_text(self.kind)


def kind_text(kind: int) -> str:
    """Name of a kind; its number when this code does not know it, and nothing when there is none."""
    return EVENT_NAMES.get(kind, str(kind) if kind else "")


def micros(stamp: Timestamp) -> int:
    """A time of an entry in microseconds since 1970, also one that no calendar has."""
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


def facts_of(entry: Entry) -> EntryFacts:
    """Read an entry's facts."""
    recorded = entry.recorded_at
    name = entry.WhichOneof("event")
    facts = EntryFacts(
        kind=kind_number(entry) or NO_EVENT if name is None else KINDS[name],
        recorded_us=micros(recorded),
        search_id=entry.search_id,
    )
    if name is None:
        return facts
    event: Any = getattr(entry, name)
    if name in _WITH_DECIDED_INDEX:
        facts.decided_index = event.decided_index
    if name in WITH_SUMMARY:
        _summary(facts, event.summary)
    else:
        if name in WITH_ORIGIN:
            facts.origin_agency = event.origin_agency
        if name in _WITH_SYSTEM:
            facts.system = event.system
    if name in _WITH_DECISION:
        _decision(facts, event.decision)
    if name in _WITH_CALLER:
        facts.caller_agency = _agency_of(event.caller)
    if name in _WITH_REASON:
        facts.reason = event.reason
    if name == "search_answered":
        facts.gallery = event.gallery
        facts.candidates = event.candidates_returned
    return facts


def _summary(facts: EntryFacts, summary: SearchSummary) -> None:
    facts.origin_agency = summary.origin_agency
    facts.beneficiary_agency = summary.beneficiary_agency
    facts.operator_agency = summary.operator_agency
    facts.gallery_owner = summary.gallery_owner
    facts.jurisdictions = _distinct(summary.jurisdictions)
    facts.system = summary.system
    facts.gallery = summary.gallery
    facts.gallery_class = summary.gallery_class
    facts.purpose = summary.purpose
    facts.suspicion = summary.suspicion
    facts.offence = summary.offence.nibrs_code
    facts.statute = summary.offence.statute
    facts.severity = summary.offence.severity
    facts.provenance = summary.provenance
    facts.capture_mode = summary.capture_mode
    said = summary.circumstances
    facts.route = said.route
    facts.protected_basis = said.protected_basis
    facts.probe_edit = said.probe_edit
    facts.investigation = said.investigation
    facts.charge_status = said.charge_status
    facts.instrument = said.instrument.kind
    if said.HasField("emergency"):
        facts.emergency = Claim.CLAIMED if said.emergency.claimed else Claim.NOT_CLAIMED


def _decision(facts: EntryFacts, decision: Decision) -> None:
    facts.outcome = decision.outcome
    rules: list[str] = []
    citations: list[str] = []
    for verdict in decision.verdicts:
        for rule in verdict.rules:
            rules.append(rule.id)
            citations.append(rule.citation)
        for unmet in verdict.unmet:
            rules.append(unmet.rule_id)
            citations.append(unmet.citation)
    facts.rules = _distinct(rules)
    facts.citations = _distinct(citations)
    duties: dict[tuple[str, str, str], Duty] = {}
    for one in decision.obligations:
        duty = Duty(one.kind, one.rule_id, one.party, term_us(one.parameters))
        # A rule imposes one duty of a kind; an entry that says otherwise is taken at its first word.
        duties.setdefault((one.kind, one.rule_id, one.party), duty)
    facts.duties = tuple(duties.values())


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, values)))


def _agency_of(caller: str) -> str:
    """The ORI in a SPIFFE ID of an agency's system; empty for any other caller."""
    kind, _, name = caller.partition("://")[2].partition("/")[2].partition("/")
    return name if kind == _AGENCY else ""


def short_name(enum: Any, number: int) -> str:
    """Give a value without its prefix ("CRIMINAL_INVESTIGATION"); empty for 0, the number if unknown."""
    if number == 0:
        return ""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return str(number)
    zero = enum.DESCRIPTOR.values_by_number[0].name
    return str(value.name.removeprefix(zero.removesuffix("UNSPECIFIED")))
