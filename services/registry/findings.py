"""What is wrong with an owner's registry document, and where, in words to act upon."""

from collections.abc import Sequence

from directive.findings import Finding, Place
from shared.errors import FieldViolation, InvalidRequest

FINDINGS_MAX = 50
"""Whoever has more of them has one mistake that is repeated."""


class RegistryRefused(Exception):
    """A document, or an entry that publishes it, is refused as a whole; it says everything that was found."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        shown = findings[:FINDINGS_MAX]
        super().__init__("; ".join(str(finding) for finding in shown))
        self.findings = tuple(shown)

    @property
    def as_error(self) -> InvalidRequest:
        """The same for a caller who registers."""
        return self._as("REGISTRY_REFUSED")

    @property
    def as_order_error(self) -> InvalidRequest:
        """The same for a caller who hands in an order of the registrars."""
        return self._as("ORDER_REFUSED")

    def _as(self, reason: str) -> InvalidRequest:
        return InvalidRequest(
            reason,
            f"{len(self.findings)} finding(s); nothing was put on record",
            metadata={"guard": self.findings[0].guard},
            violations=[FieldViolation(one.file, str(one)) for one in self.findings],
        )


def refused(
    guard: str, file: str, message: str, place: Place | None = None, about: str = ""
) -> RegistryRefused:
    """A refusal for one thing."""
    return RegistryRefused([Finding(guard, file, about, message, place)])
