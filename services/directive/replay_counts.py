"""What a replay counts: what becomes of searches, by agency, month and rule. Names nobody."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """What becomes of a search with the proposal."""

    SAME = "same"
    OTHER_REASONS = "same outcome for other reasons"
    TO_REFUSED = "permitted, would be refused"
    TO_PERMITTED = "refused, would be permitted"
    CANNOT_SAY = "cannot say"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of searches that are alike."""

    outcome: Outcome
    before: tuple[str, ...] = ()
    """The rules, unmet requirements and faults of the proposal's party: as on record."""
    after: tuple[str, ...] = ()
    """The same with the proposal."""
    reason: str = ""
    """Why nobody can say."""

    @property
    def rules(self) -> tuple[str, ...]:
        """What makes the difference: of a refusal what refuses, of a permit what no longer does."""
        told = self.before if self.outcome is Outcome.TO_PERMITTED else self.after
        return tuple(one for one in told if one not in self.before or one not in self.after) or told


SAME: Final = Change(Outcome.SAME)


@dataclass(frozen=True, slots=True)
class Example:
    """One search that comes out otherwise. Names nobody: the entry does."""

    index: int
    month: str
    agency: str
    change: Change


@dataclass
class Replayed:
    """What came of it."""

    party: str
    replaces: tuple[str, ...]
    beside: tuple[str, ...]
    searches: int = 0
    counts: Counter[tuple[str, str, Change]] = field(default_factory=Counter)
    """Origin agency, month and change."""
    examples: list[Example] = field(default_factory=list)
    contradictions: int = 0
    contradictions_listed: list[int] = field(default_factory=list)
    """Indexes of their entries."""
    other_engine: Counter[str] = field(default_factory=Counter)
    """Decisions that another engine made, and this one makes as well."""
    confirmed: int = 0
    """Changed decisions that the engine was asked about, and that it confirmed."""
    sampled: int = 0
    """Unchanged decisions that the engine was asked about, and that it confirmed."""
    disagreements: int = 0
    """Decisions, or sets of rules, of which the engine said something else than the compiled rules."""
    left_to_engine: int = 0
    """Questions that compiled rules could not answer."""

    @property
    def sound(self) -> bool:
        """Whether the counts can be relied on."""
        return not self.contradictions and not self.disagreements

    def by(self, what: str) -> dict[str, Counter[Outcome]]:
        """Counts by "agency", "month" or "rule", of every outcome."""
        found: dict[str, Counter[Outcome]] = {}
        for (agency, month, change), count in self.counts.items():
            keys: Sequence[str] = change.rules if what == "rule" else (agency,)
            if what == "month":
                keys = (month,)
            if what == "rule" and change.outcome in (Outcome.SAME, Outcome.CANNOT_SAY):
                continue
            for key in keys:
                found.setdefault(key, Counter())[change.outcome] += count
        return dict(sorted(found.items()))

    def totals(self) -> Counter[Outcome]:
        """Counts of every outcome."""
        found = Counter(dict.fromkeys(Outcome, 0))
        for (_, _, change), count in self.counts.items():
            found[change.outcome] += count
        return found

    def unsaid(self) -> dict[str, int]:
        """Why nobody can say, with how often, most often first."""
        found: Counter[str] = Counter()
        for (_, _, change), count in self.counts.items():
            if change.outcome is Outcome.CANNOT_SAY:
                found[change.reason] += count
        return dict(found.most_common())
