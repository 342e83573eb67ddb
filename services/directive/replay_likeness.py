"""Which searches of the past are alike to all rules, with a proposal and without: they are decided once.

It is `directive.likeness` over a whole search, told from the record before a question is made of it. What is
not known to be alike is not: circumstances, which have times of their own, make each search like no other.
"""

from collections.abc import Hashable, Sequence

from directive.book import Book
from directive.circumstances import CIRCUMSTANCES, YEAR_AGO, year_before
from directive.entities import instants
from directive.likeness import likeness
from directive.projection import facts_read
from directive.recorded import RecordedSearch
from shared.registry import Registry
from shared.unknown_fields import has_unknown_fields


class Alike:
    """Tells searches of one world apart."""

    def __init__(self, books: Sequence[Book], registry: Registry) -> None:
        self._books = tuple(books)
        rules = [rule for book in books for one in book.directives.values() for rule in one.rules]
        vocabulary = books[0].vocabulary
        facts = facts_read(rules, vocabulary.facts)
        self._likeness = likeness(rules, instants(registry))
        self._never = not facts.isdisjoint(CIRCUMSTANCES)
        self._facts = facts

    def key(self, search: RecordedSearch) -> Hashable | None:
        """Equal for searches of which all rules say the same; None when that cannot be told."""
        if self._never or has_unknown_fields(search.facts):
            return None
        facts, offence, read = search.facts, search.facts.offence, self._facts
        at = search.at
        moment = at.replace(microsecond=at.microsecond // 1000 * 1000)
        day = moment.date()
        alike = self._likeness
        return (
            search.officer,
            facts.origin_agency,
            facts.beneficiary_agency,
            facts.system,
            facts.gallery,
            # A value without a word is a fault, whether a rule asks for the fact or not.
            facts.purpose,
            facts.suspicion,
            offence.severity,
            facts.provenance,
            facts.capture_mode,
            *(book.period(day) for book in self._books),
            alike.of_moment("now", moment) if "now" in read else None,
            alike.of_moment(YEAR_AGO, year_before(moment)) if YEAR_AGO in read else None,
            offence.attempt if "attempt" in read else None,
            bool(facts.narrative) if "narrativeGiven" in read else None,
            facts.candidates_max if "candidatesMax" in read else None,
            alike.of_text("nibrsCode", offence.nibrs_code) if "nibrsCode" in read else None,
            alike.of_text("statute", offence.statute) if "statute" in read else None,
            alike.of_text("caseNumber", facts.case_number) if "caseNumber" in read else None,
        )
