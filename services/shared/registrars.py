"""Whose orders about owners count: a quorum of these keys.

Named in the trust roots alone, so that nobody who publishes anything can make itself one of them. While none
are named, nobody can give an owner new keys or expel it.
"""

from datetime import date
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tlog.errors import TlogError
from tlog.note import Verifier

REGISTRARS_MAX = 64


class Registrars(BaseModel):
    """Those who may order together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: int = Field(ge=2)
    """How many of them must sign. One key alone, which may be stolen, never does."""
    keys: tuple[str, ...] = Field(max_length=REGISTRARS_MAX)
    """C2SP signed-note verifier keys, Ed25519, each of another person."""
    until: date | None = None
    """First day (UTC) from which no order of theirs counts any more. Those recorded before go on counting, so
    the set stays listed."""

    @model_validator(mode="after")
    def _is_a_quorum(self) -> Self:
        try:
            distinct = {Verifier.parse(vkey).public_key for vkey in self.keys}
        except TlogError as error:
            raise ValueError(f"a key of the registrars cannot be read: {error}") from error
        if len(distinct) != len(self.keys):
            raise ValueError("a key of the registrars is listed twice: it would be asked twice")
        if self.threshold > len(self.keys):
            raise ValueError(f"{self.threshold} of {len(self.keys)} registrars can never sign")
        return self
