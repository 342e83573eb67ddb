"""The cases that travel with a directive: an ordinary request, and what changes with the answer.

A case states the verdict and the rules that must make it, so that a directive that refuses for the
wrong reason fails. It is judged with the directive alone, as if its party had no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from countersign.type.v1.decision_pb2 import Seat, Verdict, VerdictOutcome
from countersign.type.v1.search_pb2 import Offence, SearchFacts
from directive.book import Book, Directive
from directive.document import CASES_FILE, DocumentError, read_file
from directive.evaluate import Evaluator, SeatVerdict
from directive.vocabulary import Vocabulary
from shared.registry import Registry

CASES_MAX: Final = 2_000
"""Of one directive."""
SEARCH_ID: Final = "00000000-0000-4000-8000-000000000000"
"""Rules cannot see the search id; every case has this one."""

OUTCOMES: Final[Mapping[str, VerdictOutcome.ValueType]] = {
    "permit": VerdictOutcome.VERDICT_OUTCOME_PERMIT,
    "forbid": VerdictOutcome.VERDICT_OUTCOME_FORBID,
    "cannot tell": VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL,
}


def _in_utc(value: object) -> object:
    """YAML gives times without a zone as naive ones; cases are written in UTC."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_in_utc)]
SeatName = Literal["origin", "beneficiary", "operator", "gallery owner", "jurisdiction"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class OffenceOf(_Strict):
    """The offence of a case."""

    nibrs: str = ""
    statute: str = ""
    severity: str | None = None
    attempt: bool = False


class Request(_Strict):
    """A request in the words of the vocabulary. None is "not given"."""

    officer: str
    origin: str
    beneficiary: str | None
    system: str
    gallery: str
    purpose: str | None
    suspicion: str | None
    offence: OffenceOf
    provenance: str | None
    capture_mode: str | None = Field(alias="captureMode")
    case_number: str = Field(default="", alias="caseNumber")
    narrative: str = ""
    candidates_max: int = Field(default=0, ge=0, le=50, alias="candidatesMax")

    def facts(self, vocabulary: Vocabulary) -> SearchFacts:
        """The request as the contracts have it; raises DocumentError for a word that is not one."""

        def number(enum: str, word: str | None) -> Any:
            if word is None:
                return 0
            value = vocabulary.number(enum, word)
            if value is None:
                raise DocumentError(f"{word!r} is not a {enum} of the vocabulary")
            return value

        facts = SearchFacts(
            search_id=SEARCH_ID,
            origin_agency=self.origin,
            system=self.system,
            gallery=self.gallery,
            purpose=number("Purpose", self.purpose),
            suspicion=number("SuspicionLevel", self.suspicion),
            offence=Offence(
                nibrs_code=self.offence.nibrs,
                statute=self.offence.statute,
                severity=number("OffenceSeverity", self.offence.severity),
                attempt=self.offence.attempt,
            ),
            provenance=number("ProbeProvenance", self.provenance),
            capture_mode=number("CaptureMode", self.capture_mode),
            case_number=self.case_number,
            narrative=self.narrative,
            candidates_max=self.candidates_max,
        )
        if self.beneficiary is not None:
            facts.beneficiary_agency = self.beneficiary
        return facts


class Case(_Strict):
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


class CaseFile(_Strict):
    """What `cases.yaml` says."""

    at: Moment
    """The time of the decision, unless a case says otherwise."""
    seat: SeatName
    """The seat that is asked, unless a case says otherwise."""
    ordinary: Mapping[str, Any]
    cases: tuple[Case, ...] = Field(min_length=1, max_length=CASES_MAX)


@dataclass(frozen=True)
class CaseResult:
    """What came of one case."""

    case: Case
    problems: tuple[str, ...]
    """What differs from what the case states; empty when it holds."""


@dataclass(frozen=True)
class CasesReport:
    """What came of a directive's cases."""

    directive: str
    results: tuple[CaseResult, ...]
    rules_not_fired: tuple[str, ...]
    """Rules that no case shows at work."""

    @property
    def passed(self) -> bool:
        """Whether every case holds and every rule is shown at work."""
        return not self.rules_not_fired and not any(result.problems for result in self.results)


def load(folder: Path) -> CaseFile:
    """Reads `cases.yaml` of a directive's folder; raises DocumentError."""
    label = f"{folder.name}/{CASES_FILE}"
    content = read_file(folder / CASES_FILE)
    try:
        return CaseFile.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError(f"{label}: not YAML: {error}") from error
    except ValidationError as error:
        raise DocumentError(f"{label}: {_problems(error)}") from error


def run(
    directive: Directive, cases: CaseFile, vocabulary: Vocabulary, registry: Registry
) -> CasesReport:
    """Judges every case; raises DocumentError when a case is no request."""
    evaluator = Evaluator(Book([directive], vocabulary), registry)
    manifest = directive.document.manifest
    label = f"{manifest.name}/{CASES_FILE}"
    results: list[CaseResult] = []
    fired: set[str] = set()
    for case in cases.cases:
        try:
            request = Request.model_validate({**cases.ordinary, **case.given})
            facts = request.facts(vocabulary)
        except ValidationError as error:
            raise DocumentError(f"{label}: {case.label}: {_problems(error)}") from error
        except DocumentError as error:
            raise DocumentError(f"{label}: {case.label}: {error}") from error
        seat = _seat(case.seat or cases.seat)
        verdicts = evaluator.evaluate_party(
            facts, request.officer, case.at or cases.at, manifest.party
        )
        held = next((v for v in verdicts if v.verdict.seat == seat), None)
        if held is None:
            problem = f"{manifest.party} does not hold the seat {case.seat or cases.seat!r}"
            results.append(CaseResult(case, (problem,)))
            continue
        fired.update(rule.id for rule in held.verdict.rules)
        results.append(CaseResult(case, tuple(_differences(case, held))))
    silent = tuple(rule.id for rule in directive.rules if rule.id not in fired)
    return CasesReport(manifest.name, tuple(results), silent)


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
    return [
        f"{what}: expected {', '.join(sorted(expected)) or 'none'}; "
        f"got {', '.join(sorted(got)) or 'none'}"
        for what, (expected, got) in compared.items()
        if sorted(expected) != sorted(got)
    ]


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
