"""What came of the load: how long each step took, and what went wrong by its reason."""

import enum
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from countersign.load.histogram import Histogram
from countersign.load.mix import Kind


class Step(enum.StrEnum):
    """Up to where the time is taken, from when the work was to begin."""

    DECIDED = "search decided"
    """SubmitSearch is answered: all parties asked, the decision on record, the order sent."""
    ANSWERED = "search answered"
    """The answer is there, both receipts and the connector's signature verified, the candidates open."""
    CHECKED = "check"
    REFUSED = "forbidden refused"
    READ = "read"
    BEGUN = "begun late"
    """By how much the load itself was late: no time of the installation."""


LEFT_OUT: Final = "NOT_BEGUN"
"""It was not begun, because too many before it had not ended."""
PERMITTED: Final = "FORBIDDEN_PERMITTED"
"""What must be refused was not."""

SET_WHAT: Final[Mapping[str, str]] = {
    "AGENCY_CALLS_LIMIT": "agency_calls_per_s, agency_calls_burst in [limits] of broker.toml",
    "AGENCY_SEARCHES_LIMIT": "agency_searches_per_minute, agency_searches_burst in [limits] of broker.toml",
    "AGENCY_IN_FLIGHT_LIMIT": "agency_in_flight_max in [limits] of broker.toml",
    "OFFICER_SEARCHES_LIMIT": "more officers (--officer), or officer_searches_per_minute, "
    "officer_searches_burst in [limits] of broker.toml",
    "OFFICER_IN_FLIGHT_LIMIT": "more officers (--officer), or officer_in_flight_max in [limits] of "
    "broker.toml",
    "CALLER_BUSY": "nothing: one system has 512 calls at once at most; less load, or more agencies",
    "SERVICE_BUSY": "less load, or more replicas of policy service or ledger",
    "POLICY_BUSY": "less load, or more replicas of the policy service",
    "LEDGER_BUSY": "less load: this is what the ledger can take",
}
"""What to change when a limit turned work away, by its reason."""


class Measured:
    """Grows while the load runs, and can be looked at meanwhile."""

    def __init__(self) -> None:
        self.steps: dict[Step, Histogram] = {}
        self.begun: Counter[Kind] = Counter()
        self.right: Counter[Kind] = Counter()
        self.errors: Counter[tuple[Kind, str]] = Counter()
        """By kind and reason, limits too."""
        self.limited: Counter[str] = Counter()
        """By reason, of these: what a limit turned away."""
        self.left_out = 0

    def took(self, step: Step, seconds: float) -> None:
        """A step came out right."""
        self.steps.setdefault(step, Histogram()).add(seconds)

    def failed(self, kind: Kind, reason: str, *, by_limit: bool = False) -> None:
        """It went wrong."""
        self.errors[kind, reason] += 1
        if by_limit:
            self.limited[reason] += 1

    def leave_out(self) -> None:
        """It was not even begun."""
        self.left_out += 1

    @property
    def ended(self) -> int:
        """How much came to an end, right or wrong."""
        return self.right.total() + self.errors.total()

    @property
    def in_flight(self) -> int:
        """How much has begun and not ended."""
        return self.begun.total() - self.ended

    @property
    def wrong(self) -> int:
        """How much went wrong, and what was left out."""
        return self.errors.total() + self.left_out

    def percent_wrong(self) -> float:
        """Of all that ended or was left out."""
        return 100 * self.wrong / max(1, self.ended + self.left_out)

    def document(self) -> dict[str, Any]:
        """For programs."""
        kinds = {
            str(kind): {
                "begun": self.begun[kind],
                "right": self.right[kind],
                "errors": {why: count for (of, why), count in self.errors.items() if of is kind},
            }
            for kind in Kind
            if self.begun[kind]
        }
        return {
            "ended": self.ended,
            "unfinished": self.in_flight,
            "left_out": self.left_out,
            "percent_wrong": round(self.percent_wrong(), 3),
            "kinds": kinds,
            "limited": {
                reason: {"count": count, "set": SET_WHAT.get(reason, "less load")}
                for reason, count in self.limited.items()
            },
            "latency_ms": {str(step): taken.document() for step, taken in self.steps.items()},
        }
