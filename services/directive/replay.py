"""What a proposed directive would have said: searches of the past, decided again with it and without.

Invariants:
- A decision of the past is first made again as it was. One that does not come out bit for bit, though all
  that it was made by is at hand, is a contradiction: record or engine are broken, and no count is worth much.
- What was not recorded is not guessed: a search of which the proposal asks for more than is on record, whose
  openings were destroyed, or that was decided by texts that are not at hand, is one of which nobody can say.
- Searches that no rule can tell apart are decided once, and compiled rules sift the others. Of each such kind
  that comes out otherwise the engine is asked; and of a sample of all searches, one by one.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Verdict
from directive.book import Directive
from directive.evaluate import SeatVerdict, conjunction
from directive.explain import Differs, causes
from directive.proposed import Reading
from directive.question import Fault, Question
from directive.recorded import NotRederivable, RecordedSearch
from directive.replay_counts import SAME, Change, Example, Outcome, Replayed
from directive.replay_lanes import AllLanes, Known, Lanes
from directive.sieve import Sieve, Sifted
from directive.worlds import NoSuchWorld, World, Worlds

SAMPLE: Final = 0.002
"""How many are asked of the engine each by itself, whatever was said of those alike: of 100,000, some 200."""
EXAMPLES_MAX: Final = 1000
"""Of the searches that come out otherwise, so many are listed one by one; all are counted."""
CONTRADICTIONS_LISTED_MAX: Final = 100
ALWAYS: Final = Reading()
KEPT_MAX: Final = 50_000
"""Searches that are unlike, kinds of change, and texts that are not at hand."""

_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED


SOUND: Final = -1
"""In place of a kind of change: the decision came out again as it was."""
DISAGREES: Final = -2
"""In place of a kind of change: the engine says something else than the record."""


class Replay:
    """Takes searches one after the other. Methods raise what an Evaluator and a Book raise."""

    def __init__(
        self,
        worlds: Worlds,
        proposal: Directive,
        *,
        reading: Reading = ALWAYS,
        sample: float = SAMPLE,
        seed: int = 0,
        examples_max: int = EXAMPLES_MAX,
        sieve: type[Sieve] = Sieve,
    ) -> None:
        self._worlds = worlds
        self._proposal = proposal
        self._reading = reading
        self._sample = sample
        self._examples_max = examples_max
        self._sieve = sieve
        self._chance = random.Random(seed)  # noqa: S311  # which are sampled is no secret
        self._lanes = AllLanes(proposal, sieve, reading.as_of)
        self._kinds: list[Change] = [SAME]
        self._kind_numbers: dict[Change, int] = {SAME: 0}
        self._counted: Counter[tuple[str, str, int]] = Counter()
        self._changes: dict[tuple[int, bytes, object], int] = {}
        self._confirmations: dict[tuple[bytes, bytes], int] = {}
        self._causes: dict[tuple[int, bytes, bytes, date], int] = {}
        self.party = proposal.document.manifest.party
        self._found = Replayed(self.party, (), ())

    def check(self, world: World) -> None:
        """Raises DirectiveRefused when the proposal cannot be in force beside the others of this world."""
        self._lanes.of(world)

    def add(self, search: RecordedSearch | NotRederivable) -> None:
        """One more search of the past."""
        self._found.searches += 1
        if isinstance(search, NotRederivable):
            kind = self._kind(Change(Outcome.CANNOT_SAY, reason=search.reason))
            self._counted[search.agency, search.month, kind] += 1
            return
        try:
            world = self._worlds.of(search.decision)
            reason = world.untold(search)
        except NoSuchWorld as unknown:
            reason = str(unknown)
        if reason:
            kind = self._kind(Change(Outcome.CANNOT_SAY, reason=reason))
            self._counted[search.said.origin_agency, search.month, kind] += 1
            return
        lanes = self._lanes.of(world)
        known, question = self._known_of(lanes, search)
        self._counted[search.said.origin_agency, search.month, known.kind] += 1
        anew = self._chance.random() < self._sample
        change = self._kinds[known.kind]
        changed = known.kind != 0 and change.outcome is not Outcome.CANNOT_SAY
        if changed and known.confirmed and not anew:
            self._found.confirmed += 1
        elif changed or (anew and known.kind == 0):
            confirmed = self._confirm(lanes, question, search, known.kind, asked_anew=anew)
            known.confirmed = confirmed and changed
        if changed and len(self._found.examples) < self._examples_max:
            agency = search.said.origin_agency
            self._found.examples.append(Example(search.index, search.month, agency, change))

    def _known_of(self, lanes: Lanes, search: RecordedSearch) -> tuple[Known, Question | None]:
        """What becomes of it; and the question, where one had to be made."""
        key = None
        # What is no time of a decision is looked at by itself.
        if search.decision.evaluated_at.nanos % 1_000_000 == 0:
            alike = lanes.alike.key(search)
            early = self._reading.not_yet(search.at)
            by_it = lanes.is_digest_right(search)
            key = (alike, search.content, by_it, early) if alike is not None else None
        known = lanes.known.get(key) if key is not None else None
        if known is not None:
            if known.other_engine:
                self._found.other_engine[known.other_engine] += 1
            return known, None
        question = lanes.sieve.ask(search.facts, search.officer, search.at)
        made = lanes.sieve.sift(question)
        others = self._found.other_engine.total()
        kind = self._as_recorded(lanes, question, search, made)
        if kind != SOUND:
            return Known(kind, ""), question
        other = search.decision.engine if self._found.other_engine.total() > others else ""
        known = Known(self._proposed(lanes, question, search, made), other)
        if key is not None:
            if len(lanes.known) >= KEPT_MAX:
                lanes.known.clear()
            lanes.known[key] = known
        return known, question

    def _kind(self, change: Change) -> int:
        """A number for changes that are alike: hashing one costs more than counting it."""
        number = self._kind_numbers.setdefault(change, len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(change)
        return number

    def finish(self) -> Replayed:
        """What came of all."""
        found = self._found
        found.counts = Counter(
            {(who, month, self._kinds[kind]): n for (who, month, kind), n in self._counted.items()}
        )
        for lanes in self._lanes.made:
            found.disagreements += lanes.sieve.disagreements + lanes.sieve_new.disagreements
            found.left_to_engine += lanes.sieve.left_to_engine + lanes.sieve_new.left_to_engine
        replaced = sorted({name for lanes in self._lanes.made for name in lanes.replaced})
        known = {
            name
            for lanes in self._lanes.made
            for name, one in lanes.world.book.directives.items()
            if one.document.manifest.party == self.party
        }
        return dataclasses.replace(
            found, replaces=tuple(replaced), beside=tuple(sorted(known - set(replaced)))
        )

    def _as_recorded(
        self, lanes: Lanes, question: Question, search: RecordedSearch, made: Sifted
    ) -> int:
        """Why the decision cannot be made again as it was; SOUND when it was."""
        at = search.decision.evaluated_at
        same_time = question.at == search.at and at.nanos % 1_000_000 == 0
        if search.content == made.content and same_time and lanes.is_digest_right(search):
            return SOUND
        kind = self._cause(lanes.world, search, made)
        if kind != SOUND:
            return kind
        if same_time and _but_for_the_engine(search.decision) == _but_for_the_engine(made.decision):
            self._found.other_engine[search.decision.engine] += 1
            return SOUND
        self._found.contradictions += 1
        if len(self._found.contradictions_listed) < CONTRADICTIONS_LISTED_MAX:
            self._found.contradictions_listed.append(search.index)
        return self._kind(Change(Outcome.CANNOT_SAY, reason="the record contradicts itself"))

    def _cause(self, world: World, search: RecordedSearch, made: Sifted) -> int:
        """What the decision was made by that is not at hand, besides the engine; SOUND when all is."""
        key = (id(world), search.content, search.decision.policy_set_sha256, search.at.date())
        kind = self._causes.get(key)
        if kind is None:
            kind = SOUND
            for one in causes(search.decision, made.decision, world):
                if one.what is not Differs.ENGINE:
                    about = f" ({one.about})" if one.about else ""
                    reason = f"{_NOT_AT_HAND[one.what]}{about}"
                    kind = self._kind(Change(Outcome.CANNOT_SAY, reason=reason))
                    break
            if len(self._causes) >= KEPT_MAX:
                self._causes.clear()
            self._causes[key] = kind
        return kind

    def _proposed(
        self, lanes: Lanes, question: Question, search: RecordedSearch, made: Sifted
    ) -> int:
        if self._reading.not_yet(search.at):
            return 0
        asked = question.seats
        question = self._proposed_question(lanes, question, search)
        if all(seat.party != self.party for seat in (*asked, *question.seats)):
            return 0
        alike = lanes.sieve_new.alike(question, self.party)
        key = id(lanes), made.content, alike
        kind = self._changes.get(key) if alike is not None else None
        if kind is None:
            said = lanes.sieve_new.party_says(question, self.party)
            kind = self._kind(self._compared(search.decision, said, question))
            if alike is not None:
                if len(self._changes) >= KEPT_MAX:
                    self._changes.clear()
                self._changes[key] = kind
        return kind

    def _proposed_question(
        self, lanes: Lanes, question: Question, search: RecordedSearch
    ) -> Question:
        """The question with those who would be asked, were the proposal in force."""
        day = question.at.date()
        # A country is asked from its first order on, which the proposal may be, or put off.
        if lanes.world.book.has_ordered(self.party, day) == lanes.new.has_ordered(self.party, day):
            return question
        return lanes.sieve_new.ask(search.facts, search.officer, search.at)

    def _compared(
        self, recorded: Decision, said: Sequence[SeatVerdict], question: Question
    ) -> Change:
        # That nobody held a seat refused, and no longer does where the party holds it now.
        nobodys = {one.seat for one in question.seats if not one.party}
        others = [
            one
            for one in recorded.verdicts
            if one.party != self.party and (one.party or one.seat in nobodys)
        ]
        own = [one for one in recorded.verdicts if one.party == self.party]
        new = [one.verdict for one in said]
        unknown = _unknown(new) - _unknown(own)
        if unknown:
            names = ", ".join(sorted(unknown))
            return Change(Outcome.CANNOT_SAY, reason=f"not recorded: {names}")
        before, after = _reasons(own), _reasons(new)
        was = recorded.outcome == _PERMITTED
        would = conjunction([*others, *new]) == _PERMITTED
        if was != would:
            return Change(Outcome.TO_PERMITTED if would else Outcome.TO_REFUSED, before, after)
        return SAME if before == after else Change(Outcome.OTHER_REASONS, before, after)

    def _confirm(
        self,
        lanes: Lanes,
        made: Question | None,
        search: RecordedSearch,
        kind: int,
        *,
        asked_anew: bool,
    ) -> bool:
        """Have the engine say it. What it says without the proposal is asked in the sample only: on record is
        what it said then.
        """
        question = made or lanes.sieve.ask(search.facts, search.officer, search.at)
        proposed, engine = question, lanes.asked_anew
        if not self._reading.not_yet(search.at):
            proposed = self._proposed_question(lanes, question, search)
            engine = lanes.asked_anew_new if asked_anew else lanes.engine_new
        new = engine.party_says(proposed, self.party)
        # What the engine said is compared once for all to which it said the same.
        said = b"".join(one.verdict.SerializeToString(deterministic=True) + b"\0" for one in new)
        key = search.content, said
        confirmed = self._confirmations.get(key)
        if confirmed is None:
            confirmed = self._kind(self._compared(search.decision, new, proposed))
            if len(self._confirmations) >= KEPT_MAX:
                self._confirmations.clear()
            self._confirmations[key] = confirmed
        if asked_anew:
            # All parties', not the proposal's alone: others were taken for alike by the same means.
            was = _but_for_the_engine(lanes.asked_anew.decide(question))
            confirmed = confirmed if was == _but_for_the_engine(search.decision) else DISAGREES
        if confirmed != kind:
            self._found.disagreements += 1
            return False
        if kind == 0:
            self._found.sampled += 1
        else:
            self._found.confirmed += 1
        return True


_NOT_AT_HAND: Final = {
    Differs.PEER: "some of its parties were asked at a peer",
    Differs.DIRECTIVE_MISSING: "decided by a directive that is not at hand",
    Differs.DIRECTIVE_TEXT: "decided by another text of a directive",
    Differs.DIRECTIVE_NOT_IN_FORCE: "decided with other directives in force",
    Differs.VOCABULARY_OR_REGISTRY: "decided with another vocabulary or registry",
}


def _but_for_the_engine(decision: Decision) -> Decision:
    copy = Decision()
    copy.CopyFrom(decision)
    copy.ClearField("evaluated_at")
    copy.ClearField("documents_index")
    copy.ClearField("engine")
    copy.ClearField("policy_set_sha256")
    return copy


def _unknown(verdicts: Iterable[Verdict]) -> set[str]:
    return {
        fact
        for one in verdicts
        if Fault.FACT_UNKNOWN in one.faults
        for fact in (one.unknown_facts or ["a fact that every search states"])
    }


def _reasons(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """What a party says, each thing once: rules, requirements that were not met, faults."""
    found: dict[str, None] = {}
    for said in verdicts:
        found.update(dict.fromkeys(one.id for one in said.rules))
        found.update(dict.fromkeys(f"{one.rule_id}#{one.clause}" for one in said.unmet))
        found.update(dict.fromkeys(said.faults))
    return tuple(sorted(found))
