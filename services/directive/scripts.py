"""Words that are not what they seem: letters of two alphabets in one word.

A Cyrillic letter in the name of an agency looks like the Latin one, and is another name to the engine.
Words of one alphabet are nobody's business: laws are written in all of them.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from directive.findings import Place

_WORD: Final = re.compile(r"[^\W\d_]+")
_WRITTEN_TOGETHER: Final = frozenset(
    {"BOPOMOFO", "CJK", "HANGUL", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"}
)
"""Alphabets of East Asia, which share words with each other and with Latin letters."""
_LATIN_TOO: Final = frozenset({"FEMININE", "MASCULINE", "MICRO"})
"""How the raised letters of "1ª" and the letter of "µm" begin their names."""


@dataclass(frozen=True)
class MixedWord:
    """A word in two alphabets."""

    place: Place
    foreign: str
    """The first letter of the second alphabet."""
    scripts: tuple[str, ...]

    def __str__(self) -> str:
        name = unicodedata.name(self.foreign, "a letter without a name")
        return (
            f"a word mixes {' and '.join(script.capitalize() for script in self.scripts)} letters "
            f"that look alike: U+{ord(self.foreign):04X} is {name}"
        )


def mixed_words(text: str) -> Iterator[MixedWord]:
    """Each word of a text that mixes alphabets."""
    if text.isascii():
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.isascii():
            continue
        for match in _WORD.finditer(line):
            first: dict[str, int] = {}
            for offset, letter in enumerate(match[0]):
                script = _script(letter)
                if script not in _WRITTEN_TOGETHER:
                    first.setdefault(script, offset)
            if len(first) > 1:
                offset = sorted(first.values())[1]
                place = Place(number, match.start() + offset + 1)
                yield MixedWord(place, match[0][offset], tuple(first))


def _script(letter: str) -> str:
    script = unicodedata.name(letter, "UNNAMED").partition(" ")[0]
    return "LATIN" if script in _LATIN_TOO else script
