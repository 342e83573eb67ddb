"""What a directive must pass besides, at the moment when it is to be put in force."""

from collections.abc import Iterable
from datetime import date

from directive.book import Book, Directive, succeeding
from directive.document import MANIFEST_FILE, Document, manifest_place
from directive.findings import DirectiveRefused, Finding
from directive.vocabulary import Vocabulary


def check_dates(document: Document, today: date, *, received_late: bool = False) -> list[Finding]:
    """An effect that is over, or that began before the directive was received.

    What was decided cannot be undone: an order that arrives after its day is in force from when it is
    received, and whoever hands it in must know that.
    """
    manifest, file = document.manifest, f"{document.name}/{MANIFEST_FILE}"
    if manifest.effective_until is not None and manifest.effective_until <= today:
        message = f"its effect ended on {manifest.effective_until}: it would never be applied"
        place = manifest_place(document.manifest_text, "effective_until")
        return [Finding("EFFECT_OVER", file, "", message, place)]
    if manifest.effective_from < today and not received_late:
        message = (
            f"its effect begins on {manifest.effective_from}, which is past: searches of before were "
            "decided without it"
        )
        place = manifest_place(document.manifest_text, "effective_from")
        return [Finding("EFFECT_PAST", file, "", message, place)]
    return []


def check_beside(
    directive: Directive, others: Iterable[Directive], vocabulary: Vocabulary
) -> list[Finding]:
    """A name, a prefix or a rule that another directive has while both are in force.

    An older text under the same name is what this one would replace, and is left out.
    """
    name = directive.document.name
    rest = [other for other in others if other.document.name != name]
    try:
        Book(succeeding([*rest, directive]), vocabulary)
    except DirectiveRefused as refused:
        return list(refused.findings)
    return []
