"""Duties that come with a decision: their kinds, and the term that one may have."""

import re
from typing import Final

OBLIGATION_KINDS: Final = frozenset({"log", "notice", "notify", "peer_review", "report", "retain"})
"""The closed list; a directive with another is not taken."""

_TERM: Final = re.compile(r":([1-9][0-9]{0,3})(h|d)\Z", re.ASCII)
_UNITS_US: Final = {"h": 3_600_000_000, "d": 86_400_000_000}


def term_us(parameters: str) -> int:
    """The term that the parameters of a duty end in ("board:24h", "outcome:30d"); 0 when there is none."""
    found = _TERM.search(parameters)
    return 0 if found is None else int(found[1]) * _UNITS_US[found[2]]
