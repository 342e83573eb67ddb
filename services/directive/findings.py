"""What is wrong with a directive, where, and in words that whoever wrote it can act upon."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Place:
    """Where in a file, both counted from one; columns in characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Finding:
    """Why a directive is refused."""

    guard: str
    """Stable, in capitals: "ID_MISSING"."""
    file: str
    rule: str
    """The rule's identifier, its place ("rule 3") while it has none, or a case; empty for the file."""
    message: str
    place: Place | None = None
    """Where to look; None when it is about the whole file."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.place.line}:{self.place.column}" if self.place else self.file
        return f"{where}: {f'{self.rule}: ' if self.rule else ''}{self.message} [{self.guard}]"


class DirectiveRefused(Exception):
    """A directive is refused; it says everything that was found."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = tuple(findings)


class DocumentError(DirectiveRefused):
    """A directive's file is missing, too large or not what it should be."""

    def __init__(
        self, guard: str, file: str, message: str, place: Place | None = None, about: str = ""
    ) -> None:
        super().__init__([Finding(guard, file, about, message, place)])
