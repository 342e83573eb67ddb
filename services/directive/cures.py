"""What would cure a party's refusal: what was missing, and whether it is an instrument, such as a warrant.

That of instruments is tried out, not guessed from the rules: the party is asked again as if there were one in
force, all else unchanged. So it holds for prohibitions with an exception as for permits with a requirement.

Invariants:
- It informs and never decides.
- It follows from what the verdict followed from, so that a verdict that was kept says the same.
"""

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from itertools import islice, product
from typing import Final

from cedarpy import pst

from countersign.type.v1.circumstances_pb2 import InstrumentKind, InstrumentStatus
from countersign.type.v1.decision_pb2 import Seat, UnmetRequirement
from directive.book import Slice
from directive.circumstances import INSTRUMENT, phrase
from directive.entities import ref
from directive.question import Question
from directive.vocabulary import NAMESPACE, Vocabulary

TRIES_MAX: Final = 64
"""Of each kind, some milliseconds in all. Rules that tell more instruments apart than that are unheard of."""
TOLD_KEPT_MAX: Final = 4096
"""Short texts: of each word of the closed lists one, and of the jurisdictions that rules name."""

_NONE: Final = InstrumentKind.INSTRUMENT_KIND_NONE
_GRANTED: Final = InstrumentStatus.INSTRUMENT_STATUS_GRANTED
_IN_FORCE: Final = phrase("instrumentInForce", True)
_JURISDICTION: Final = pst.EntityType("Jurisdiction", (NAMESPACE,))


def instruments_that_cure(
    question: Question,
    seat: Seat.ValueType,
    rules: Slice,
    vocabulary: Vocabulary,
    permits: Callable[[Question], bool],
) -> list[InstrumentKind.ValueType]:
    """The kinds of which one would have made the party permit. `permits` asks it."""
    read = rules.circumstances.intersection(INSTRUMENT)
    if not read:
        return []

    def cures(kind: str) -> bool:
        for told in islice(_instruments(kind, rules, read, vocabulary), TRIES_MAX):
            supposed = question.supposing(told)
            if not supposed.unknown(seat, rules.circumstances, rules.lacking) and permits(supposed):
                return True
        return False

    kinds = vocabulary.words("InstrumentKind").items()
    return [InstrumentKind.ValueType(n) for n, word in kinds if n != _NONE and cures(word)]


def unmet(rules: Slice, met: Collection[str]) -> list[UnmetRequirement]:
    """The requirements that are not among those met."""
    missing = [part for part in rules.requirements if part.key not in met]
    # A rule for another seat is no way to cure this refusal, unless there is no other.
    elsewhere = {part.rule.id for part in missing if part.reads_seat}
    here = [part for part in missing if part.rule.id not in elsewhere]
    return [
        UnmetRequirement(
            rule_id=part.rule.id,
            clause=part.clause,
            requirement=part.words,
            citation=part.rule.citation,
        )
        for part in here or missing
    ]


def _instruments(
    kind: str, rules: Slice, read: frozenset[str], vocabulary: Vocabulary
) -> Iterator[dict[str, str]]:
    """Every instrument of a kind that the rules can tell from another, in force."""
    granted = vocabulary.words("InstrumentStatus")[_GRANTED]
    ways = {
        "instrumentIssuer": _words("InstrumentIssuer", vocabulary),
        "instrumentScope": _words("InstrumentScope", vocabulary),
        "instrumentJurisdiction": [("Jurisdiction", one) for one in _jurisdictions(rules)],
    }
    # What no rule reads may be anything.
    told = [
        [_told(fact, *one) for one in (ways[fact] if fact in read else ways[fact][:1])]
        for fact in ways
    ]
    for values in product(*told):
        yield {
            "instrument": _told("instrument", "InstrumentKind", kind),
            "instrumentStatus": _told("instrumentStatus", "InstrumentStatus", granted),
            "instrumentInForce": _IN_FORCE,
            **dict(zip(ways, values, strict=True)),
        }


@lru_cache(maxsize=TOLD_KEPT_MAX)
def _told(fact: str, kind: str, name: str) -> str:
    """What is told of a fact that is an entity."""
    return phrase(fact, ref(kind, name))


def _words(enum: str, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    return [(enum, word) for word in vocabulary.words(enum).values()]


def _jurisdictions(rules: Slice) -> list[str]:
    """Those that the rules name, and one that they do not."""
    named = {
        one.id for rule in rules.rules.values() for one in rule.names if one.type == _JURISDICTION
    }
    return sorted({*named, rules.party})
