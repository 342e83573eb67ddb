"""What witnesses say of the history that is stored here: asked at a start, at a restore, by hand."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.archive import Archive
from ledger.last_signed import SigningRefused
from ledger.tree import Published

ASK_AGAIN_S: Final = 2.0
"""Between two rounds while too few have answered to begin to sign."""


@dataclass(frozen=True)
class Contradiction:
    """A witness that has cosigned what is not here."""

    witness: str
    ahead: bool
    """It has seen more of this log; otherwise, another tree of a size that this one had."""
    detail: str
    note: str | None = None
    """A checkpoint that goes with no tree here and that our own key has signed: what cannot be a lie."""


@dataclass(frozen=True)
class Heard:
    """What came of asking every witness for its cosignature on the stored checkpoint."""

    contradictions: tuple[Contradiction, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    """Name of each witness that said nothing of use, and what came instead."""
    enough: bool = True
    """Whether every quorum has a member that answered: nothing that witnesses vouch for is unknown then."""

    def require_one_history(self, size: int) -> None:
        """Raise SigningRefused when a witness contradicts the history of this size."""
        for one in sorted(self.contradictions, key=lambda one: one.ahead):
            proved = (
                "" if one.note is None else ". It shows a checkpoint that our own key has signed"
            )
            seen = "more of this log" if one.ahead else "another tree of this log"
            raise SigningRefused(
                "LEDGER_BEHIND_WITNESS" if one.ahead else "LEDGER_FORKED_FROM_WITNESS",
                f"the witness {one.witness} has cosigned {seen} than the {size} entries here: "
                f"{one.detail}{proved}. Nothing is signed, or there would be two histories; see the "
                "ledger's runbook, 'The database is behind'",
            )

    @property
    def said(self) -> str:
        """What came from the silent ones, for a person to read."""
        return "; ".join(f"{name}: {why}" for name, why in self.silent.items())


AskWitnesses = Callable[[Published, Archive], Awaitable[Heard]]
"""Asks every witness about a published tree."""


@dataclass(frozen=True)
class WitnessesAtStart:
    """Who is asked before the first signature after a start, and how much depends on it."""

    ask: AskWitnesses
    always: bool = False
    """Sign nothing until enough have answered, also when the record of the last signature is in order."""
