"""A request as the ledger has it on record, put together again from an entry and its openings.

Whatever directives can read of a request is on record: in the summary, or behind a commitment. What is not
there is named here with the reason, and a test refuses a fact of which nothing is said.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from countersign.ledger.v1.entry_pb2 import Entry, SearchSummary
from countersign.type.v1.decision_pb2 import Decision
from countersign.type.v1.search_pb2 import SearchFacts
from shared.kinds import SCHEMA_EPOCH
from shared.unknown_fields import has_unknown_fields

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

OFFICER: Final = "officer"
SEARCH_ID: Final = "search_id"

OPENED: Final[Mapping[str, str]] = {
    "case_number": "case_number",
    "narrative": "narrative",
    "instrument_number": "instrument_number",
    "emergency_basis": "emergency_basis",
}
"""Facts that are behind a commitment, each with its field's name."""
SUMMARISED: Final = (
    "origin_agency",
    "beneficiary_agency",
    "system",
    "gallery",
    "purpose",
    "suspicion",
    "offence",
    "provenance",
    "capture_mode",
    "candidates_max",
    "circumstances",
)
"""Facts that the summary has under the same name."""
NOT_FOR_RULES: Final[Mapping[str, str]] = {
    "search_id": "names the search; the entry has it, or a commitment to it for a dry run",
    "expires_after": "how long the order may wait; the entry of a permit has the deadline that came of it",
}
"""What no directive is told, and why it does not matter that it is not put together again."""

READ_WITH: Final[Mapping[str, str]] = {
    "caseNumber": "case_number",
    "narrativeGiven": "narrative",
    "emergencyBasisGiven": "emergency_basis",
}
"""Facts of the vocabulary that follow from an opening, each with its field."""


@dataclass(frozen=True)
class RecordedSearch:
    """A decision with all that it was made on."""

    index: int
    month: str
    """Of the decision: "2026-05"."""
    said: SearchSummary | SearchFacts
    """Where the facts of `SUMMARISED` are."""
    openings: Mapping[str, str]
    """Where those of `OPENED` are, by their fields."""
    unfamiliar: bool
    """Whether the facts have a field that the contracts of this release do not have."""
    search_id: str
    officer: str
    at: datetime
    decision: Decision
    content: bytes
    """The decision's bytes without its time, the digest of the policy set and what was known of documents:
    many have the same.
    """
    referred_to: str = ""
    """Peer that the entry names as the one that is to decide."""
    referred_by: str = ""
    """Peer that the entry names as the one whose decision it follows."""

    @classmethod
    def of(
        cls, index: int, facts: SearchFacts, officer: str, decision: Decision
    ) -> "RecordedSearch":
        """The same, of a decision; raises OverflowError for a time that cannot be read."""
        at = moment_of(decision.evaluated_at)
        opened = {field: getattr(facts, name) for name, field in OPENED.items()}
        odd, content = has_unknown_fields(facts), _without_time(decision)
        return cls(
            index, _month(at), facts, opened, odd, facts.search_id, officer, at, decision, content
        )

    @cached_property
    def facts(self) -> SearchFacts:
        """The request. Of most searches nobody asks for all of it."""
        if isinstance(self.said, SearchFacts):
            return self.said
        return _facts(self.search_id, self.said, self.openings)


@dataclass(frozen=True, slots=True)
class NotRederivable:
    """A decision that cannot be made again, and why."""

    index: int
    month: str
    agency: str
    reason: str


def openings_needed(facts: Collection[str]) -> list[str]:
    """The fields that must be opened for rules that read these facts of the vocabulary. No more than that."""
    return [OFFICER, *(field for fact, field in READ_WITH.items() if fact in facts)]


def recorded(
    index: int, entry: Entry, openings: Mapping[str, str], wanted: Collection[str]
) -> RecordedSearch | NotRederivable | None:
    """What an entry and its openings come to; None for an entry that holds no decision.

    `wanted` are the fields that were asked for: one that is committed to and not there was destroyed.
    """
    kind = entry.WhichOneof("event")
    if kind not in ("search_decided", "search_checked"):
        return None
    event = entry.search_decided if kind == "search_decided" else entry.search_checked
    summary, decision = event.summary, event.decision
    try:
        at = moment_of(decision.evaluated_at)
    except OverflowError:
        return NotRederivable(index, "", summary.origin_agency, "the time cannot be read")
    month = _month(at)
    absent = [field for field in wanted if field not in openings]
    gone = absent and not {one.field for one in entry.commitments}.isdisjoint(absent)
    if entry.schema_epoch > SCHEMA_EPOCH:
        return NotRederivable(index, month, summary.origin_agency, "written by a newer release")
    if gone or OFFICER not in openings:
        return NotRederivable(index, month, summary.origin_agency, "its openings were destroyed")
    odd = len(UnknownFieldSet(summary.offence)) > 0
    if summary.HasField("circumstances") and not odd:
        odd = has_unknown_fields(summary.circumstances)
    search_id = entry.search_id or openings.get(SEARCH_ID, "")
    content = _without_time(decision)
    found = RecordedSearch(
        index, month, summary, openings, odd, search_id, openings[OFFICER], at, decision, content
    )
    decided = entry.search_decided
    if not decided.referred_to and not decided.HasField("referred_by"):
        return found
    return replace(found, referred_to=decided.referred_to, referred_by=decided.referred_by.peer)


def _month(at: datetime) -> str:
    return f"{at.year:04}-{at.month:02}"


def moment_of(stamp: Timestamp) -> datetime:
    """The time in whole microseconds; raises OverflowError. Several times as quick as the library's own."""
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def _without_time(decision: Decision) -> bytes:
    """The bytes without those three, which are taken out and put back: a copy would cost more."""
    time = Timestamp()
    time.CopyFrom(decision.evaluated_at)
    decision.ClearField("evaluated_at")
    known = decision.documents_index if decision.HasField("documents_index") else None
    decision.ClearField("documents_index")
    digest = decision.policy_set_sha256
    decision.ClearField("policy_set_sha256")
    content = decision.SerializeToString(deterministic=True)
    decision.evaluated_at.CopyFrom(time)
    decision.policy_set_sha256 = digest
    if known is not None:
        decision.documents_index = known
    return content


def _facts(search_id: str, summary: SearchSummary, openings: Mapping[str, str]) -> SearchFacts:
    facts = SearchFacts(
        search_id=search_id,
        origin_agency=summary.origin_agency,
        system=summary.system,
        gallery=summary.gallery,
        purpose=summary.purpose,
        suspicion=summary.suspicion,
        offence=summary.offence,
        provenance=summary.provenance,
        capture_mode=summary.capture_mode,
        candidates_max=summary.candidates_max,
        case_number=openings.get("case_number", ""),
        narrative=openings.get("narrative", ""),
        instrument_number=openings.get("instrument_number", ""),
        emergency_basis=openings.get("emergency_basis", ""),
    )
    if summary.beneficiary_agency:
        # Absent is unknown; the contract has no empty one.
        facts.beneficiary_agency = summary.beneficiary_agency
    if summary.HasField("circumstances"):
        facts.circumstances.CopyFrom(summary.circumstances)
    return facts
