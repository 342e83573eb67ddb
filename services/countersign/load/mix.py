"""What the load consists of, in which parts."""

import enum
from collections.abc import Iterator, Mapping


class Kind(enum.StrEnum):
    """One kind of work."""

    SEARCH = "search"
    """A search that every party permits, to its opened answer."""
    CHECK = "check"
    """A dry run of the same."""
    FORBIDDEN = "forbidden"
    """A search of which nobody says for whom it is made: all parties must refuse it."""
    READ = "read"
    """The newest checkpoint of the ledger, an entry, and the proof that it is in there."""


class BadMix(ValueError):
    """It is no mix; the message says why."""


def parse_mix(text: str) -> dict[Kind, int]:
    """`search=80,check=15,read=5`: each kind with its weight. Raises BadMix."""
    mix: dict[Kind, int] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if name not in list(Kind):
            raise BadMix(f"{name!r} is none of {', '.join(Kind)}")
        if not equals or not weight.isascii() or not weight.isdigit():
            raise BadMix(f"{part.strip()!r} has no weight; write it as {name}=10")
        if Kind(name) in mix:
            raise BadMix(f"{name} is there twice")
        mix[Kind(name)] = int(weight)
    if not any(mix.values()):
        raise BadMix("every weight is 0")
    return {kind: weight for kind, weight in mix.items() if weight}


def interleaved(mix: Mapping[Kind, int]) -> Iterator[Kind]:
    """The kinds for ever, spread evenly: any stretch has them in nearly the shares of the whole."""
    total = sum(mix.values())
    credit = dict.fromkeys(mix, 0)
    while True:
        for kind, weight in mix.items():
            credit[kind] += weight
        chosen = max(credit, key=lambda kind: credit[kind])
        credit[chosen] -= total
        yield chosen
