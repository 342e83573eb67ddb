"""A replay of recorded searches beside the engine alone: CPU seconds for a proposal over a long history.

The history is drawn from a seed, decided by the real evaluator and put on record by the real code of broker
and ledger; what is timed begins with the bytes that a reader receives and ends with the report.
The same question is put to the bare engine, on handles that were parsed before, for a sample of the searches.
Then the same of a history in which officers were registered anew in between (`--registrations` times).
Prints ratios, which hold on a noisy machine. `--searches` bounds it; it starts nothing.
"""

import argparse
import hashlib
import json
import platform
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import cedarpy
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from countersign.installation import bundled
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Decision
from directive import document, guards
from directive.book import Directive, load_book
from directive.document import Document
from directive.entities import build, known_names
from directive.evaluate import Evaluator
from directive.proposed import Reading
from directive.recorded import NotRederivable, RecordedSearch, openings_needed, recorded
from directive.rendering import replayed
from directive.replay import Replay
from directive.replay_counts import Outcome, Replayed
from directive.vocabulary import Vocabulary
from directive.worlds import OneWorld, World, Worlds
from registry.parted import Parted
from shared.registry import Officer, Registry
from support.directives import LAPD
from support.recorded_history import (
    BEGAN,
    YEARS,
    kept_and_opened,
    pending_entry,
    searches_of_years,
)

SEARCHES: Final = 100_000
REGISTRATIONS: Final = 500
RAW: Final = 2_000
"""Searches that the bare engine is asked about."""
BOUND_S: Final = 10.0
PROPOSALS: Final = {
    "violent felonies only": """@id("LAPD-77") @title("Violent felonies only") @citation("proposed")
forbid (principal, action in Countersign::Action::"search", resource)
unless { context.severity == Countersign::OffenceSeverity::"violentFelony" };""",
    "no informal route": """@id("LAPD-77") @title("No informal route") @citation("proposed")
forbid (principal, action in Countersign::Action::"search", resource)
when { context.route == Countersign::RequestRoute::"informal" };""",
    "a warrant in force": """@id("LAPD-77") @title("A warrant or an emergency") @citation("proposed")
forbid (principal, action in Countersign::Action::"search", resource)
unless { context has instrumentInForce && context.instrumentInForce }
unless { context.emergency && context has emergencyHours && context.emergencyHours < 72 };""",
    "nothing at all": """@id("LAPD-77") @title("Nothing at all") @citation("proposed")
forbid (principal, action in Countersign::Action::"search", resource);""",
}
MANIFEST: Final = """name = "proposed"
party = "CA0194200"
title = "A proposal"
source = "none"
author = "bench"
vocabulary = "2"
rule_prefix = "LAPD-"
effective_from = 2030-01-01
"""

OFFICERS: Final = 1_000
"""Of the department that the proposal is for, each with a certificate that lapses on some day."""

Row = tuple[int, bytes, dict[str, str]]
"""What a reader receives of one search."""


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=SEARCHES)
    parser.add_argument("--registrations", type=int, default=REGISTRATIONS)
    asked = parser.parse_args()
    count = asked.searches
    vocabulary = Vocabulary.load(bundled.directives())
    registry = staffed(Registry.load(bundled.registry()))
    book = load_book(bundled.directives(), vocabulary, registry)
    world = World(book, registry)
    console = Console()
    rows = history(count, lambda _: world)
    registered = Registrations(world, count, asked.registrations)
    changing = history(count, registered.at)
    shown = Table(title=f"{count} searches on record; {platform.python_version()}, CPU time")
    for title in (*("proposal", "s", "us each", "changed", "cannot say"), "confirmed", "sampled"):
        shown.add_column(title, justify="left" if title == "proposal" else "right")
    slowest = 0.0
    tried: list[tuple[str, str, list[Row], Worlds]] = []
    for name, rules in PROPOSALS.items():
        tried.append((name, rules, rows, OneWorld(world)))
        tried.append(("officers registered in between", rules, changing, registered))
    for name, rules, received, worlds in tried:
        proposal = directive(rules, vocabulary, registry)
        found, seconds = timed(received, worlds, proposal)
        assert found.sound, "the history contradicts itself"
        slowest = max(slowest, seconds)
        totals = found.totals()
        changed = sum(totals[one] for one in replayed.CHANGED)
        shown.add_row(
            *(name, f"{seconds:.2f}", f"{seconds / count * 1e6:.0f}", str(changed)),
            *(str(totals[Outcome.CANNOT_SAY]), str(found.confirmed), str(found.sampled)),
        )
    console.print(shown)
    raw = raw_engine(rows[:RAW], world)
    each = slowest / count
    console.print(
        f"bare engine, the three parties' rules on parsed handles, all facts: {raw * 1e6:.0f} us a search "
        f"({RAW} searches), so {raw * count:.0f} s for all, once; the slowest replay decides twice "
        f"and takes {each / raw:.3f} of that"
    )
    scaled = slowest * SEARCHES / count
    verdict = "within" if scaled <= BOUND_S else "ABOVE"
    console.print(
        f"{SEARCHES} searches: {scaled:.1f} s of CPU, {verdict} the bound of {BOUND_S:g} s"
    )


def directive(rules: str, vocabulary: Vocabulary, registry: Registry) -> Directive:
    """A proposal that has passed every guard."""
    read = document.parse("proposed", MANIFEST.encode(), rules.encode())
    return Directive(read, guards.check(read, vocabulary, known_names(registry)))


def staffed(registry: Registry) -> Registry:
    """With a department's officers."""
    chance, begun = random.Random(2), BEGAN.date()
    content = registry.model_dump()
    for number in range(OFFICERS):
        lapses = begun + timedelta(days=chance.randrange(-100, 365 * YEARS))
        content["officers"][f"lapd-1{number:04}"] = {
            "agency": LAPD,
            "active": chance.random() < 0.98,
            "lists": ["lapd-fr-users"],
            "certificates": {"LACRIS-FR": lapses},
        }
    return Registry.model_validate(content)


class Registrations:
    """Worlds in which an officer's standing changes now and then, as published registrations make them."""

    def __init__(self, world: World, searches: int, changes: int) -> None:
        chance, registry = random.Random(3), world.registry
        tables = {name: getattr(registry, name) for name in Registry.model_fields}
        officers = Parted[Officer]().changed((), registry.officers)
        ours = [name for name, one in officers.items() if one.agency == LAPD]
        self._every = max(searches // (changes + 1), 1)
        self._worlds = []
        days = registry.days
        for number in range(changes + 1):
            digest = hashlib.sha256(number.to_bytes(8, "big")).digest()
            made = Registry.assembled({**tables, "officers": officers}, digest, days)
            self._worlds.append(World(world.book, made, number))
            name = chance.choice(ours)
            lapses = BEGAN.date() + timedelta(days=chance.randrange(365 * YEARS))
            said = {"active": chance.random() < 0.95, "certificates": {"LACRIS-FR": lapses}}
            officers = officers.changed([name], {name: officers[name].model_copy(update=said)})
            days |= {lapses}

    def at(self, search: int) -> World:
        """In which a search was decided."""
        return self._worlds[min(search // self._every, len(self._worlds) - 1)]

    def of(self, decision: Decision) -> World:
        """In which it was decided."""
        return self._worlds[decision.documents_index]

    @property
    def newest(self) -> World:
        """The last."""
        return self._worlds[-1]

    @property
    def facts(self) -> frozenset[str]:
        """Of the book."""
        return self.newest.facts

    def received(self, text: Document) -> datetime | None:
        """Nobody asks."""
        return None


def history(count: int, at: Callable[[int], World]) -> list[Row]:
    """The searches on record, as they are received; not timed. `at` gives the world of each."""
    by_agency = defaultdict(list)
    now = at(0)
    for name, officer in now.registry.officers.items():
        by_agency[officer.agency].append(name)
    decides = Evaluator(now.book, now.registry)
    wanted = openings_needed(now.book.vocabulary.facts)
    rows = []
    for index, drawn in enumerate(searches_of_years(count, 1, by_agency)):
        if at(index) is not now:
            now = at(index)
            decides = decides.over(now.registry)
        pending = pending_entry(drawn, decides, now.registry)
        if now.documents_index is not None:
            decision = pending.entry.search_decided.decision
            decision.documents_index = now.documents_index
        entry, openings = kept_and_opened(pending)
        given = {field: openings[field] for field in wanted if field in openings}
        rows.append((index, entry.SerializeToString(deterministic=True), given))
    return rows


def searches_of(rows: list[Row]) -> list[RecordedSearch]:
    """The rows, read."""
    found = [recorded(i, Entry.FromString(leaf), given, []) for i, leaf, given in rows]
    return [one for one in found if isinstance(one, RecordedSearch)]


def timed(rows: list[Row], worlds: Worlds, proposal: Directive) -> tuple[Replayed, float]:
    """A replay from bytes to report, and the CPU seconds that it took."""
    began = time.process_time()
    again = Replay(worlds, proposal)
    for index, leaf, given in rows:
        search = recorded(index, Entry.FromString(leaf), given, given)
        assert isinstance(search, RecordedSearch | NotRederivable)
        again.add(search)
    found = again.finish()
    read = proposal.document
    json.dumps(
        replayed.document(found, read.manifest, read.sha256, replayed.Span("", ""), Reading())
    )
    return found, time.process_time() - began


def raw_engine(rows: list[Row], world: World) -> float:
    """CPU seconds of the bare engine for one search: each party's rules once, told every fact."""
    evaluator = Evaluator(world.book, world.registry)
    vocabulary = world.book.vocabulary
    entities = build(world.registry, vocabulary)
    asked = []
    for one in searches_of(rows):
        question = evaluator.ask(one.facts, one.officer, one.at)
        request = question.request(question.seats[0].seat, vocabulary.facts)
        slices = {
            seat.party: rules.policies
            for seat in question.seats
            if (rules := world.book.slice(seat.party, question.at.date())) is not None
        }
        asked += [(request, policies) for policies in slices.values()]
    began = time.process_time()
    for request, policies in asked:
        cedarpy.is_authorized(request, policies, entities, vocabulary.loose)
    return (time.process_time() - began) / len(rows)


if __name__ == "__main__":
    main()
