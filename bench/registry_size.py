"""Whether a large registry slows a decision: 1,000 agencies and 100,000 officers beside 50 and 5,000.

Both registries are published and followed as in operation: signed documents, commitments, entries, fold.
Every agency and every state has a directive of 12 rules. A decision has five seats, of four agencies and
their state. Blocks of decisions in the one and in the other take turns, so that the ratio holds on a noisy
machine; it is of processor time. Officers are drawn at random, so that nothing is remembered of them; with
"again" few of them ask.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from countersign.type.v1.search_pb2 import SearchFacts
from directive import document
from directive.book import Book, Directive
from directive.evaluate import Evaluator
from directive.rules import read_rules
from registry.commitments import Committed, commit
from registry.document import Document, parse_public
from registry.folding import Fold
from registry.publication import pending_entries
from registry.signature import Signed, key_name, statement
from shared.registry import Standing
from support.directives import ordinary, vocabulary
from tlog.note import Signer, UnverifiedNote, sign_note

OFFICERS_EACH: Final = 100
AGENCIES_OF_A_STATE: Final = 25
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECRET: Final = bytes(32)
GOAL: Final = 1.10

RULES: Final = """
permit (principal, action in Countersign::Action::"search", resource)
when { principal.active && principal.hasTag("FR") && principal.getTag("FR") > context.now };
permit (principal, action in Countersign::Action::"search", resource)
when { context.suspicion == Countersign::SuspicionLevel::"probableCause" };
forbid (principal, action in Countersign::Action::"search", resource)
when { principal in Countersign::NamedList::"%(list)s" };
forbid (principal, action in Countersign::Action::"search", resource)
when { resource.class == Countersign::GalleryClass::"webScraped" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.captureMode == Countersign::CaptureMode::"liveVideo" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.purpose == Countersign::Purpose::"crowdAnalysis" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.purpose == Countersign::Purpose::"employmentScreening" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.provenance == Countersign::ProbeProvenance::"sketch" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.caseNumber == "" };
forbid (principal, action in Countersign::Action::"search", resource)
when { context.candidatesMax > 100 };
forbid (principal, action in Countersign::Action::"search", resource)
when { context has beneficiary && !(context.beneficiary in Countersign::Jurisdiction::"%(state)s") };
forbid (principal, action in Countersign::Action::"search", resource)
when { resource.system.commercial };
"""


@dataclass(frozen=True)
class World:
    """A registry with directives, followed as it was published."""

    fold: Fold
    evaluator: Evaluator
    agencies: int
    kept: Evaluator
    megabytes: float


def ori(number: int) -> str:
    """An agency."""
    return f"{number:09d}"


def state(number: int) -> str:
    """The jurisdiction of an agency."""
    return f"US-{number // AGENCIES_OF_A_STATE:03d}"


def signer(owner: str) -> Signer:
    """Its key."""
    return Signer.from_seed(f"{owner.lower()}.example/registry", owner.encode().ljust(32, b"."))


def public_part(number: int) -> str:
    """What an agency registers: a system, a list, and a gallery in its neighbour's system."""
    neighbour = number - 1 if number % AGENCIES_OF_A_STATE else number
    return f"""owner = "{ori(number)}"
[agency]
name = "Agency {number}"
jurisdiction = "{state(number)}"
[keys]
registry = ["{signer(ori(number)).vkey}"]
[systems.system-{number}]
name = "System {number}"
commercial = false
[galleries.gallery-{number}]
name = "Gallery {number}"
system = "system-{neighbour}"
gallery_class = "booking_photos"
records = 1
as_of = 2026-01-01
[lists.list-{number}]
title = "List {number}"
"""


def signed(read: Document, officers: tuple[Committed, ...], serial: int) -> Signed:
    """Signed by its owner, with commitments that were made before."""
    said = statement(read, officers, serial)
    key = signer(read.owner)
    raw = UnverifiedNote.parse(sign_note(said.text, [key])).signatures[0].signature
    return Signed(read, officers, said, key_name(key.verifier), raw)


def publish(fold: Fold, ready: Signed) -> None:
    """Makes the entries and follows them."""
    for pending in pending_entries(ready, fold.previous(ready.document.owner)):
        fold.follow(pending.entry, {one.field: one.value for one in pending.sensitive})


def officers_of(number: int) -> dict[str, Standing]:
    """Its officers; certificates lapse on many different days."""
    return {
        f"officer-{number}-{n}": Standing(
            active=True, certificates={"FR": date(2027 + n % 3, 1 + n % 12, 1 + number % 28)}
        )
        for n in range(OFFICERS_EACH)
    }


def directive(party: str, number: int) -> Directive:
    """Twelve rules of one party."""
    text, parts = "", (RULES % {"list": f"list-{number}", "state": state(number)}).split(";\n")
    for at, rule in enumerate(part.strip() for part in parts if part.strip()):
        text += f'@id("P{party.replace("-", "")}-{at}") @title("t") @citation("c")\n{rule};\n'
    manifest = (
        f'name = "d-{party.lower()}"\nparty = "{party}"\ntitle = "t"\nsource = "s"\nauthor = "a"\n'
        f'vocabulary = "2"\nrule_prefix = "P{party.replace("-", "")}-"\neffective_from = 2020-01-01\n'
    )
    read = document.parse(f"d-{party.lower()}", manifest.encode(), text.encode())
    return Directive(read, tuple(read_rules(text)))


def world(agencies: int, console: Console) -> World:
    """Publishes a registry of so many agencies, and follows it."""
    process, began = psutil.Process(), time.process_time()
    gc.collect()
    before = process.memory_info().rss
    fold = Fold({ori(number): [signer(ori(number)).vkey] for number in range(agencies)})
    for number in range(agencies):
        officers = officers_of(number)
        public = public_part(number).encode()
        read = Document(parse_public(ori(number), public), public, officers)
        publish(fold, signed(read, commit(SECRET, read.owner, officers), 1))
    assert len(fold.registry.officers) == agencies * OFFICERS_EACH
    gc.collect()
    size = (process.memory_info().rss - before) / 1e6
    console.print(
        f"{agencies} agencies, {len(fold.registry.officers)} officers: signed, published and followed in "
        f"{time.process_time() - began:.1f} s, {size:.0f} MB"
    )
    began = time.process_time()
    parties = {ori(number): number for number in range(agencies)}
    parties |= {state(number): number for number in range(0, agencies, AGENCIES_OF_A_STATE)}
    book = Book([directive(party, number) for party, number in parties.items()], vocabulary())
    evaluator = Evaluator(book, fold.registry, keep=False)
    kept = Evaluator(book, fold.registry)
    gc.collect()
    megabytes = (process.memory_info().rss - before) / 1e6
    console.print(
        f"  {len(parties)} directives of 12 rules and two evaluators in "
        f"{time.process_time() - began:.1f} s, {megabytes:.0f} MB in all"
    )
    return World(fold, evaluator, agencies, kept, megabytes)


def questions(
    agencies: int, count: int, draw: random.Random, officers: int
) -> list[tuple[SearchFacts, str]]:
    """Searches of four agencies of one state, by one of so many officers each."""
    made = []
    for _ in range(count):
        first = draw.randrange(agencies // AGENCIES_OF_A_STATE) * AGENCIES_OF_A_STATE
        origin, beneficiary, owner = (first + n for n in draw.sample(range(1, 25), 3))
        facts = ordinary(
            origin_agency=ori(origin),
            beneficiary_agency=ori(beneficiary),
            system=f"system-{owner - 1}",
            gallery=f"gallery-{owner}",
            case_number=f"26-{draw.randrange(10**6)}",
        )
        made.append((facts, f"officer-{origin}-{draw.randrange(officers)}"))
    return made


def microseconds(evaluator: Evaluator, asked: list[tuple[SearchFacts, str]]) -> float:
    """Processor time of one decision."""
    began = time.process_time()
    for facts, officer in asked:
        decision = evaluator.evaluate(facts, officer, NOON)
        assert len(decision.verdicts) == 5
        assert not any(verdict.faults for verdict in decision.verdicts)
    return (time.process_time() - began) / len(asked) * 1e6


def measured(
    name: str,
    worlds: tuple[World, World],
    of: Callable[[World], Evaluator],
    args: argparse.Namespace,
    *,
    again: bool,
) -> tuple[str, float, float, float]:
    """Blocks in turns; medians of both, and of the ratio of neighbours."""
    draw = random.Random(20261122)
    few = [questions(one.agencies, 100, draw, 1) for one in worlds]
    times: list[tuple[float, float]] = []
    for _ in range(args.warm + args.rounds):
        pair = []
        for one, repeated in zip(worlds, few, strict=True):
            fresh = questions(one.agencies, args.block, draw, OFFICERS_EACH)
            asked = [draw.choice(repeated) for _ in fresh] if again else fresh
            pair.append(microseconds(of(one), asked))
        times.append((pair[0], pair[1]))
    times = times[args.warm :]
    small, large = (statistics.median(pair[at] for pair in times) for at in (0, 1))
    return name, small, large, statistics.median(pair[1] / pair[0] for pair in times)


def revocation_ms(one: World, rounds: int) -> tuple[float, float]:
    """One officer's revocation in the large registry: following its entry, and the next evaluator."""
    officers = officers_of(7)
    public = public_part(7).encode()
    read = Document(parse_public("x", public), public, officers)
    follow, over = [], []
    evaluator = one.kept
    for serial in range(2, rounds + 2):
        officers = {**officers, "officer-7-7": Standing(active=serial % 2 == 0)}
        ready = signed(read, commit(SECRET, read.owner, officers), serial)
        (pending,) = pending_entries(ready, one.fold.previous(read.owner))
        opened = {field.field: field.value for field in pending.sensitive}
        began = time.process_time()
        one.fold.follow(pending.entry, opened)
        registry = one.fold.registry
        between = time.process_time()
        evaluator = evaluator.over(registry)
        over.append((time.process_time() - between) * 1e3)
        follow.append((between - began) * 1e3)
    return statistics.median(follow), statistics.median(over)


def main() -> int:
    """Prints both, and ends with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=50, help="agencies of the small registry")
    parser.add_argument("--large", type=int, default=1_000, help="agencies of the large one")
    parser.add_argument("--rounds", type=int, default=15)
    # What a party's rules read is worked out at its first question, and there are a thousand parties.
    parser.add_argument("--warm", type=int, default=8, help="blocks before those that count")
    parser.add_argument("--block", type=int, default=200, help="decisions of a block")
    args = parser.parse_args()
    console = Console()
    worlds = world(args.small, console), world(args.large, console)
    table = Table("a decision", f"{args.small} agencies", f"{args.large} agencies", "ratio")
    rows = [
        measured("every officer another", worlds, lambda one: one.evaluator, args, again=False),
        measured("few officers, again", worlds, lambda one: one.evaluator, args, again=True),
        measured("as in the service", worlds, lambda one: one.kept, args, again=False),
    ]
    for name, small, large, ratio in rows:
        table.add_row(name, f"{small:.0f} us", f"{large:.0f} us", f"{ratio:.3f}")
    console.print(table)
    follow, over = revocation_ms(worlds[1], args.rounds)
    console.print(
        f"an officer's revocation: followed in {follow:.2f} ms, next evaluator {over:.2f} ms"
    )
    peak = psutil.Process().memory_info().rss / 1e6
    console.print(f"memory of the process: {peak:.0f} MB")
    return 0 if all(row[3] <= GOAL for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
