"""A decision is made again by what the ledger held when it was made, and by nothing that came later."""

from dataclasses import replace
from datetime import UTC, date

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from directive import holdings
from directive.book import Book
from directive.entities import known_names
from directive.evaluate import Evaluator
from directive.explain import Differs, explain
from directive.holdings import Holdings
from directive.recorded import RecordedSearch
from directive.replay import Replay
from directive.replay_counts import Outcome
from directive.worlds import HeldWorlds, NoSuchWorld, OneWorld, World
from shared.registry import Registry
from support.directives import (
    FORBID,
    NOON,
    SHIPPED,
    TRAINED,
    directive,
    ordinary,
    registry,
    shipped_book,
    vocabulary,
)
from support.documents import NAME, handed_in, published, world

FIRST = 10
"""Index of the first document; the others follow at once."""


def documents() -> tuple[list[tuple[int, Entry]], Holdings]:
    """All shipped directives, one after the other; then that of the commission is withdrawn."""
    now, found = Holdings(), []
    for index, name in enumerate(SHIPPED, FIRST):
        entry = published(handed_in(name, by=""), now)
        now = holdings.apply(now, index, entry, world(None))
        found.append((index, entry))
    held = now.held["lapd-commission-2021-01-12"]
    until = date(2026, 6, 1)
    entry = holdings.withdrawn(held, until, "", now.head)
    index = FIRST + len(SHIPPED)
    found.append((index, entry))
    return found, holdings.apply(now, index, entry, world(None))


def worlds(files: OneWorld | None = None) -> HeldWorlds:
    return HeldWorlds(documents()[0], world(None), registry(), files)


def decided(documents_index: int | None, book: Book, purpose: int = 7) -> RecordedSearch:
    """What the commission forbids, as it was decided after a document."""
    facts = ordinary(purpose=purpose)
    decision = Evaluator(book, registry()).evaluate(facts, TRAINED, NOON)
    if documents_index is not None:
        decision.documents_index = documents_index
    return RecordedSearch.of(3, facts, TRAINED, decision)


BEFORE = FIRST + len(SHIPPED) - 1
AFTER = FIRST + len(SHIPPED)


def searches() -> tuple[RecordedSearch, RecordedSearch]:
    """Before the withdrawal and after it."""
    after = documents()[1].book(vocabulary())
    return decided(BEFORE, shipped_book()), decided(AFTER, after)


def test_each_decision_is_made_again_by_what_was_held_then() -> None:
    known = worlds()
    before, after = searches()
    assert before.content != after.content
    for search in (before, after):
        explanation = explain(search, known.of(search.decision))
        assert explanation.explained
        assert explanation.again == search.decision
    wrong = explain(before, known.of(after.decision))
    assert wrong.differences[0].what is Differs.DIRECTIVE_NOT_IN_FORCE


def test_a_replay_crosses_from_one_to_the_next() -> None:
    proposal = directive(
        FORBID.replace("LAPD-9", "LAPD-77") + "when { context.attempt };", name="proposed"
    )
    replay = Replay(worlds(), proposal, sample=1.0)
    for search in searches():
        replay.add(search)
    found = replay.finish()
    assert found.totals()[Outcome.SAME] == 2
    assert (found.sampled, found.sound) == (2, True)


def test_a_text_that_names_what_left_the_registry_is_still_applied() -> None:
    """An officer or a course may be gone today; each decision of then stays explained."""
    today = replace(world(None), known=known_names(Registry(agencies={})))
    search, _ = searches()
    known = HeldWorlds(documents()[0], today, registry())
    assert explain(search, known.of(search.decision)).explained


def test_what_is_not_known_is_not_guessed() -> None:
    known = worlds()
    for index in (None, 99):
        with pytest.raises(NoSuchWorld):
            known.of(decided(index, shipped_book()).decision)
    replay = Replay(known, directive(FORBID + ";", name="proposed"))
    replay.add(decided(99, shipped_book()))
    assert replay.finish().unsaid() == {"entry 99 is no document that is known here": 1}
    with pytest.raises(NoSuchWorld):
        _ = HeldWorlds([], world(None), registry()).newest


def test_files_stand_for_the_time_before_documents() -> None:
    files = OneWorld(World(shipped_book(), registry()))
    assert worlds(files).of(decided(None, shipped_book()).decision) is files.world
    assert HeldWorlds([], world(None), registry(), files).newest is files.world
    assert worlds().newest.documents_index == AFTER
    assert NAME in worlds().newest.book.directives


def test_all_that_was_ever_held_is_read() -> None:
    assert worlds().facts == World(shipped_book(), registry()).facts


def test_when_a_text_was_received_is_on_record() -> None:
    (own,) = [one for name, one in shipped_book().directives.items() if name == NAME]
    known = worlds()
    index, entry = next(
        one for one in documents()[0] if one[1].directive_published.name == own.document.name
    )
    assert index < AFTER
    assert known.received(own.document) == entry.recorded_at.ToDatetime(UTC)
    another = directive(FORBID + ";", name=NAME)
    assert known.received(another.document) is None
    assert OneWorld(World(shipped_book(), registry())).received(own.document) is None
