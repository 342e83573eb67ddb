"""Prints, for every row of the catalogue of cases from real rules, what was expected and what came of it.

    python tools/conformance.py [FOLDER]

FOLDER holds the vocabulary, directives, and the library with its registry and its list of rows. Rows that
need what is not there yet are listed as pending, by name. Ends with exit code 1 when a covered row fails.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from countersign.type.v1.decision_pb2 import DecisionOutcome
from directive import cases, document, guards
from directive.book import LIBRARY, Book, directive_folders, load_directive
from directive.case_request import Request
from directive.cases import OUTCOMES
from directive.entities import known_names
from directive.evaluate import Evaluator, SeatVerdict, conjunction
from directive.findings import DirectiveRefused
from directive.vocabulary import Vocabulary
from shared.registry import Registry

ROOT: Final = Path(__file__).resolve().parents[1]
ROWS_FILE: Final = "rows.toml"


@dataclass
class Row:
    """One row of the catalogue."""

    id: str
    expect: str
    duties: frozenset[str]
    pending: str = ""
    outcomes: set[str] = field(default_factory=set)
    rules: dict[str, str] = field(default_factory=dict)
    """Rule that determined it, or was not met, to its citation."""
    owed: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def told(self, permits: bool, verdicts: Iterable[SeatVerdict]) -> None:
        """Adds what directives said."""
        self.outcomes.add("permitted" if permits else "refused")
        for said in verdicts:
            self.rules |= {rule.id: rule.citation for rule in said.verdict.rules}
            self.rules |= {f"not {u.rule_id}": u.citation for u in said.verdict.unmet}
            self.rules |= dict.fromkeys(said.verdict.faults, "doubt refuses")
            self.owed |= {duty.kind for duty in said.obligations}

    @property
    def got(self) -> str:
        """What came of it, in the words of the list of rows."""
        return "both" if len(self.outcomes) > 1 else "".join(self.outcomes) or "nothing"

    @property
    def passed(self) -> bool:
        """Whether it came out as expected."""
        return not self.problems and self.got == self.expect and self.duties <= self.owed


@dataclass(frozen=True)
class World:
    """Directives, and the registry that their cases name."""

    folders: Sequence[Path]
    vocabulary: Vocabulary
    registry: Registry


def judged(folder: Path) -> list[Row]:
    """Every row with what came of it; raises DirectiveRefused when a directive cannot be judged."""
    library = folder / LIBRARY
    vocabulary = Vocabulary.load(folder)
    listed = tomllib.loads((library / ROWS_FILE).read_text(encoding="utf-8"))
    rows = {
        name: Row(name, row["expect"], frozenset(row.get("duties", ())), row.get("pending", ""))
        for name, row in listed["rows"].items()
    }
    demo = Registry.load(folder / "demo-registry.toml")
    whole = Registry.load(library / "registry.toml")
    shipped = World(directive_folders(folder), vocabulary, demo)
    for world in (shipped, World(directive_folders(library), vocabulary, whole)):
        for one in world.folders:
            _cases(world, one, rows)
    everywhere = {path.name: path for path in (*shipped.folders, *directive_folders(library))}
    for name, asked in listed["together"].items():
        _together(rows[name], asked, everywhere, vocabulary, whole)
    for name, changed in listed["load"].items():
        _load(rows[name], changed, everywhere, vocabulary, whole)
    for name, row in listed["rows"].items():
        if "test" in row:
            _by_test(rows[name], row["by"], row["test"])
    return list(rows.values())


def _cases(world: World, folder: Path, rows: dict[str, Row]) -> None:
    loaded = load_directive(folder, world.vocabulary, known_names(world.registry))
    report = cases.run(loaded, cases.load(folder), world.vocabulary, world.registry)
    for result in report.results:
        if result.case.id is None:
            continue
        row = rows.setdefault(result.case.id, Row(result.case.id, "a row of the list", frozenset()))
        row.problems += result.problems
        if result.held is not None:
            row.told(result.held.verdict.outcome == OUTCOMES["permit"], [result.held])


def _together(
    row: Row,
    asked: dict[str, Any],
    folders: dict[str, Path],
    vocabulary: Vocabulary,
    registry: Registry,
) -> None:
    loaded = [
        load_directive(folders[name], vocabulary, known_names(registry))
        for name in asked["directives"]
    ]
    file = cases.load(folders[asked["directives"][0]])
    request = Request.model_validate({**file.ordinary, **asked["given"]})
    evaluator = Evaluator(Book(loaded, vocabulary), registry)
    facts = request.facts(vocabulary)
    verdicts = [
        verdict
        for party in asked["parties"]
        for verdict in evaluator.evaluate_party(facts, request.officer, file.at, party)
    ]
    outcome = conjunction(one.verdict for one in verdicts)
    row.told(outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED, verdicts)
    if set(row.rules) != set(asked["rules"]):
        row.problems.append(f"expected the rules {asked['rules']}")


def _load(
    row: Row,
    changed: dict[str, Any],
    folders: dict[str, Path],
    vocabulary: Vocabulary,
    registry: Registry,
) -> None:
    read = document.read(folders[changed["directive"]])
    rules = read.rules_text.replace(changed["replace"], changed["with"])
    parsed = document.parse(read.name, read.manifest_text.encode(), rules.encode())
    try:
        guards.check(parsed, vocabulary, known_names(registry))
        row.outcomes.add("permitted")
    except DirectiveRefused as refused:
        row.outcomes.add("refused")
        row.rules = {finding.guard: finding.message for finding in refused.findings}
    if changed["guard"] not in row.rules:
        row.problems.append(f"expected the finding {changed['guard']}")


def _by_test(row: Row, file: str, test: str) -> None:
    """A row about the broker: `make test` proves it; here it is seen that the test is there."""
    if f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"):
        row.outcomes.add(row.expect)
        row.rules = {"a test": f"{file}::{test}"}
    else:
        row.problems.append(f"{file} has no {test}")


def lines(rows: Iterable[Row]) -> Iterator[tuple[str, ...]]:
    """The table: id, expected, got, rule, citation."""
    for row in rows:
        expected = ", ".join([row.expect, *sorted(row.duties)])
        if row.pending:
            yield row.id, expected, "pending", "", row.pending
            continue
        got = row.got if row.passed else f"FAILS: {', '.join([row.got, *row.problems])}"
        yield (
            row.id,
            expected,
            got,
            ", ".join(row.rules),
            "; ".join(dict.fromkeys(row.rules.values())),
        )


def main() -> int:
    """Command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "directives"
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        rows = sorted(judged(folder), key=lambda row: row.id)
    except DirectiveRefused as refused:
        console.print("\n".join(str(finding) for finding in refused.findings), markup=False)
        return 1
    table = Table("id", "expected", "got", "rule", "citation")
    for line in lines(rows):
        table.add_row(*line)
    console.print(table)
    covered = [row for row in rows if not row.pending]
    failed = [row.id for row in covered if not row.passed]
    pending = [row.id for row in rows if row.pending]
    console.print(f"{len(rows)} rows: {len(covered) - len(failed)} hold, {len(failed)} fail, "
                  f"{len(pending)} pending ({', '.join(pending)})")  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
