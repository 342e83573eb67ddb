"""How deep the conditions of a text of Cedar rules go.

The engine reads them by recursion and has no bound of its own: a text of two kilobytes that is nothing
but brackets overflows the stack and ends the process, before it can be said that the text is no rule. So
the depth is worked out from the tokens, before the engine sees them. It is never less than what the
engine comes to.
"""

from typing import Final, NamedTuple

from directive.findings import Place
from directive.places import tokens

DEPTH_MAX: Final = 500
"""The engine overflows 8 MiB of stack from some 1,300 on. What it can read it refuses from 100 levels on."""

_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_APART: Final = frozenset(",;")
"""What follows goes no deeper for what was before."""
_DEEPER: Final = frozenset(
    {"&&", "||", "+", "-", "*", "!", ".", "if", "then", "else", "has", "in", "is", "like"}
    | {"when", "unless"}
)
_BRACKET: Final = 2
"""In signs: what the engine needs of the stack for a bracket."""


class _Open(NamedTuple):
    """What is known of a bracket that is open."""

    signs: int
    """Signs and brackets since it was opened, or since the last comma."""
    within: int
    """The deepest of the brackets in it, since the same."""
    apart: int
    """The deepest of what was before the last comma."""

    @property
    def depth(self) -> int:
        """Of what stands since the last comma."""
        return self.signs + self.within


def too_deep(text: str) -> Place | None:
    """Where a text goes deeper than DEPTH_MAX; None when it does not."""
    around: list[_Open] = []
    depth_around = 0
    here = _Open(0, 0, 0)
    for token in tokens(text):
        if token.text in _OPENING:
            # It may belong to what stands before it: `a[0][0]` goes deeper with each.
            here = here._replace(signs=here.signs + 1)
            around.append(here)
            depth_around += here.signs + _BRACKET
            here = _Open(0, 0, 0)
        elif token.text in _CLOSING and around:
            within = max(here.apart, here.depth) + _BRACKET
            here = around.pop()
            depth_around -= here.signs + _BRACKET
            here = here._replace(within=max(here.within, within))
        elif token.text in _APART:
            here = _Open(0, 0, max(here.apart, here.depth))
        elif token.text in _DEEPER:
            here = here._replace(signs=here.signs + 1)
        if depth_around + here.depth > DEPTH_MAX:
            return token.place
    return None
