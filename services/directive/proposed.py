"""A proposal among the directives that were in force, and from when on: three readings of its dates."""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from enum import StrEnum

from directive.book import Book, Directive


class AsOf(StrEnum):
    """From when on a proposal counts in a replay."""

    ALWAYS = "always"
    """As if it had been in force throughout: what it would have said."""
    LEGAL = "legal"
    """By its legal dates, whenever it was received: what should have been decided."""
    RECEIVED = "received"
    """By its legal dates, but for no search of before it was received: what could have been decided."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the dates of a proposal are read."""

    as_of: AsOf = AsOf.ALWAYS
    received: datetime | None = None
    """With RECEIVED when that was, or is supposed to have been."""

    def __post_init__(self) -> None:
        assert (self.as_of is AsOf.RECEIVED) == (self.received is not None), "checked by callers"

    def not_yet(self, at: datetime) -> bool:
        """Whether nobody knew of the proposal at that time."""
        return self.received is not None and at < self.received


def proposed_book(book: Book, proposal: Directive, as_of: AsOf) -> tuple[Book, list[str]]:
    """The directives with the proposal, and the names of those that it takes the place of.

    Those are its party's of the same name, the one that it says it replaces, and those that have one of its
    rules. With ALWAYS it is in force throughout: the question is what it would have said.
    Otherwise they stay in force until it begins, as when it is published. Raises DirectiveRefused.
    """
    manifest = proposal.document.manifest
    own = {rule.id for rule in proposal.rules}
    replaced = [
        name
        for name, one in book.directives.items()
        if one.document.manifest.party == manifest.party
        and (name in (manifest.name, manifest.replaces) or own & {rule.id for rule in one.rules})
    ]
    others = [one for name, one in book.directives.items() if name not in replaced]
    if as_of is not AsOf.ALWAYS:
        kept = (book.directives[name] for name in replaced if name != manifest.name)
        return Book([*others, *_besides(proposal, kept), proposal], book.vocabulary), replaced
    always = {"effective_from": date.min, "effective_until": None}
    document = dataclasses.replace(proposal.document, manifest=manifest.model_copy(update=always))
    return Book(
        [*others, dataclasses.replace(proposal, document=document)], book.vocabulary
    ), replaced


def _besides(proposal: Directive, replaced: Iterable[Directive]) -> Iterator[Directive]:
    """What has effect of these at other times than the proposal: before it, or after its end."""
    begins, ends = proposal.document.manifest.effective_from, proposal.ends
    for one in replaced:
        since = one.document.manifest.effective_from
        if since < begins:
            cut_off = min(begins, one.cut_off or begins)
            yield dataclasses.replace(one, cut_off=cut_off)
        elif ends is not None and ends <= since:
            yield one
