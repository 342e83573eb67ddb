"""Where in a text of Cedar rules a thing stands.

The engine reports no positions, so the text is taken apart a second time, into tokens only. What is
found here points; it never decides: a text that is not understood has no places, and its findings name
the rule alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy

from directive.findings import Place

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<other>[0-9]+|::|==|!=|<=|>=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_ENDS_EARLY: Final = "unexpected end of input"
"""What the engine says of a text that would be right if it went on."""
_NAMED: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Token:
    """A word, a text in quotes or a sign, with where it stands."""

    text: str
    place: Place
    start: int
    end: int


@dataclass(frozen=True)
class RulePlaces:
    """Where the parts of one rule stand."""

    tokens: tuple[Token, ...]
    annotations: Mapping[str, Token]
    """Each annotation with the token of its name."""
    head: tuple[Token, ...]
    clauses: tuple[tuple[Token, ...], ...]
    """Each condition from `when` or `unless` to its last brace."""

    @property
    def start(self) -> Place | None:
        """Where it begins."""
        return self.tokens[0].place if self.tokens else None

    def annotation(self, name: str) -> Place | None:
        """Where the annotation stands; where the rule begins when it has none."""
        found = self.annotations.get(name)
        return found.place if found else self.start

    def clause(self, number: int) -> Place | None:
        """Where a condition stands; 0 is the head."""
        parts = (self.head, *self.clauses)
        part = parts[number] if number < len(parts) else ()
        return part[0].place if part else self.start

    def of(self, *words: str) -> Place | None:
        """Where these tokens stand beside one another in head or conditions; else where it begins."""
        body = (*self.head, *(token for clause in self.clauses for token in clause))
        for i in range(len(body) - len(words) + 1):
            beside = body[i : i + len(words)]
            if all(token.text == word for token, word in zip(beside, words, strict=True)):
                return body[i].place
        return self.start

    def named_in(self, message: str) -> Place | None:
        """Where the first thing stands that a message of the engine names in backquotes."""
        for named in _NAMED.findall(message):
            wanted = [token.text for token in tokens(named)]
            while wanted:
                place = self.of(*wanted)
                if place != self.start:
                    return place
                wanted.pop(0)
        return self.start


NOWHERE: Final = RulePlaces((), {}, (), ())
"""Of a rule that was not found in the text."""


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, without spaces and comments."""
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            place = Place(line, match.start() - line_start + 1)
            yield Token(match[0], place, match.start(), match.end())
        breaks = match[0].count("\n")
        if breaks:
            line, line_start = line + breaks, match.start() + match[0].rindex("\n") + 1


def rules(text: str) -> list[RulePlaces]:
    """The rules of a text, in order: one for each semicolon."""
    found, current = [], []
    for token in tokens(text):
        current.append(token)
        # Nothing but the end of a rule has one: those in texts and comments are no tokens.
        if token.text == ";":
            found.append(_parts(current))
            current = []
    return [*found, _parts(current)] if current else found


def _parts(given: Sequence[Token]) -> RulePlaces:
    annotations: dict[str, Token] = {}
    head: tuple[Token, ...] = ()
    clauses: list[tuple[Token, ...]] = []
    position = 0
    while position < len(given):
        token = given[position]
        following = given[position + 1] if position + 1 < len(given) else None
        if token.text == "@" and following is not None:
            annotations.setdefault(following.text, following)
            position = _group_end(given, position + 2)
        elif token.text in ("permit", "forbid") and not head:
            end = _group_end(given, position + 1)
            head, position = tuple(given[position:end]), end
        elif token.text in ("when", "unless"):
            end = _group_end(given, position + 1)
            clauses.append(tuple(given[position:end]))
            position = end
        else:
            position += 1
    return RulePlaces(tuple(given), annotations, head, tuple(clauses))


def _group_end(given: Sequence[Token], start: int) -> int:
    """Behind the bracket that closes the one at `start`; `start` itself when there is none."""
    depth = 0
    for position in range(start, len(given)):
        text = given[position].text
        depth += (text in _OPENING) - (text in _CLOSING)
        if depth <= 0:
            return position + (position > start)
    return len(given)


def parse_error(text: str, said: str) -> Place | None:
    """Where the engine stopped understanding a text; `said` is what it said of the whole.

    A text that is cut off while it is still right is said to end early, and one that is cut off later
    is not: the first cut of the second kind is found by halving.
    """
    given = list(tokens(text))
    if not given:
        return None
    if said == _ENDS_EARLY:
        return given[-1].place
    first, last = 1, len(given)
    while first < last:
        middle = (first + last) // 2
        if _stands(text[: given[middle - 1].end]):
            first = middle + 1
        else:
            last = middle
    if _stands(text[: given[first - 1].end]):
        return None
    return _more_exactly(text, given, first - 1, said)


def _more_exactly(text: str, given: Sequence[Token], stopped: int, said: str) -> Place | None:
    """Of a rule that was read to its end and understood only then, the word that is named."""
    if given[stopped].text != ";":
        return given[stopped].place
    rule = next(rule for rule in rules(text) if rule.tokens[-1].end == given[stopped].end)
    named = _NAMED.findall(said) or [said.rpartition(": ")[2].lstrip("@")]
    words = {token.text for name in named for token in tokens(name)}
    return next((token.place for token in rule.tokens if token.text in words), rule.start)


def _stands(text: str) -> bool:
    try:
        cedarpy.policies_to_pst(text)
    except ValueError as error:
        return str(error) == _ENDS_EARLY
    return True
