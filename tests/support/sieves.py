"""Sieves whose compiled rules are wrong: what a replay must find out by the engine."""

from collections.abc import Hashable
from dataclasses import replace

from directive.evaluate import SeatVerdict
from directive.question import Question
from directive.sieve import Sieve, Sifted


class SieveThatNoticesNoAttempt(Sieve):
    """Takes each offence for one that was committed."""

    def party_says(self, question: Question, party: str) -> list[SeatVerdict]:
        """As of an offence that was committed."""
        blind = {**question._told, "attempt": '"attempt": false'}
        return super().party_says(replace(question, _told=blind), party)

    def alike(self, question: Question, party: str = "") -> Hashable | None:
        """Of one party everything is."""
        return party or super().alike(question)


class SieveThatTakesAllForAlike(Sieve):
    """Decides what it is asked first, and says the same of everything after it."""

    first: Sifted | None = None

    def sift(self, question: Question) -> Sifted:
        """What was said first."""
        self.first = self.first or super().sift(question)
        return self.first
