"""A five-party decision beside five bare calls of the engine with the same facts, and decisions a second.

Every agency and the state have a directive of 12 rules (those of `bench/registry_size.py`). The bare
calls are on handles that were parsed before, with requests that were built before: what the engine itself
takes. The goal is beside those that are told every fact of the search, as a decision is; those that are
told only what the rules read know already what we have to find out. Blocks take turns, so that the ratio
holds on a noisy machine; it is of processor time. Case numbers and officers differ from search to search,
so little is remembered of them; with "kept" the evaluator gives again what it said before, as in the
service.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cedarpy
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from countersign.type.v1.search_pb2 import SearchFacts
from directive import entities
from directive.evaluate import Evaluator
from registry_size import NOON, OFFICERS_EACH, World, questions, world
from support.directives import vocabulary

GOAL: Final = 1.3
Asked = list[tuple[SearchFacts, str]]
Call = tuple[dict[str, Any], cedarpy.PolicySet, cedarpy.Schema]


def handle(one: World) -> cedarpy.Entities:
    """The whole registry, parsed."""
    found = list(entities.records(one.fold.registry, vocabulary()))
    return cedarpy.Entities.from_json_str(json.dumps(found), vocabulary().schema)


def calls(one: World, asked: Asked, *, every_fact: bool) -> list[Call]:
    """Five calls for each search: with the facts that the party's rules read, or with every fact."""
    made: list[Call] = []
    for facts, officer in asked:
        question = one.evaluator.ask(facts, officer, NOON)
        for seat in question.seats:
            rules = one.evaluator._book.slice(seat.party, NOON.date())
            assert rules is not None
            told = vocabulary().facts if every_fact else rules.projection.facts
            schema = vocabulary().loose if every_fact else rules.projection.schema
            made.append((question.request(seat.seat, told), rules.policies, schema))
    assert len(made) == 5 * len(asked)
    return made


def bare(known: cedarpy.Entities, made: list[Call]) -> Callable[[], None]:
    """What is timed of the engine alone."""

    def run() -> None:
        for request, policies, schema in made:
            cedarpy.is_authorized(request, policies, known, schema)

    return run


def ours(evaluator: Evaluator, asked: Asked) -> Callable[[], None]:
    """What is timed of a decision."""

    def run() -> None:
        for facts, officer in asked:
            assert len(evaluator.evaluate(facts, officer, NOON).verdicts) == 5

    return run


def microseconds(run: Callable[[], None], count: int) -> float:
    """Processor time of one."""
    began = time.process_time()
    run()
    return (time.process_time() - began) / count * 1e6


def a_second(evaluator: Evaluator, asked: Asked, processes: int) -> float:
    """Decisions a second of so many processes that work beside each other, by the clock."""
    context = multiprocessing.get_context("fork")
    gate, done = context.Barrier(processes + 1), context.Queue()

    def work() -> None:
        ours(evaluator, asked[:20])()
        gate.wait()
        began = time.perf_counter()
        ours(evaluator, asked)()
        done.put(len(asked) / (time.perf_counter() - began))

    workers = [context.Process(target=work) for _ in range(processes)]
    for one in workers:
        one.start()
    gate.wait()
    found = float(sum(done.get(timeout=300) for _ in workers))
    for one in workers:
        one.join()
    return found


def main() -> int:
    """Prints both tables, and ends with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agencies", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm", type=int, default=4, help="blocks before those that count")
    parser.add_argument("--block", type=int, default=100, help="decisions of a block")
    args = parser.parse_args()
    console, draw = Console(), random.Random(20261122)
    one = world(args.agencies, console)
    known = handle(one)
    times: list[list[float]] = []
    for _ in range(args.warm + args.rounds):
        asked = questions(one.agencies, args.block, draw, OFFICERS_EACH)
        runs = [
            bare(known, calls(one, asked, every_fact=False)),
            bare(known, calls(one, asked, every_fact=True)),
            ours(one.evaluator, asked),
            ours(one.kept, asked),
        ]
        times.append([microseconds(run, args.block) for run in runs])
    times = times[args.warm :]
    names = (
        *("five bare calls, facts that the rules read", "five bare calls, every fact"),
        *("a decision", "a decision, kept"),
    )
    table = Table("", "CPU us", "beside the first", "beside the second")
    for at, name in enumerate(names):
        ratios = [statistics.median(block[at] / block[base] for block in times) for base in (0, 1)]
        each = statistics.median(block[at] for block in times)
        table.add_row(name, f"{each:.0f}", f"{ratios[0]:.2f}", f"{ratios[1]:.2f}")
    console.print(table)
    asked = questions(one.agencies, 20 * args.block, draw, OFFICERS_EACH)
    rates = Table("decisions a second, by the clock", "1 process", "2 processes")
    for name, evaluator in (("asked anew", one.evaluator), ("kept", one.kept)):
        rates.add_row(name, *(f"{a_second(evaluator, asked, n):.0f}" for n in (1, 2)))
    console.print(rates)
    found = statistics.median(block[2] / block[1] for block in times)
    verdict = "within" if found <= GOAL else "ABOVE"
    console.print(f"{found:.2f} of five bare calls that are told every fact, {verdict} {GOAL}")
    return 0 if found <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
