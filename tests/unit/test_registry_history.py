"""Each decision is made again by the registry of its time; what a reader was not told is not guessed."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from directive import holdings
from directive.book import Book
from directive.evaluate import Evaluator
from directive.explain import Differs, explain
from directive.guards import KnownNames
from directive.holdings import Holdings
from directive.recorded import RecordedSearch
from directive.replay import Replay
from directive.replay_counts import Outcome, Replayed
from directive.sieve import Sieve
from directive.worlds import HeldWorlds, Stood
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.history import History
from registry.orders import OrderNotProved
from registry.signature import Signed
from shared.registry import Registry
from support import registrars
from support.directives import (
    FORBID,
    LAPD,
    NOON,
    SHIPPED,
    TRAINED,
    directive,
    ordinary,
    registry,
    vocabulary,
)
from support.documents import handed_in, world
from support.documents import published as directive_entry
from support.registrations import (
    BURBANK,
    admitting,
    demonstration,
    document,
    openings,
    published,
    signed,
)

pytestmark = pytest.mark.promise(9)

DEMONSTRATION = demonstration()
LAPD_PUBLIC, ACTIVE = DEMONSTRATION[LAPD]
SUSPENDED = ACTIVE.replace("active = true", "active = false", 1)
UNTOLD = "how its officer stood is not known here: not all registrations of"


@dataclass
class Ledger:
    """Documents, and what stands behind their commitments."""

    documents: list[tuple[int, Entry]] = field(default_factory=list)
    openings: dict[int, dict[str, str]] = field(default_factory=dict)
    fold: Fold = field(default_factory=lambda: admitting(*DEMONSTRATION))
    held: Holdings = field(default_factory=Holdings)
    serial: int = 0

    def _add(self, entry: Entry, opened: dict[str, str]) -> None:
        index = 10 * (len(self.documents) + 1)
        if self.documents:
            entry.previous_document = self.documents[-1][0]
        self.held = holdings.apply(self.held, index, entry, world(None))
        self.documents.append((index, entry))
        self.openings[index] = opened

    @property
    def head(self) -> int:
        return self.documents[-1][0]

    def directives(self) -> None:
        for name in SHIPPED:
            self._add(directive_entry(handed_in(name, by=""), self.held), {})

    def hand_in(self, pending: list[PendingEntry]) -> None:
        for one in pending:
            opened = dict(openings(one))
            self._add(one.entry, opened)
            with contextlib.suppress(RegistryRefused):
                self.fold.follow(one.entry, opened)

    def register(self, public: str, officers: str) -> Signed:
        self.serial += 1
        ready = signed(document(public, officers), self.serial)
        self.hand_in(published(self.fold, ready))
        return ready

    def everybody(self) -> None:
        for public, officers in DEMONSTRATION.values():
            self.register(public, officers)

    def search(self, by: Registry | None = None, *, officer: str = TRAINED) -> RecordedSearch:
        """What is decided now."""
        evaluator = Evaluator(self.held.book(vocabulary()), by or self.fold.registry)
        decision = evaluator.evaluate(ordinary(), officer, NOON)
        decision.documents_index = self.head
        return RecordedSearch.of(self.head + 1, ordinary(), officer, decision)

    def worlds(self, *without: str) -> HeldWorlds:
        """As a reader has them who was not given the openings of some agencies."""
        given = {
            index: self.openings[index]
            for index, entry in self.documents
            if entry.officers_published.origin_agency not in without
        }
        history = History(self.documents, given, admitting(*DEMONSTRATION))
        return HeldWorlds(self.documents, world(None), registry(), None, history.after)


@pytest.fixture(name="ledger")
def _ledger() -> Ledger:
    made = Ledger()
    made.directives()
    made.everybody()
    return made


def is_explained(search: RecordedSearch, known: HeldWorlds) -> bool:
    its = known.of(search.decision)
    return not its.untold(search) and explain(search, its).explained


def test_each_decision_is_made_again_by_what_was_registered_then(ledger: Ledger) -> None:
    before = ledger.search()
    ledger.register(LAPD_PUBLIC, SUSPENDED)
    while_suspended = ledger.search()
    ledger.register(LAPD_PUBLIC + "\n# again\n", ACTIVE)
    after = ledger.search()
    searches = [before, while_suspended, after]
    assert len({one.decision.policy_set_sha256 for one in searches}) == 3
    assert before.decision.outcome != while_suspended.decision.outcome
    known = ledger.worlds()
    assert all(is_explained(one, known) for one in searches)
    # By the registry of another time it does not come out.
    wrong = explain(before, known.of(after.decision))
    assert wrong.differences[0].what is Differs.VOCABULARY_OR_REGISTRY
    replay = Replay(known, directive(FORBID + "when { context.attempt };", name="proposed"))
    for one in searches * 2:
        replay.add(one)
    assert +replay.finish().totals() == {Outcome.SAME: 6}


def test_a_publication_counts_from_its_last_entry_on_and_one_that_is_refused_never(
    ledger: Ledger,
) -> None:
    stood = History(ledger.documents, ledger.openings, admitting(*DEMONSTRATION)).after
    assert [stood(9).registered, stood(ledger.head).registered] == [False, True]
    assert stood(ledger.head).registry == ledger.fold.registry
    indexes = [index for index, _ in ledger.documents]
    digests = [stood(index).registry.sha256 for index in indexes]
    parts = [entry.WhichOneof("event") == "officers_published" for _, entry in ledger.documents]
    # Of two entries the first, the public part, changes nothing by itself.
    for at in range(1, len(parts)):
        if parts[at]:
            assert digests[at - 1] == digests[at - 2] != digests[at]
    old = signed(document(LAPD_PUBLIC, SUSPENDED), 1)
    ledger.hand_in(published(admitting(*DEMONSTRATION), old))
    stood = History(ledger.documents, ledger.openings, admitting(*DEMONSTRATION)).after
    assert stood(ledger.head) is stood(indexes[-1])


def test_an_officer_of_whom_the_reader_was_not_told_is_not_guessed(ledger: Ledger) -> None:
    search, stranger = ledger.search(), ledger.search(officer="stranger")
    others = f"[officers.{TRAINED}x]\nactive = true\n"
    ledger.register(DEMONSTRATION[BURBANK][0], DEMONSTRATION[BURBANK][1] + others)
    foreign = ledger.search(officer=f"{TRAINED}x")
    without_own, without_others = ledger.worlds(LAPD), ledger.worlds(BURBANK)
    for one in (search, stranger):
        assert without_own.of(one.decision).untold(one) == f"{UNTOLD} {LAPD} were opened"
        assert is_explained(one, without_others)
    told = without_others.of(foreign.decision).untold(foreign)
    assert told == f"{UNTOLD} other agencies were opened"
    assert is_explained(foreign, ledger.worlds())
    replay = Replay(without_own, directive(FORBID + ";", name="proposed"))
    replay.add(search)
    found = replay.finish()
    assert found.unsaid() == {f"{UNTOLD} {LAPD} were opened": 1}
    assert found.sound


def test_an_officer_in_doubt_because_of_another_agency_is_no_contradiction(ledger: Ledger) -> None:
    twice = f"[officers.{TRAINED}]\nactive = true\n"
    ledger.register(DEMONSTRATION[BURBANK][0], DEMONSTRATION[BURBANK][1] + twice)
    search = ledger.search()
    assert {"UNKNOWN_OFFICER"} == {one for said in search.decision.verdicts for one in said.faults}
    assert is_explained(search, ledger.worlds())
    without = ledger.worlds(BURBANK)
    assert without.of(search.decision).untold(search) == f"{UNTOLD} other agencies were opened"


def test_before_anybody_registered_the_decision_says_whether_there_was_a_file() -> None:
    ledger = Ledger()
    ledger.directives()
    by_file, by_nothing = ledger.search(registry()), ledger.search()
    assert by_file.decision.policy_set_sha256 != by_nothing.decision.policy_set_sha256
    ledger.everybody()
    known = ledger.worlds()
    assert is_explained(by_file, known)
    assert is_explained(by_nothing, known)
    assert known.newest.registry == ledger.fold.registry


def test_names_of_officers_and_courses_are_missed_only_where_all_are_known(ledger: Ledger) -> None:
    def names(*without: str) -> KnownNames:
        return ledger.worlds(*without).newest.names

    assert names() == KnownNames(
        names().members, names().officers, names().courses, officers_known=True
    )
    assert "LACRIS-FR" in names().courses
    assert not names(LAPD).officers_known


def test_it_is_known_of_how_many_officers_nothing_was_opened(ledger: Ledger) -> None:
    given = History(ledger.documents, {}, admitting(*DEMONSTRATION)).after(ledger.head)
    assert given.unopened[LAPD] == ACTIVE.count("[officers.")
    assert given.registry.officers == {}
    assert given.registry.sha256 == ledger.fold.registry.sha256
    whole = History(ledger.documents, ledger.openings, admitting(*DEMONSTRATION)).after(ledger.head)
    assert whole == Stood(whole.registry, {}, registered=True)
    one_more = "\n[officers.lapd-99999]\nactive = true\n"
    ledger.register(LAPD_PUBLIC, SUSPENDED + one_more)
    del ledger.openings[ledger.head]
    after = History(ledger.documents, ledger.openings, admitting(*DEMONSTRATION)).after(ledger.head)
    # Who was suspended, and who is new: who is as before was opened before.
    assert after.unopened == {LAPD: 2}


def test_an_order_of_registrars_who_are_not_known_here_is_not_passed_over() -> None:
    """A decision of after it would be made again by the word of who was expelled."""
    known, unknown = (
        registrars.admitting(LAPD, registrars=who) for who in ((registrars.REGISTRARS,), ())
    )
    documents = [(4, registrars.on_record(registrars.order(LAPD)))]
    history = History(documents, {}, known)
    assert history.after(4).registry.expelled == {LAPD}
    assert not history.after(3).registry.expelled
    with pytest.raises(OrderNotProved):
        History(documents, {}, unknown)


class CountedSieve(Sieve):
    """Counts how often rules are compiled and the engine is tested anew."""

    made: ClassVar[list[Registry]] = []

    def __init__(self, book: Book, known: Registry) -> None:
        self.made.append(known)
        super().__init__(book, known)


def replayed(ledger: Ledger, states: Sequence[str], rules: str) -> Replayed:
    """Searches by the same officer between registrations of the department's officers."""
    searches = []
    for officers in states:
        ledger.register(LAPD_PUBLIC, officers)
        searches.append(ledger.search())
    CountedSieve.made.clear()
    proposal = directive(rules, known=ledger.fold.registry, name="proposed")
    replay = Replay(ledger.worlds(), proposal, sample=1.0, sieve=CountedSieve)
    for search in searches:
        replay.add(search)
    return replay.finish()


def test_officers_who_change_are_no_reason_to_begin_anew(ledger: Ledger) -> None:
    trained = ACTIVE.replace("{ LACRIS-FR", "{ EXTRA = 2099-01-01, LACRIS-FR", 1)
    rules = FORBID + 'unless { principal.hasTag("EXTRA") };'
    found = replayed(ledger, (ACTIVE, SUSPENDED, "", ACTIVE, trained), rules)
    assert (found.sound, found.unsaid(), found.disagreements) == (True, {}, 0)
    # No rule in force tells who has that course: their decisions are the same.
    assert +found.totals() == {Outcome.TO_REFUSED: 2, Outcome.OTHER_REASONS: 1, Outcome.SAME: 2}
    assert not found.other_engine
    assert len(CountedSieve.made) == 2, "with the proposal and without"


def test_a_rule_that_looks_at_another_officer_is_asked_anew_when_that_one_changes(
    ledger: Ledger,
) -> None:
    other = "[officers.lapd-40777]\nactive = true"
    assert other in ACTIVE
    states = (ACTIVE, ACTIVE.replace(other, other.replace("true", "false")))
    rules = FORBID + 'when { Countersign::Officer::"lapd-40777".active };'
    found = replayed(ledger, states, rules)
    assert (found.sound, found.unsaid(), found.disagreements) == (True, {}, 0)
    assert +found.totals() == {Outcome.TO_REFUSED: 1, Outcome.SAME: 1}
