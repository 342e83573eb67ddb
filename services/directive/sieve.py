"""Decides as the evaluator does, many times as quickly: for decisions of the past, never for one to come.

Compiled rules tell which rules fire and which requirements are met. What a party says follows from that
alone, so the engine is asked once for each such set, and its verdict stands for all questions of that set.

Invariants:
- Every verdict is the engine's, and was compared with what the compiled rules found when it was given. Where
  they differed, the rules are asked of the engine from then on.
- Where a rule cannot be compiled, or ends in an error, the engine is asked.
"""

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from countersign.type.v1.circumstances_pb2 import InstrumentKind
from countersign.type.v1.decision_pb2 import Decision, VerdictOutcome
from directive.book import Book, Slice
from directive.cedar_values import Asked, NotCompiled, Uid, Unsure, Value, value_of
from directive.compiled import CompiledRules
from directive.cures import instruments_that_cure, unmet
from directive.entities_asked import OFFICER, SUBMIT, EntitiesAsked, officers_named
from directive.evaluate import Evaluator, SeatVerdict
from directive.question import Question, SeatOf
from directive.vocabulary import NAMESPACE
from shared.registry import Registry

DECISIONS_KEPT_MAX: Final = 20_000
"""Some kilobytes each. A year of a department's searches comes to some hundred."""
PLANS_KEPT_MAX: Final = 50_000
"""For each time between two changes of the rules those who were asked together."""
PHRASES_KEPT_MAX: Final = 100_000
"""What is told of most facts has few values; of sets and the like there may be many."""

_SEAT: Final = "seat"
_GALLERY: Final = f"{NAMESPACE}::Gallery"
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT


@dataclass(frozen=True, slots=True)
class Sifted:
    """A decision without time and digest, for every question that the rules cannot tell from the first."""

    decision: Decision
    content: bytes
    """The decision's bytes."""


@dataclass(frozen=True, slots=True)
class _SliceCompiled:
    rules: CompiledRules
    requirements: CompiledRules
    ids: tuple[str, ...]
    keys: tuple[str, ...]
    """Of the requirements."""
    permits: int
    """A bit for each rule that permits."""

    def permit(self, fired: int) -> bool:
        """Whether the party permits when these rules fire."""
        return fired != 0 and not fired & ~self.permits


_Cures: TypeAlias = tuple[InstrumentKind.ValueType, ...]
_Class: TypeAlias = tuple[int, int, int, _Cures]
"""Questions about which a slice says the same: which slice, what fired, what was met, what would cure it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which slices are asked for some seats on some day: the seats that a slice does not tell apart, once."""

    seats: tuple[SeatOf, ...]
    number: int
    slots: tuple[tuple[SeatOf, Slice], ...]
    facts: tuple[str, ...]
    """What all of them together are told, without the seat."""
    circumstances: frozenset[str]
    """What one of them must know."""
    lacking: Mapping[str, frozenset[str]]
    """The words for which one of them has none."""


class Sieve(Evaluator):
    """An evaluator that asks the engine only where the compiled rules have found something new."""

    def __init__(self, book: Book, registry: Registry) -> None:
        """Raises what the evaluator raises."""
        super().__init__(book, registry)
        self.left_to_engine = 0
        """Questions to parties that had to be asked of the engine."""
        self.disagreements = 0
        """Slices of which engine and compiled rules said different things."""
        self._entities = self._known(registry, book)
        named = (rule for one in book.directives.values() for rule in one.rules)
        self._officers_named = officers_named(named)
        self._slices: dict[int, _SliceCompiled | None] = {}
        self._verdicts: dict[_Class, SeatVerdict] = {}
        self._decisions: dict[Hashable, Sifted] = {}
        self._phrases: dict[str, Value] = {}
        self._plans: dict[Hashable, _Plan] = {}
        self._numbers: dict[Hashable, int] = {}
        self._seats_named = {
            number: Uid(f"{NAMESPACE}::Seat", word) for number, word in self._seat_words.items()
        }

    @staticmethod
    def _known(registry: Registry, book: Book) -> EntitiesAsked | None:
        try:
            return EntitiesAsked(registry, book.vocabulary)
        except NotCompiled:
            return None

    def over(self, registry: Registry) -> "Sieve":
        """The same book applied to a registry that has changed; raises as a new one does.

        Where only officers have changed, what was found for sets of rules that fire stays found.
        """
        if not self._differs_in_officers_alone(registry):
            return type(self)(self._book, registry)
        return self._with_officers(registry)

    def sift(self, question: Question) -> Sifted:
        """The decision on a question, without its time and digest."""
        key = self.alike(question)
        sifted = self._decisions.get(key) if key is not None else None
        if sifted is None:
            sifted = sifted_of(self.decide(question))
            # Only now: what the engine said may have shown that the compiled rules are wrong.
            if key is not None and key == self.alike(question):
                if len(self._decisions) >= DECISIONS_KEPT_MAX:
                    self._decisions.clear()
                self._decisions[key] = sifted
        return sifted

    def alike(self, question: Question, party: str = "") -> Hashable | None:
        """Equal for questions on which the party, or everybody, says the same; None where nobody knows."""
        plan = self._plan(question, party)
        if question.faults:
            return plan.number, question.faults
        key: list[Hashable] = [plan.number]
        asked = None
        # Asked of all together first: mostly everything is known.
        doubts = bool(
            plan.slots and question.unknown(plan.slots[0][0].seat, plan.circumstances, plan.lacking)
        )
        for seat, rules in plan.slots:
            if doubts or _SEAT in rules.lacking:
                unknown = question.unknown(seat.seat, rules.circumstances, rules.lacking)
                if unknown:
                    cures = self._cures_found(question, seat, rules)
                    if cures is None:
                        return None
                    key.append((*unknown, cures))
                    continue
            if asked is None:
                asked = self._asked(question, plan.facts)
            one = self._class(question, asked, seat, rules) if asked is not None else None
            if one is None:
                return None
            key.append(one)
        return tuple(key)

    def _plan(self, question: Question, party: str) -> _Plan:
        # The plan holds the seats, so their identity is never that of others.
        asked = id(question.seats), self._book.period(question.at.date()), party
        plan = self._plans.get(asked)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT_MAX:
                self._plans.clear()
            plan = self._plans[asked] = self._planned_for(question, party)
        return plan

    def _planned_for(self, question: Question, party: str) -> _Plan:
        slots: dict[Hashable, tuple[SeatOf, Slice]] = {}
        asked: list[int] = []
        for seat in question.seats:
            if party not in ("", seat.party):
                continue
            rules = self._book.slice(seat.party, question.at.date()) if not seat.fault else None
            asked.append(id(rules) if rules is not None else 0)
            if rules is not None:
                told_apart = rules.seat_class(self._seat_words[seat.seat])
                words = {_SEAT: rules.lacking.get(_SEAT, frozenset())}
                no_word = bool(question.unknown(seat.seat, frozenset(), words))
                slots.setdefault((id(rules), told_apart, no_word), (seat, rules))
        facts = {fact for _, rules in slots.values() for fact in rules.projection.facts}
        # Of most days it is the same plan, and so are the decisions.
        number = self._numbers.setdefault((question.seats, party, *asked), len(self._numbers))
        lacking: dict[str, frozenset[str]] = {}
        for _, rules in slots.values():
            for fact, told in rules.lacking.items():
                lacking[fact] = lacking.get(fact, frozenset()) | told
        return _Plan(
            question.seats,
            number,
            tuple(slots.values()),
            tuple(sorted(facts - {_SEAT})),
            frozenset().union(*(rules.circumstances for _, rules in slots.values())),
            lacking,
        )

    def _asked_before_or_now(
        self, question: Question, seat: SeatOf, rules: Slice, seat_class: Hashable
    ) -> SeatVerdict:
        asked = self._asked(question, rules.projection.facts)
        alike = self._class(question, asked, seat, rules) if asked is not None else None
        if alike is None:
            self.left_to_engine += 1
            return super()._asked_before_or_now(question, seat, rules, seat_class)
        verdict = self._verdicts.get(alike)
        if verdict is None:
            verdict = self._apply(question, seat, rules)
            if self._agrees(rules, alike, verdict):
                if len(self._verdicts) >= DECISIONS_KEPT_MAX:
                    self._verdicts.clear()
                self._verdicts[alike] = verdict
            else:
                self.disagreements += 1
                self._slices[id(rules)] = None
        return verdict

    def _asked(self, question: Question, facts: Iterable[str]) -> Asked | None:
        """The question in compiled rules' terms, but for the seat; None when the engine must be asked."""
        try:
            if self._entities is not None:
                self._entities.enter(self._registry, (question.officer, *self._officers_named))
            told = question.values(facts, self._value)
        except NotCompiled:
            return None
        return Asked(Uid(OFFICER, question.officer), Uid(_GALLERY, question.gallery), told)

    def _class(self, question: Question, asked: Asked, seat: SeatOf, rules: Slice) -> _Class | None:
        """None when the engine must be asked."""
        compiled = self._compiled(rules)
        if compiled is None:
            return None
        asked.context[_SEAT] = self._seats_named[seat.seat]
        try:
            fired, failed = compiled.rules.run(asked)
            # What was missing is asked only where nothing permits and nothing forbids.
            met = 0 if fired or failed else compiled.requirements.run(asked).fired
        except Unsure:
            return None
        if failed:
            return None
        cures = () if compiled.permit(fired) else self._cures_found(question, seat, rules)
        return None if cures is None else (id(rules), fired, met, cures)

    def _cures_found(self, question: Question, seat: SeatOf, rules: Slice) -> _Cures | None:
        """What `cured_by_instruments` says; None when the engine must be asked."""
        compiled = self._compiled(rules)

        def permits(supposed: Question) -> bool:
            asked = self._asked(supposed, rules.projection.facts)
            if compiled is None or asked is None:
                raise Unsure
            asked.context[_SEAT] = self._seats_named[seat.seat]
            fired, failed = compiled.rules.run(asked)
            return not failed and compiled.permit(fired)

        try:
            return tuple(
                instruments_that_cure(question, seat.seat, rules, self._book.vocabulary, permits)
            )
        except Unsure:
            return None

    def _compiled(self, rules: Slice) -> _SliceCompiled | None:
        # The book holds its slices as long as we live, so an identity is never another slice's.
        if id(rules) not in self._slices:
            self._slices[id(rules)] = self._compile(rules)
        return self._slices[id(rules)]

    def _compile(self, rules: Slice) -> _SliceCompiled | None:
        if self._entities is None:
            return None
        known = self._entities.known
        try:
            return _SliceCompiled(
                CompiledRules((one.template for one in rules.rules.values()), SUBMIT, known),
                CompiledRules(rules.requirement_rules.values(), SUBMIT, known),
                tuple(rules.rules),
                tuple(rules.requirement_rules),
                sum(1 << n for n, one in enumerate(rules.rules.values()) if one.permits),
            )
        except NotCompiled:
            return None

    def _value(self, phrase: str) -> Value:
        """The value that a phrase tells."""
        value = self._phrases.get(phrase)
        if value is None:
            told: dict[str, Any] = json.loads(f"{{{phrase}}}")
            (one,) = told.values()
            if len(self._phrases) >= PHRASES_KEPT_MAX:
                self._phrases.clear()
            value = self._phrases[phrase] = value_of(one)
        return value

    def _agrees(self, rules: Slice, found: _Class, said: SeatVerdict) -> bool:
        """Whether the engine said what the compiled rules found."""
        compiled = self._slices[id(rules)]
        if compiled is None:
            return False
        _, fired, fulfilled, cures = found
        forbidding = fired & ~compiled.permits
        wanted = forbidding or fired
        expected = sorted(one for n, one in enumerate(compiled.ids) if wanted >> n & 1)
        met = {key for n, key in enumerate(compiled.keys) if fulfilled >> n & 1}
        missing = [] if wanted else unmet(rules, met)
        verdict = said.verdict
        return (
            not verdict.faults
            and said.permits == compiled.permit(fired)
            and tuple(verdict.cured_by_instruments) == cures
            and [one.id for one in verdict.rules] == expected
            and list(verdict.unmet) == missing
        )


def sifted_of(decision: Decision) -> Sifted:
    """A decision without its time, the digest of the policy set, and what was known of documents."""
    timeless = Decision()
    timeless.CopyFrom(decision)
    timeless.ClearField("evaluated_at")
    timeless.ClearField("documents_index")
    timeless.ClearField("policy_set_sha256")
    return Sifted(timeless, timeless.SerializeToString(deterministic=True))
