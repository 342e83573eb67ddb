"""What the query index can be asked, and the forms of its answers."""

from dataclasses import dataclass
from enum import Enum


class EndState(Enum):
    """How a search ended, or that it has not."""

    REFUSED = 1
    OPEN = 2
    ANSWERED = 3
    FAILED = 4
    EXPIRED = 5
    WITHDRAWN = 6


class DutyState(Enum):
    """What became of a duty, by the last entry that says so; OPEN while none does."""

    OPEN = 1
    DONE = 2
    WAIVED = 3
    FAILED = 4


class Role(Enum):
    """In what role an agency takes part."""

    ORIGIN = "origin_agency"
    BENEFICIARY = "beneficiary_agency"
    OPERATOR = "operator_agency"
    GALLERY_OWNER = "gallery_owner"
    CALLER = "caller_agency"


class Dimension(Enum):
    """What counts can be grouped by; the value is its expression."""

    KIND = "e.kind"
    ORIGIN_AGENCY = "e.origin_agency"
    BENEFICIARY_AGENCY = "e.beneficiary_agency"
    OPERATOR_AGENCY = "e.operator_agency"
    GALLERY_OWNER = "e.gallery_owner"
    AGENCY = "a.value"
    JURISDICTION = "j.value"
    SYSTEM = "e.system"
    GALLERY = "e.gallery"
    GALLERY_CLASS = "e.gallery_class"
    PURPOSE = "e.purpose"
    OFFENCE = "e.offence"
    SEVERITY = "e.severity"
    SUSPICION = "e.suspicion"
    PROVENANCE = "e.provenance"
    CAPTURE_MODE = "e.capture_mode"
    ROUTE = "e.route"
    PROTECTED_BASIS = "e.protected_basis"
    PROBE_EDIT = "e.probe_edit"
    INVESTIGATION = "e.investigation"
    CHARGE_STATUS = "e.charge_status"
    INSTRUMENT = "e.instrument"
    EMERGENCY = "e.emergency"
    OUTCOME = "e.outcome"
    RULE = "r.value"
    CITATION = "c.value"
    REASON = "e.reason"
    END_STATE = "end_state"
    DUTY = "u.kind"
    DUTY_STATE = "u.state"
    DAY = "e.day"
    MONTH = "e.day // 100"
    YEAR = "e.day // 10000"


@dataclass(frozen=True, slots=True)
class Question:
    """Which entries are wanted; empty, zero and None for no bound. All bounds hold together."""

    size: int
    """Size of the tree that is asked about."""
    start_index: int = 0
    end_index: int | None = None
    from_us: int | None = None
    until_us: int | None = None
    agency: str = ""
    role: Role | None = None
    """In this role; in any when None."""
    origins: tuple[str, ...] | None = None
    jurisdiction: str = ""
    kinds: tuple[int, ...] = ()
    search_id: str = ""
    system: str = ""
    gallery: str = ""
    gallery_classes: tuple[int, ...] = ()
    purposes: tuple[int, ...] = ()
    offence: str = ""
    severities: tuple[int, ...] = ()
    suspicions: tuple[int, ...] = ()
    routes: tuple[int, ...] = ()
    protected_bases: tuple[int, ...] = ()
    probe_edits: tuple[int, ...] = ()
    investigations: tuple[int, ...] = ()
    charge_statuses: tuple[int, ...] = ()
    instruments: tuple[int, ...] = ()
    emergency: int = 0
    """Of `shared.entry_facts.Claim`."""
    outcome: int = 0
    rule: str = ""
    citation: str = ""
    """Citations that begin with this."""
    reason: str = ""
    end_state: EndState | None = None
    duty: str = ""
    duty_state: DutyState | None = None
    indexes: tuple[int, ...] | None = None
    """Only these: what was found by openings, which are not in the index."""

    @property
    def bounds(self) -> tuple[int, int]:
        """The first index wanted, and the one after the last."""
        end = self.size if self.end_index is None else min(self.end_index, self.size)
        return self.start_index, end


@dataclass(frozen=True, slots=True)
class Found:
    """Indexes in order, and where to go on; None at the end."""

    indexes: list[int]
    next_index: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """A count. Values are in the order of the dimensions asked for."""

    values: tuple[str | int | None, ...]
    entries: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Groups in the order of their values; None when there are too many."""

    groups: list[Group] | None
    entries: int
    """Entries counted, each once, in however many groups it is."""


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """What a span of indexes comes to."""

    end_index: int
    totals: list[tuple[str, int, int]]
    """Origin agency, kind, count; in order."""
    open_decisions: list[int]


@dataclass(frozen=True, slots=True)
class OpenDuties:
    """Duties of one kind that came with decisions on searches, and of which no entry says what became."""

    kind: str
    open: int
    overdue: int
    """Of them, those whose term is past; a duty without a term is never among them."""


@dataclass(frozen=True, slots=True)
class ShoppingQuestion:
    """Which permits are wanted that came after other routes had refused like facts."""

    size: int
    """Size of the tree that is asked about."""
    start_index: int
    """First permit wanted."""
    from_us: int | None
    until_us: int | None
    within_us: int
    """How long before the permit a refusal may have been."""
    agency: str
    alike: tuple[Dimension, ...]
    routes_min: int
    indexes: tuple[int, ...] | None
    """Only these attempts: what was found by openings."""


@dataclass(frozen=True, slots=True)
class Shopping:
    """A permit, and what was refused before it."""

    permit: int
    last_refusals: tuple[int, ...]
    """By index."""
    refusals: int
    routes: int
    """Other routes that refused."""


@dataclass(frozen=True, slots=True)
class FoundShopping:
    """In the order of the permits, and the next permit; None at the end."""

    cases: list[Shopping]
    next_index: int | None
