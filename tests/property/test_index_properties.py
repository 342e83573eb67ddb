"""The query index answers what follows from the entries one by one, whatever and however they come."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DischargeResult
from countersign.type.v1.decision_pb2 import (
    DECISION_OUTCOME_PERMITTED,
    DECISION_OUTCOME_REFERRED,
    DECISION_OUTCOME_REFUSED,
)
from ledger.duties import open_duties
from ledger.index import QueryIndex
from ledger.index_queries import REFUSED, count, page, span
from ledger.questions import Dimension, DutyState, EndState, Question
from shared.kinds import KINDS
from support.examples import examples
from support.ledgers import ORIGIN

ENDS = {
    "search_answered": EndState.ANSWERED,
    "search_failed": EndState.FAILED,
    "search_expired": EndState.EXPIRED,
    "search_withdrawn": EndState.WITHDRAWN,
}
"""What each kind of end comes to."""
OUTCOMES = (DECISION_OUTCOME_PERMITTED, DECISION_OUTCOME_REFERRED, DECISION_OUTCOME_REFUSED)
RESULTS = tuple(result for result in DischargeResult.values() if result)
LENGTH = 60
"""Entries of a history: enough for each sort of duty and end to meet each other in it."""
NONE: frozenset[str | None] = frozenset({None})
Duty = tuple[str, str, str]


class Histories:
    """Makes histories by chance; the same from the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.entries: list[Entry] = []
        while len(self.entries) < LENGTH:
            make = self._random.choice(
                (self._decision, self._end, self._discharge, self._discharge)
            )
            self.entries.append(make())

    def _search(self) -> str:
        return self._random.choice("aaaaab")

    def _duty(self) -> Duty:
        kind = self._random.choice(("peer_review", "report_outcome"))
        return kind, self._random.choice(("A-1", "B-2")), self._random.choice(("CA01", "CA02"))

    def _decision(self) -> Entry:
        """Permitted or refused, with rules, and with duties to several parties."""
        entry = Entry(search_id=self._search())
        decision = entry.search_decided.decision
        decision.outcome = self._random.choice(OUTCOMES)
        for _ in range(self._random.randrange(3)):
            decision.verdicts.add().rules.add(id=self._random.choice(("A-1", "B-2", "C-3")))
        for _ in range(self._random.randrange(4)):
            kind, rule, party = self._duty()
            term = self._random.choice(("", "board:24h", "board:2d"))
            decision.obligations.add(kind=kind, rule_id=rule, party=party, parameters=term)
        return entry

    def _named(self) -> int:
        """An entry before this one, mostly a recent decision, or one that is still to come."""
        here = len(self.entries)
        decisions = [at for at, one in enumerate(self.entries) if one.HasField("search_decided")]
        if decisions and self._random.random() < 0.8:
            return self._random.choice(decisions[-4:])
        return self._random.randrange(here + 4)

    def _end(self) -> Entry:
        entry = Entry(search_id=self._random.choice((self._search(), "")))
        kind = self._random.choice((*ENDS, "outcome_reported"))
        getattr(entry, kind).decided_index = self._named()
        return entry

    def _discharge(self) -> Entry:
        """Mostly of a duty that there is: done, waived or failed, and perhaps another way before."""
        entry = Entry(search_id=self._random.choice((self._search(), "")))
        event = entry.obligation_discharged
        event.decided_index = at = self._named()
        event.kind, event.rule_id, event.party = self._duty()
        if at < len(self.entries) and self._random.random() < 0.8:
            for one in self.entries[at].search_decided.decision.obligations[:1]:
                event.kind, event.rule_id, event.party = one.kind, one.rule_id, one.party
        event.result = self._random.choice(RESULTS)
        return entry


@dataclass
class Plain:
    """What an entry comes to, told one after the other without any index."""

    kind: int
    rules: frozenset[str | None]
    end: EndState | None
    duties: frozenset[tuple[str | None, int | None]]
    """Each kind of duty with what became of it; without any, a pair of nothing."""

    def values(self, dimensions: tuple[Dimension, ...]) -> Iterator[tuple[object, ...]]:
        """The groups that it is in."""
        told = [one for one in dimensions if one in (Dimension.DUTY, Dimension.DUTY_STATE)]
        at = {Dimension.DUTY: 0, Dimension.DUTY_STATE: 1}
        duties = {tuple(duty[at[one]] for one in told) for duty in self.duties}
        for rule, duty in product(self.rules if Dimension.RULE in dimensions else [None], duties):
            of: dict[Dimension, object] = dict(zip(told, duty, strict=True))
            end = None if self.end is None else self.end.value
            of |= {Dimension.KIND: self.kind, Dimension.RULE: rule, Dimension.END_STATE: end}
            yield tuple(of[one] for one in dimensions)


def decision_of(entries: Sequence[Entry], index: int) -> int:
    """The decision that an entry belongs to; itself when to none."""
    entry = entries[index]
    event = getattr(entry, str(entry.WhichOneof("event")))
    if not hasattr(event, "decided_index") or event.decided_index >= index:
        return index
    named = entries[event.decided_index]
    same = named.HasField("search_decided") and entry.search_id in ("", named.search_id)
    return int(event.decided_index) if same else index


def plain(entries: Sequence[Entry], index: int) -> Plain:
    """Tell of one entry, with no others than these."""
    at = decision_of(entries, index)
    kind = str(entries[index].WhichOneof("event"))
    decided = entries[at]
    if not decided.HasField("search_decided"):
        return Plain(KINDS[kind], NONE, None, frozenset({(None, None)}))
    decision = decided.search_decided.decision
    end = EndState.REFUSED if decision.outcome == REFUSED else EndState.OPEN
    end_of: EndState | None = end if index == at else None
    states: dict[Duty, DutyState] = {
        (one.kind, one.rule_id, one.party): DutyState.OPEN for one in decision.obligations
    }
    ended = False
    for other, entry in enumerate(entries):
        if other == at or decision_of(entries, other) != at:
            continue
        event = entry.obligation_discharged
        if entry.HasField("obligation_discharged"):
            duty = (event.kind, event.rule_id, event.party)
            if duty in states:
                states[duty] = DutyState(1 + event.result)
        elif (of_kind := ENDS.get(str(entry.WhichOneof("event")))) and not ended:
            ended, end_of = True, of_kind
    rules: set[str | None] = {rule.id for said in decision.verdicts for rule in said.rules}
    duties: set[tuple[str | None, int | None]]
    duties = {(duty[0], state.value) for duty, state in states.items()}
    return Plain(
        KINDS[kind],
        frozenset(rules) or NONE,
        end_of,
        frozenset(duties) or frozenset({(None, None)}),
    )


def kinds_of(entry: Entry) -> set[str]:
    """The duties that came with a decision."""
    return {one.kind for one in entry.search_decided.decision.obligations}


def duties_open(entries: Sequence[Entry], index: int, now_h: int) -> Iterator[tuple[str, bool]]:
    """The kind of each duty of a decision of which nothing was said, and whether its term is past."""
    said = {
        (event.kind, event.rule_id, event.party)
        for other, entry in enumerate(entries)
        if (event := entry.obligation_discharged).kind and decision_of(entries, other) == index
    }
    for one in entries[index].search_decided.decision.obligations:
        duty = (one.kind, one.rule_id, one.party)
        if duty not in said:
            said.add(duty)
            hours = {"": None, "board:24h": 24, "board:2d": 48}[one.parameters]
            yield one.kind, hours is not None and hours < now_h


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


def indexed(path: Path, entries: Sequence[Entry], batch: int) -> QueryIndex:
    leaves = [entry.SerializeToString(deterministic=True) for entry in entries]
    index = QueryIndex.create(path, ORIGIN)
    for at in range(0, len(leaves), batch):
        index.add(leaves[at : at + batch])
    return index


COUNTED: tuple[tuple[Dimension, ...], ...] = (
    (Dimension.DUTY,),
    (Dimension.DUTY_STATE,),
    (Dimension.DUTY, Dimension.DUTY_STATE),
    (Dimension.DUTY_STATE, Dimension.DUTY),
    (Dimension.DUTY_STATE, Dimension.END_STATE),
    (Dimension.RULE, Dimension.DUTY_STATE),
    (Dimension.KIND, Dimension.DUTY),
    (Dimension.RULE,),
    (Dimension.END_STATE,),
)


@given(st.integers(0, 2**32), st.integers(0, LENGTH), st.sampled_from((9, 25, LENGTH)), st.data())
@examples(0.2)
def test_answers_follow_from_the_entries_one_by_one(
    folder: Path, seed: int, size: int, batch: int, data: st.DataObject
) -> None:
    entries = Histories(seed).entries
    told = {index: plain(entries[:size], index) for index in range(size)}
    duty = data.draw(st.sampled_from(("", "peer_review")), "duty")
    state = data.draw(st.sampled_from((None, *DutyState)), "state")
    end = data.draw(st.sampled_from((None, *EndState)), "end")
    question = Question(size=size, duty=duty, duty_state=state, end_state=end)
    wanted = [index for index, one in told.items() if _answers(one, question)]
    index = indexed(folder / "one.duckdb", entries, batch)
    try:
        assert page(index, question, 100).indexes == wanted
        for dimensions in COUNTED:
            counts = count(index, question, dimensions)
            assert counts.groups is not None
            expected = Counter(one for at in wanted for one in told[at].values(dimensions))
            assert {one.values: one.entries for one in counts.groups} == expected, dimensions
            assert counts.entries == len(wanted)
        for now_h in (25, 49):
            owed = Counter(duty for at in told for duty in duties_open(entries[:size], at, now_h))
            counted = open_duties(index, size, now_h * 3_600_000_000)
            assert {one.kind: (one.open, one.overdue) for one in counted} == {
                kind: (owed[kind, False] + owed[kind, True], owed[kind, True])
                for kind in {of for at in told for of in kinds_of(entries[at])}
            }
        still_open = [at for at, one in told.items() if one.end is EndState.OPEN]
        assert span(index, 0, 1, size).open_decisions == still_open
    finally:
        index.close()


def _answers(one: Plain, question: Question) -> bool:
    if question.end_state is not None and one.end is not question.end_state:
        return False
    if not question.duty and question.duty_state is None:
        return True
    return any(
        kind is not None
        and question.duty in ("", kind)
        and (question.duty_state is None or state == question.duty_state.value)
        for kind, state in one.duties
    )
