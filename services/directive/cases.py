"""The cases that travel with a directive: an ordinary request, and what changes with the answer.

A case states the verdict and the rules that must make it, so that a directive that refuses for the
wrong reason fails. It is judged with the directive alone, as if its party had no other.

Who takes part in a case may be invented: a directive's cases must hold wherever they are judged, and
no real registry has an officer whose certificate lapsed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field, PrivateAttr, ValidationError

from countersign.type.v1.decision_pb2 import Seat, Verdict, VerdictOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from directive import strict_yaml
from directive.book import Book, Directive
from directive.case_request import Moment, Request, SeatName, Strict
from directive.document import CASES_FILE, read_file, text_of
from directive.entities import EntitiesError
from directive.evaluate import Evaluator, SeatVerdict
from directive.findings import DocumentError, Finding, Place
from directive.vocabulary import Vocabulary
from shared.model_errors import problems_of
from shared.registry import Registry

CASES_MAX: Final = 2_000
"""Of one directive."""

OUTCOMES: Final[Mapping[str, VerdictOutcome.ValueType]] = {
    "permit": VerdictOutcome.VERDICT_OUTCOME_PERMIT,
    "forbid": VerdictOutcome.VERDICT_OUTCOME_FORBID,
    "cannot tell": VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL,
}


class Case(Strict):
    """One case."""

    name: str = Field(min_length=1)
    id: str | None = None
    """In the project's catalogue of cases: "T05"."""
    given: Mapping[str, Any] = Field(default_factory=dict)
    """What differs from the ordinary request."""
    at: Moment | None = None
    seat: SeatName | None = None
    expect: Literal["permit", "forbid", "cannot tell"]
    rules: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    """ "LAPD-1#3": the third condition of LAPD-1; 0 is its head."""
    obligations: tuple[str, ...] = ()
    """Kinds."""
    faults: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How reports name it."""
        return f"{self.id} {self.name}" if self.id else self.name


class CaseFile(Strict):
    """What `cases.yaml` says."""

    at: Moment
    """The time of the decision, unless a case says otherwise."""
    seat: SeatName
    """The seat that is asked, unless a case says otherwise."""
    registry: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Who takes part in these cases only, in the registry's own form; added to the registry."""
    ordinary: Mapping[str, Any]
    cases: tuple[Case, ...] = Field(min_length=1, max_length=CASES_MAX)

    _places: Mapping[str, Place | None] = PrivateAttr(default_factory=dict)

    def place(self, case: Case) -> Place | None:
        """Where the case is written."""
        return self._places.get(case.name)

    def with_own_registry(self, registry: Registry) -> Registry:
        """The registry with those who take part in the cases only; raises ValidationError."""
        if not self.registry:
            return registry
        whole = registry.model_dump()
        for section, entries in self.registry.items():
            whole[section] = {**whole.get(section, {}), **entries}
        return Registry.model_validate(whole)


@dataclass(frozen=True)
class Asked:
    """What a case asks, in the contracts' terms."""

    facts: SearchFacts
    officer: str
    at: datetime
    seat: Seat.ValueType


@dataclass(frozen=True)
class CaseResult:
    """What came of one case."""

    case: Case
    asked: Asked
    held: SeatVerdict | None
    """What the directive said; None when its party does not hold the seat."""
    problems: tuple[str, ...]
    """What differs from what the case states; empty when it holds."""
    place: Place | None

    @property
    def shows(self) -> SeatVerdict | None:
        """The verdict of which the case is a proof: as stated, and told."""
        if self.held is None or self.problems:
            return None
        told = self.held.verdict.outcome in (OUTCOMES["permit"], OUTCOMES["forbid"])
        return self.held if told else None


@dataclass(frozen=True)
class CasesReport:
    """What came of a directive's cases."""

    directive: str
    results: tuple[CaseResult, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Each case that does not hold."""
        file = f"{self.directive}/{CASES_FILE}"
        return tuple(
            Finding("CASE_FAILS", file, result.case.label, "; ".join(result.problems), result.place)
            for result in self.results
            if result.problems
        )


Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""


def silent(done: int, of: int) -> None:
    """Tells nobody."""


def load(folder: Path) -> CaseFile:
    """Reads `cases.yaml` of a directive's folder; raises DocumentError."""
    return parse(folder.name, read_file(folder / CASES_FILE))


def parse(label: str, content: bytes) -> CaseFile:
    """Reads the bytes of `cases.yaml`; raises DocumentError. Messages name it by the label."""
    file = f"{label}/{CASES_FILE}"
    text = text_of(file, content)
    try:
        value, root = strict_yaml.load(text)
        places = _places(root)
        parsed = CaseFile.model_validate(value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        raise DocumentError("CASES", file, f"not YAML: {error.problem}", place) from error
    except ValidationError as error:
        place = _place(root, error.errors()[0]["loc"])
        raise DocumentError("CASES", file, problems_of(error), place) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Besides its own errors, the parser lets through those of numbers and dates out of range.
        raise DocumentError("CASES", file, f"not YAML: {error}") from error
    for number, case in enumerate(parsed.cases):
        if case.name in parsed._places:
            message = "another case has this name"
            raise DocumentError("CASES", file, message, places.get(number), case.label)
        parsed._places = {**parsed._places, case.name: places.get(number)}
    return parsed


def _place(root: yaml.Node | None, steps: Sequence[str | int]) -> Place | None:
    """Where a value stands, or what is there of those around it; None when nothing is."""
    place, found = None, root
    for step in steps:
        named: list[tuple[yaml.Node, yaml.Node]] = []
        if isinstance(found, yaml.MappingNode):
            named = [(key, value) for key, value in found.value if key.value == step]
        elif isinstance(found, yaml.SequenceNode) and isinstance(step, int):
            named = [(value, value) for value in found.value[step : step + 1]]
        if not named:
            break
        key, found = named[0]
        place = Place(key.start_mark.line + 1, key.start_mark.column + 1)
    return place


def _places(root: yaml.Node | None) -> Mapping[int, Place]:
    """Where each case begins, as far as they are a list."""
    if not isinstance(root, yaml.MappingNode):
        return {}
    listed = next((value for key, value in root.value if key.value == "cases"), None)
    if not isinstance(listed, yaml.SequenceNode):
        return {}
    marks = [node.start_mark for node in listed.value]
    return {number: Place(mark.line + 1, mark.column + 1) for number, mark in enumerate(marks)}


def run(
    directive: Directive,
    cases: CaseFile,
    vocabulary: Vocabulary,
    registry: Registry,
    progress: Progress = silent,
    *,
    beside: Sequence[Directive] = (),
) -> CasesReport:
    """Judges every case; raises DocumentError when a case is no request.

    By the directive alone, or by it together with others of its party.
    """
    manifest = directive.document.manifest
    file = f"{manifest.name}/{CASES_FILE}"
    try:
        known = cases.with_own_registry(registry)
        evaluator = Evaluator(Book([directive, *beside], vocabulary), known)
    except ValidationError as error:
        raise DocumentError("CASES", file, f"registry: {problems_of(error)}") from error
    except EntitiesError as error:
        raise DocumentError("CASES", file, f"registry: {error}") from error
    results: list[CaseResult] = []
    for case in cases.cases:
        asked = _asked(case, cases, vocabulary, file)
        verdicts = evaluator.evaluate_party(asked.facts, asked.officer, asked.at, manifest.party)
        held = next((v for v in verdicts if v.verdict.seat == asked.seat), None)
        problems = (
            (f"{manifest.party} does not hold the seat {case.seat or cases.seat!r}",)
            if held is None
            else tuple(_differences(case, held))
        )
        results.append(CaseResult(case, asked, held, problems, cases.place(case)))
        progress(len(results), len(cases.cases))
    return CasesReport(manifest.name, tuple(results))


def _asked(case: Case, cases: CaseFile, vocabulary: Vocabulary, file: str) -> Asked:
    try:
        request = Request.model_validate({**cases.ordinary, **case.given})
        facts = request.facts(vocabulary)
    except ValidationError as error:
        place = cases.place(case)
        raise DocumentError("CASE_REQUEST", file, problems_of(error), place, case.label) from error
    except ValueError as error:
        place = cases.place(case)
        raise DocumentError("CASE_REQUEST", file, str(error), place, case.label) from error
    seat = _seat(case.seat or cases.seat)
    return Asked(facts, request.officer, case.at or cases.at, seat)


def _seat(name: SeatName) -> Seat.ValueType:
    return Seat.Value("SEAT_" + name.upper().replace(" ", "_"))


def _differences(case: Case, held: SeatVerdict) -> list[str]:
    verdict: Verdict = held.verdict
    outcome = next(name for name, value in OUTCOMES.items() if value == verdict.outcome)
    compared = {
        "verdict": ([case.expect], [outcome]),
        "rules": (case.rules, [rule.id for rule in verdict.rules]),
        "unmet": (case.unmet, [f"{part.rule_id}#{part.clause}" for part in verdict.unmet]),
        "obligations": (case.obligations, [duty.kind for duty in held.obligations]),
        "faults": (case.faults, verdict.faults),
    }
    differences = [
        f"{what}: expected {', '.join(sorted(expected)) or 'none'}; "
        f"got {', '.join(sorted(got)) or 'none'}"
        for what, (expected, got) in compared.items()
        if sorted(expected) != sorted(got)
    ]
    if "NO_DIRECTIVE" in set(verdict.faults) - set(case.faults):
        differences.append("the directive is not in force at that time (`at`)")
    if "UNKNOWN_OFFICER" in set(verdict.faults) - set(case.faults):
        differences.append(
            "write the officer under `registry`, which is for those who take part in the cases only"
        )
    if differences and verdict.unknown_facts:
        facts = ", ".join(verdict.unknown_facts)
        differences.append(f"not known, so say it in `ordinary` or in the case's `given`: {facts}")
    return differences
