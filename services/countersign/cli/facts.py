"""The options by which a person states the facts of a search.

Each fact is asked for by name and none has a default: what a detective does not state, the software
must not state for them. In particular the beneficiary is unknown unless it is given.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import click

from countersign.cli import circumstances
from countersign.cli.circumstances import StatedCircumstances
from countersign.client.search_ids import new_search_id
from countersign.type.v1 import search_pb2 as pb
from shared.entry_facts import short_name

_ENUMS: Final[Mapping[str, tuple[Any, str]]] = {
    "purpose": (pb.Purpose, "PURPOSE_"),
    "suspicion": (pb.SuspicionLevel, "SUSPICION_LEVEL_"),
    "severity": (pb.OffenceSeverity, "OFFENCE_SEVERITY_"),
    "provenance": (pb.ProbeProvenance, "PROBE_PROVENANCE_"),
    "capture": (pb.CaptureMode, "CAPTURE_MODE_"),
}


class Identifier(click.ParamType[str]):
    """Text of one form; the error says what that is. What the server checks again, told at once."""

    def __init__(self, name: str, pattern: str, expected: str) -> None:
        self.name = name
        self._pattern = re.compile(pattern)
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it was given."""
        if not self._pattern.fullmatch(str(value)):
            self.fail(f"{str(value)!r} is not {self._expected}", param, ctx)
        return str(value)


UUID: Final = Identifier(
    "uuid",
    "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "a UUID, such as 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11",
)
search_id_argument = click.argument("search_id", type=UUID, metavar="ID")
ORI: Final = Identifier("ori", "[A-Z0-9]{9}", "an ORI: nine capital letters and digits")
NIBRS: Final = Identifier(
    "nibrs",
    "[0-9]{2}[0-9A-Z]",
    "a NIBRS code: two digits and a digit or capital letter, such as 13A",
)


def choices(fact: str) -> list[str]:
    """The words for the values of one fact: "criminal-investigation"."""
    enum, prefix = _ENUMS[fact]
    return [word(name, prefix) for name in enum.keys() if not name.endswith("_UNSPECIFIED")]  # noqa: SIM118


def word(name: str, prefix: str) -> str:
    """A value's name in the contracts as a person types and reads it."""
    return name.removeprefix(prefix).lower().replace("_", "-")


def word_of(enum: Any, number: int) -> str:
    """The word of a value, also of one that only a newer program can name: then it is its number."""
    return short_name(enum, number).lower().replace("_", "-") or "unspecified"


def value(fact: str, chosen: str) -> int:
    """The number of a word."""
    enum, prefix = _ENUMS[fact]
    return int(enum.Value(prefix + chosen.upper().replace("-", "_")))


@dataclass(frozen=True)
class StatedFacts:
    """What the options said."""

    search_id: str | None
    system: str
    gallery: str
    beneficiary: str | None
    own_case: bool
    purpose: str
    suspicion: str
    severity: str
    nibrs: str | None
    statute: str
    attempt: bool
    provenance: str
    capture: str
    case_number: str
    narrative: str
    candidates: int
    expires_after_s: int | None
    circumstances: StatedCircumstances

    def of(self, agency: str) -> pb.SearchFacts:
        """The facts as this agency states them."""
        if self.own_case and self.beneficiary is not None:
            raise click.UsageError("give either --own-case or --beneficiary, not both")
        facts = pb.SearchFacts(
            search_id=self.search_id or new_search_id(),
            origin_agency=agency,
            system=self.system,
            gallery=self.gallery,
            purpose=pb.Purpose.ValueType(value("purpose", self.purpose)),
            suspicion=pb.SuspicionLevel.ValueType(value("suspicion", self.suspicion)),
            offence=pb.Offence(
                nibrs_code=self.nibrs or "",
                statute=self.statute,
                attempt=self.attempt,
                severity=pb.OffenceSeverity.ValueType(value("severity", self.severity)),
            ),
            provenance=pb.ProbeProvenance.ValueType(value("provenance", self.provenance)),
            capture_mode=pb.CaptureMode.ValueType(value("capture", self.capture)),
            case_number=self.case_number,
            narrative=self.narrative,
            candidates_max=self.candidates,
            circumstances=self.circumstances.message(),
            instrument_number=self.circumstances.instrument_number,
            emergency_basis=self.circumstances.emergency_basis,
        )
        if self.own_case:
            facts.beneficiary_agency = agency
        elif self.beneficiary is not None:
            facts.beneficiary_agency = self.beneficiary
        if self.expires_after_s is not None:
            facts.expires_after.FromSeconds(self.expires_after_s)
        return facts


def _enum_option(fact: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{fact}", type=click.Choice(choices(fact)), required=True, help=text)


_OPTIONS: Final = (
    click.option(
        "--system", required=True, help="System to search (see: countersign system list)."
    ),
    click.option("--gallery", required=True, help="Gallery within the system."),
    click.option("--own-case", is_flag=True, help="The search is for the agency's own case."),
    click.option(
        "--beneficiary",
        type=ORI,
        metavar="ORI",
        help="Agency on whose behalf the search is made. Without this and --own-case it is unknown.",
    ),
    _enum_option("purpose", "Why the search is made."),
    _enum_option("suspicion", "How strong the suspicion against the person in the probe is."),
    _enum_option("severity", "How grave the offence is."),
    click.option("--nibrs", type=NIBRS, metavar="CODE", help="NIBRS offence code, such as 120."),
    click.option("--statute", default="", help="Statute alleged to be violated, as it is cited."),
    click.option("--attempt", is_flag=True, help="The offence was attempted and not completed."),
    _enum_option("provenance", "Where the probe comes from."),
    _enum_option("capture", "How the probe was captured."),
    click.option(
        "--case-number", default="", help="Case number. Only a commitment to it is public."
    ),
    click.option(
        "--narrative", default="", help="What happened. Only a commitment to it is public."
    ),
    click.option(
        "--candidates",
        type=click.IntRange(0, 50),
        default=0,
        help="How many candidates to return, 1 to 50; 0 for the default of 20.",
    ),
    click.option(
        "--expires-after",
        "expires_after_s",
        type=click.IntRange(1, 7 * 24 * 3600),
        metavar="SECONDS",
        help="How long the order may wait for the system [default: the broker's, 900 as shipped].",
    ),
    click.option(
        "--id",
        "search_id",
        type=UUID,
        metavar="UUID",
        help="Identifier of the search. The same id with the same content is the same search; "
        "a new one is made when it is left out.",
    ),
)


def _taken_out(given: dict[str, Any], stated: type) -> dict[str, Any]:
    return {field.name: given.pop(field.name) for field in fields(stated)}


def facts_options(command: Any) -> Any:
    """Adds the options to a command, which gets them as `stated`."""

    def with_facts(**given: Any) -> Any:
        given["circumstances"] = StatedCircumstances(**_taken_out(given, StatedCircumstances))
        stated = StatedFacts(**_taken_out(given, StatedFacts))
        return command(stated=stated, **given)

    with_facts.__doc__ = command.__doc__
    with_facts.__name__ = command.__name__
    wrapped: Any = with_facts
    wrapped.__click_params__ = getattr(command, "__click_params__", [])
    for option in reversed((*_OPTIONS, *circumstances.options())):
        wrapped = option(wrapped)
    return wrapped
