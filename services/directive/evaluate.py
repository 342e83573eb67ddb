"""What the parties' directives say of one search.

Invariants:
- Each party is asked with its own rules in force on the day. Never merged.
- A verdict permits only if the engine allowed, named at least one permitting rule and no other, and
  reported no error. Everything else forbids or cannot tell, and both refuse.
- The decision permits only if there are verdicts and every one permits.
- A party whose rules read a fact that is not known, or whose value they had no word for, cannot tell.
- A party is told the facts that its rules can read, and asked once for seats that its rules cannot
  tell apart. There is still a verdict for each seat.
- What was answered before is answered again without asking, for questions that the party's rules
  cannot tell apart (`directive.likeness`). A verdict that could not be told is never kept.
- What was missing, and whether an instrument would cure it, is worked out after the verdict and never
  changes it.
"""

import copy
import importlib.metadata
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Self, TypeAlias

import cedarpy

from countersign.type.v1.circumstances_pb2 import InstrumentKind
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Obligation,
    Seat,
    UnmetRequirement,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import SearchFacts
from directive import entities, self_test
from directive.book import Book, Slice
from directive.cures import instruments_that_cure, unmet
from directive.elsewhere import Elsewhere
from directive.entities import Uid
from directive.expelled import Expelled
from directive.likeness import Likeness, likeness
from directive.nearby import Nearby, named_and_read
from directive.policy_set import begun, ended
from directive.question import Asking, Fault, Question, SeatOf
from directive.rules import Rule
from shared.clock import stamp
from shared.registry import Registry

ENGINE: Final = f"cedarpy {importlib.metadata.version('cedarpy')}"

# Looking an enum's value up costs more than comparing it; a decision does both often.
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT
_FORBID: Final = VerdictOutcome.VERDICT_OUTCOME_FORBID
_CANNOT_TELL: Final = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFUSED: Final = DecisionOutcome.DECISION_OUTCOME_REFUSED
_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED
_EXPELLED: Final = Fault.PARTY_EXPELLED

KEPT_VERDICTS_MAX: Final = 4096
"""A few kilobytes each; a department asks the same few kinds of questions all day."""


@dataclass(frozen=True)
class SeatVerdict:
    """A verdict with the duties of its determining rules."""

    verdict: Verdict
    obligations: tuple[Obligation, ...]

    @property
    def permits(self) -> bool:
        """Whether it permits."""
        return self.verdict.outcome == _PERMIT

    def for_seat(self, seat: Seat.ValueType) -> "SeatVerdict":
        """A copy, for this seat of the party."""
        verdict = Verdict()
        verdict.CopyFrom(self.verdict)
        verdict.seat = seat
        return SeatVerdict(verdict, self.obligations)


class Ground(NamedTuple):
    """What a party is asked by, and why it cannot be asked. Without faults there are rules."""

    rules: Slice | None
    faults: list[Fault]
    unknown: list[str]


_Key: TypeAlias = tuple[Hashable, ...]


class _Kept:
    """Verdicts given before, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._verdicts: OrderedDict[_Key, SeatVerdict] = OrderedDict()

    def get(self, key: _Key) -> SeatVerdict | None:
        """The verdict, if it is kept."""
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def put(self, key: _Key, verdict: SeatVerdict) -> None:
        """Keeps a verdict that was told."""
        if verdict.verdict.outcome not in (_PERMIT, _FORBID) or verdict.verdict.faults:
            return
        self._verdicts[key] = verdict
        while len(self._verdicts) > KEPT_VERDICTS_MAX:
            self._verdicts.popitem(last=False)


def conjunction(verdicts: Iterable[Verdict]) -> DecisionOutcome.ValueType:
    """PERMITTED if there are verdicts and every one permits, else REFUSED."""
    outcomes = [verdict.outcome for verdict in verdicts]
    if outcomes and all(o == _PERMIT for o in outcomes):
        return _PERMITTED
    return _REFUSED


def follows(allowed: bool, named: int, determining: Sequence[Rule]) -> bool:
    """Whether the engine's answer follows from the rules that it named, all of which we know."""
    return (
        named == len(determining)
        and all(rule.permits == allowed for rule in determining)
        and (bool(determining) or not allowed)
    )


class Evaluator:
    """Applies one book to one registry. It keeps what they said, so each has an evaluator of its own."""

    def __init__(self, book: Book, registry: Registry, *, keep: bool = True) -> None:
        """Without `keep`, the engine is asked each time.

        Raises EntitiesError, or EngineUntrustworthy when the engine fails its self-test.
        """
        self._book = book
        self._seat_words = book.vocabulary.words("Seat")
        self._asking = Asking(registry, book.vocabulary, book.has_ordered)
        self._digest_begun = begun(book.vocabulary, registry, ENGINE)
        entities.check(registry, book.vocabulary)
        self._registry = registry
        self._expelled = Expelled(registry)
        self._nearby = Nearby(registry, book.vocabulary)
        self._named: dict[int, frozenset[Uid]] = {}
        self._instants = entities.instants(registry)
        self._likenesses: dict[int, Likeness] = {}
        self._kept = _Kept() if keep else None
        officer, gallery = self_test.asked_about(registry)
        tried = self._nearby.of(officer, gallery, "", frozenset())
        self_test.run(tried, registry, book.vocabulary, book.projections)

    def over(self, registry: Registry) -> "Evaluator":
        """The same book applied to a registry that has changed; raises as a new one does.

        Where only officers have changed nothing is made anew, and nothing tested again, that says nothing
        of them: for how to make such a registry see `registry.folding`.
        """
        if type(self) is not Evaluator:
            return type(self)(self._book, registry)
        if not self._differs_in_officers_alone(registry):
            return Evaluator(self._book, registry, keep=self._kept is not None)
        return self._with_officers(registry)

    def _differs_in_officers_alone(self, registry: Registry) -> bool:
        return entities.but_officers(registry) == entities.but_officers(self._registry)

    def _with_officers(self, registry: Registry) -> Self:
        other = copy.copy(self)
        other._registry = registry
        other._asking = self._asking.with_officers(registry)
        other._digest_begun = begun(self._book.vocabulary, registry, ENGINE)
        other._nearby = self._nearby.with_officers(registry)
        if registry.days != self._registry.days:
            other._instants = entities.instants(registry)
            other._likenesses = {}
        other._kept = None if self._kept is None else _Kept()
        return other

    def evaluate(
        self,
        facts: SearchFacts,
        officer: str,
        at: datetime,
        elsewhere: Elsewhere | None = None,
    ) -> Decision:
        """All parties' verdicts and the decision. Pure: the same arguments decide the same."""
        return self.decide(self.ask(facts, officer, at), elsewhere)

    def ask(self, facts: SearchFacts, officer: str, at: datetime) -> Question:
        """The question about one search, in the words of the vocabulary and the registry."""
        return self._asking.ask(facts, officer, at)

    def decide(self, question: Question, elsewhere: Elsewhere | None = None) -> Decision:
        """What `evaluate` gives, of a question that was put into words before."""
        seats = (
            self._of_seats(question, question.seats)
            if elsewhere is None
            else self._here_and_there(question, elsewhere)
        )
        verdicts = [seat.verdict for seat in seats]
        decision = Decision(
            outcome=elsewhere.outcome(verdicts)
            if elsewhere is not None and elsewhere.refer
            else conjunction(verdicts),
            verdicts=verdicts,
            engine=ENGINE,
            policy_set_sha256=self._digest(verdicts),
            evaluated_at=stamp(question.at),
        )
        permitted = decision.outcome in (_PERMITTED, _REFERRED)
        # A permit's duties fall away with a refusal; a prohibition's duties are about the attempt.
        decision.obligations.extend(
            _union(o for s in seats if permitted or not s.permits for o in s.obligations)
        )
        return decision

    def evaluate_party(
        self, facts: SearchFacts, officer: str, at: datetime, party: str
    ) -> tuple[SeatVerdict, ...]:
        """One party's verdicts, one for each seat that it holds; none when it holds no seat.

        No verdicts are no permit: judge them with `conjunction`.
        """
        said = self.party_says(self._asking.ask(facts, officer, at), party)
        # Copies: whoever changed what is kept would change the next decision.
        return tuple(one.for_seat(one.verdict.seat) for one in said)

    def party_says(self, question: Question, party: str) -> list[SeatVerdict]:
        """What `evaluate_party` gives, of a question in words; to be read only."""
        return self._of_seats(question, [one for one in question.seats if one.party == party])

    def _of_seats(self, question: Question, seats: Sequence[SeatOf]) -> list[SeatVerdict]:
        answered: dict[_Key, SeatVerdict] = {}
        return [self._of_seat(question, seat, answered) for seat in seats]

    def _here_and_there(self, question: Question, elsewhere: Elsewhere) -> list[SeatVerdict]:
        """Who is asked elsewhere is not asked here. Who is expelled here speaks from nowhere."""
        said = [
            (seat, elsewhere.says(seat.seat, seat.party) if seat.fault is not _EXPELLED else None)
            for seat in question.seats
        ]
        here = iter(self._of_seats(question, [seat for seat, there in said if there is None]))
        return [next(here) if there is None else SeatVerdict(there, ()) for _, there in said]

    def _of_seat(
        self, question: Question, seat: SeatOf, answered: dict[_Key, SeatVerdict]
    ) -> SeatVerdict:
        rules, faults, unknown = self._ground(question, seat)
        if rules is None or faults:
            said = _cannot_tell(seat, faults, rules)
            said.unknown_facts.extend(unknown)
            if rules is not None and unknown:
                said.cured_by_instruments.extend(self._cures(question, seat, rules))
            return SeatVerdict(said, ())
        asked = seat.party, rules.seat_class(self._seat_words[seat.seat])
        known = answered.get(asked)
        if known is None:
            known = answered[asked] = self._asked_before_or_now(question, seat, rules, asked[1])
        return known if known.verdict.seat == seat.seat else known.for_seat(seat.seat)

    def _ground(self, question: Question, seat: SeatOf) -> Ground:
        faults = list(question.faults)
        if seat.fault is not None and seat.fault not in faults:
            faults.append(seat.fault)
        rules = self._book.slice(seat.party, question.at.date()) if seat.fault is None else None
        if rules is None and seat.fault is None:
            faults.append(Fault.NO_DIRECTIVE)
        if rules is not None and self._expelled.bear(rules):
            faults.append(Fault.PARTY_EXPELLED)
        unknown: list[str] = []
        if rules is not None and not faults and (rules.circumstances or rules.lacking):
            unknown = question.unknown(seat.seat, rules.circumstances, rules.lacking)
            if unknown:
                faults.append(Fault.FACT_UNKNOWN)
        return Ground(rules, faults, unknown)

    def _asked_before_or_now(
        self, question: Question, seat: SeatOf, rules: Slice, seat_class: Hashable
    ) -> SeatVerdict:
        if self._kept is None:
            return self._apply(question, seat, rules)
        # The book holds its slices as long as we live, so an identity is never another slice's.
        alike = self._likenesses.get(id(rules))
        if alike is None:
            alike = likeness(rules.rules.values(), self._instants)
            self._likenesses[id(rules)] = alike
        key = id(rules), seat_class, *question.key(rules.projection.facts, alike)
        verdict = self._kept.get(key)
        if verdict is None:
            verdict = self._apply(question, seat, rules)
            self._kept.put(key, verdict)
        return verdict

    def _apply(self, question: Question, seat: SeatOf, rules: Slice) -> SeatVerdict:
        request = question.request(seat.seat, rules.projection.facts)
        outcome, determining = self._said(question, request, rules)
        if isinstance(outcome, Fault):
            verdict = _cannot_tell(seat, [outcome], rules)
            verdict.rules.extend(rule.as_proto for rule in determining)
            return SeatVerdict(verdict, ())
        verdict = Verdict(
            seat=seat.seat,
            party=seat.party,
            outcome=outcome,
            rules=[rule.as_proto for rule in determining],
            directives=rules.versions,
        )
        if not determining:
            verdict.unmet.extend(self._unmet(question, request, rules))
        if outcome != _PERMIT:
            verdict.cured_by_instruments.extend(self._cures(question, seat, rules))
        return SeatVerdict(verdict, tuple(_obligations(determining, seat.party)))

    def _said(
        self, question: Question, request: dict[str, object], rules: Slice
    ) -> tuple[VerdictOutcome.ValueType | Fault, list[Rule]]:
        """What the rules say of a request, and those that determined it."""
        result = self._engine(question, request, rules.policies, rules)
        answer = result.decision
        if answer is cedarpy.Decision.NoDecision:
            return Fault.NO_DECISION, []
        named = sorted(result.diagnostics.reasons)
        determining = [rules.rules[name] for name in named if name in rules.rules]
        allowed = answer is cedarpy.Decision.Allow
        # Cedar skips a rule that errs; had it been a prohibition, it would be gone.
        if result.diagnostics.errors or not follows(allowed, len(named), determining):
            return Fault.EVALUATION_ERROR, determining
        return _PERMIT if allowed else _FORBID, determining

    def _cures(
        self, question: Question, seat: SeatOf, rules: Slice
    ) -> list[InstrumentKind.ValueType]:
        def permits(supposed: Question) -> bool:
            request = supposed.request(seat.seat, rules.projection.facts)
            return self._said(supposed, request, rules)[0] == _PERMIT

        return instruments_that_cure(question, seat.seat, rules, self._book.vocabulary, permits)

    def _engine(
        self,
        question: Question,
        request: dict[str, object],
        policies: cedarpy.PolicySet,
        rules: Slice,
    ) -> cedarpy.AuthzResult:
        named = self._named.get(id(rules))
        if named is None:
            named = self._named[id(rules)] = named_and_read(rules.rules.values())
        reached = self._nearby.of(question.officer, question.gallery, question.beneficiary, named)
        return cedarpy.is_authorized(request, policies, reached, rules.projection.schema)

    def _unmet(
        self, question: Question, request: dict[str, object], rules: Slice
    ) -> list[UnmetRequirement]:
        """Which parts of the permitting rules did not hold. Informs; never decides."""
        if not rules.requirements:
            return []
        result = self._engine(question, request, rules.requirement_probes, rules)
        return unmet(rules, set(result.diagnostics.reasons))

    def _digest(self, verdicts: Sequence[Verdict]) -> bytes:
        """SHA-256 over all that must be the same to decide the same, besides the question."""
        return ended(self._digest_begun.copy(), verdicts)


def _cannot_tell(seat: SeatOf, faults: Sequence[Fault], rules: Slice | None) -> Verdict:
    return Verdict(
        seat=seat.seat,
        party=seat.party,
        outcome=_CANNOT_TELL,
        faults=[str(fault) for fault in faults],
        directives=rules.versions if rules else (),
    )


def _obligations(rules: Sequence[Rule], party: str) -> Iterable[Obligation]:
    for rule in rules:
        for kind, parameters in rule.obligations:
            yield Obligation(kind=kind, parameters=parameters, rule_id=rule.id, party=party)


def _union(obligations: Iterable[Obligation]) -> list[Obligation]:
    """Each duty once, in a fixed order."""
    distinct = {(o.party, o.rule_id, o.kind, o.parameters): o for o in obligations}
    return [distinct[key] for key in sorted(distinct)]


def seat_name(seat: Seat.ValueType) -> str:
    """The seat for a person: "gallery owner"."""
    return Seat.Name(seat).removeprefix("SEAT_").lower().replace("_", " ")
