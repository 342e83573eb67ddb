"""A replay of recorded searches beside the engine alone: CPU seconds for a proposal over a long history.

The history is drawn from a seed, decided by the real evaluator and put on record by the real code of broker
and ledger; what is timed begins with the bytes that a reader receives and ends with the report.
The same question is put to the bare engine, on handles that were parsed before, for a sample of the searches.
Prints ratios, which hold on a noisy machine. `--searches` bounds it; it starts nothing.
"""

import argparse
import json
import platform
import random
import sys
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Final

import cedarpy
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from countersign.installation import bundled
from countersign.ledger.v1.entry_pb2 import Entry
from directive import document, guards
from directive.book import Directive, load_book
from directive.entities import build, known_names
from directive.evaluate import Evaluator
from directive.proposed import Reading
from directive.recorded import NotRederivable, RecordedSearch, openings_needed, recorded
from directive.rendering import replayed
from directive.replay import Replay
from directive.replay_counts import Outcome, Replayed
from directive.vocabulary import Vocabulary
from directive.worlds import OneWorld, World
from shared.registry import Registry
from support.directives import LAPD
from support.recorded_history import (
    BEGAN,
    YEARS,
    kept_and_opened,
    pending_entry,
    searches_of_years,
)

SEARCHES: Final = 100_000
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
    count = parser.parse_args().searches
    vocabulary = Vocabulary.load(bundled.directives())
    registry = staffed(Registry.load(bundled.registry()))
    book = load_book(bundled.directives(), vocabulary, registry)
    world = World(book, registry)
    console = Console()
    rows = history(count, world)
    shown = Table(title=f"{count} searches on record; {platform.python_version()}, CPU time")
    for title in (*("proposal", "s", "us each", "changed", "cannot say"), "confirmed", "sampled"):
        shown.add_column(title, justify="left" if title == "proposal" else "right")
    slowest = 0.0
    for name, rules in PROPOSALS.items():
        proposal = directive(rules, vocabulary, registry)
        found, seconds = timed(rows, world, proposal)
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


def history(count: int, world: World) -> list[Row]:
    """The searches on record, as they are received; not timed."""
    by_agency = defaultdict(list)
    for name, officer in world.registry.officers.items():
        by_agency[officer.agency].append(name)
    decides = Evaluator(world.book, world.registry)
    wanted = openings_needed(world.book.vocabulary.facts)
    rows = []
    for index, drawn in enumerate(searches_of_years(count, 1, by_agency)):
        entry, openings = kept_and_opened(pending_entry(drawn, decides, world.registry))
        given = {field: openings[field] for field in wanted if field in openings}
        rows.append((index, entry.SerializeToString(deterministic=True), given))
    return rows


def searches_of(rows: list[Row]) -> list[RecordedSearch]:
    """The rows, read."""
    found = [recorded(i, Entry.FromString(leaf), given, []) for i, leaf, given in rows]
    return [one for one in found if isinstance(one, RecordedSearch)]


def timed(rows: list[Row], world: World, proposal: Directive) -> tuple[Replayed, float]:
    """A replay from bytes to report, and the CPU seconds that it took."""
    began = time.process_time()
    again = Replay(OneWorld(world), proposal)
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
