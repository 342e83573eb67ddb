"""The words in which directives are written: a Cedar schema with closed lists.

Invariants:
- Each closed list is exactly an enum of the contracts, so that no value of a search is without a
  word and no word without a value. A vocabulary that differs is not loaded.
- A number that the contracts do not name, and "unspecified", have no word. There is no default.
- The facts of a search are one flat record, so that facts can be left out of it one by one.
- Earlier versions are kept, and a version takes nothing away from an earlier one: a directive means what it
  meant. What a search says in a word that the directive's version lacks is unknown to it.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import cedarpy
from google.protobuf.descriptor import EnumDescriptor

from countersign.type.v1 import circumstances_pb2, decision_pb2, search_pb2

NAMESPACE: Final = "Countersign"
FILE_NAME: Final = "vocabulary.cedarschema"
EARLIER: Final = "vocabulary-*.cedarschema"
SCHEMA_BYTES_MAX: Final = 256 * 1024
"""Far above what a person can review; keeps a wrong path from being read into memory."""
CUTS_KEPT_MAX: Final = 256
"""Each party's rules read the same few facts in every book; a replay makes many books."""

_VERSION = re.compile(r'@version\("(?P<version>[^"]+)"\)\s*namespace\s+(?P<name>\w+)')
_CLOSED_LIST = re.compile(r"\bentity\s+(?P<name>\w+)\s+enum\s*\[(?P<words>[^\]]*)\]")
_OPEN_KIND = re.compile(r"\bentity\s+(?P<name>\w+)\b(?!\s+enum)")
_WORD = re.compile(r'"([^"]*)"')
_FACTS = re.compile(r"(?<=  type Facts = \{\n)(?P<lines>.*?)(?=\n  \};\n)", re.DOTALL)
_FACT = re.compile(r"    (?P<name>\w+)\??: (?:\w+|Set<\w+>)")


class VocabularyError(Exception):
    """The vocabulary cannot be used; the message names the file and the term."""


@dataclass(frozen=True)
class Vocabulary:
    """The schema with its closed lists."""

    version: str
    text: str
    sha256: bytes
    schema: cedarpy.Schema
    closed_lists: Mapping[str, tuple[str, ...]]
    """Entity type ("Purpose") to its words."""
    open_kinds: frozenset[str]
    """Entity types whose members the registry names ("Agency")."""
    facts: tuple[str, ...]
    """What can be told of a search."""
    _words: Mapping[str, Mapping[int, str]]
    _plain: str
    earlier: Mapping[str, "Vocabulary"] = field(default_factory=dict)
    """Version to the vocabulary that it was."""

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Reads `vocabulary.cedarschema` in the folder and its earlier versions; raises VocabularyError."""
        vocabulary = cls._load(folder / FILE_NAME)
        earlier = {}
        for path in sorted(folder.glob(EARLIER)):
            before = cls._load(path, earlier=True)
            if path.name != EARLIER.replace("*", before.version):
                raise VocabularyError(f"{path}: says that it is version {before.version}")
            if before.version == vocabulary.version:
                raise VocabularyError(f"{path}: version {before.version} is not an earlier one")
            try:
                vocabulary.check_takes_nothing_away(before)
            except VocabularyError as error:
                raise VocabularyError(f"{folder / FILE_NAME}: {error}") from error
            earlier[before.version] = before
        return replace(vocabulary, earlier=earlier)

    @classmethod
    def _load(cls, path: Path, *, earlier: bool = False) -> "Vocabulary":
        try:
            with path.open("rb") as file:
                content = file.read(SCHEMA_BYTES_MAX + 1)
        except OSError as error:
            raise VocabularyError(f"{path}: {error}") from error
        if len(content) > SCHEMA_BYTES_MAX:
            raise VocabularyError(f"{path}: larger than {SCHEMA_BYTES_MAX} bytes")
        try:
            return cls.parse(content, earlier=earlier)
        except (VocabularyError, UnicodeDecodeError) as error:
            raise VocabularyError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, content: bytes, *, earlier: bool = False) -> "Vocabulary":
        """Reads the bytes of a vocabulary; raises VocabularyError.

        An earlier version may lack lists and words that the contracts have by now.
        """
        text = content.decode("utf-8")
        try:
            schema = cedarpy.Schema.from_str(text)
        except ValueError as error:
            raise VocabularyError(f"not a Cedar schema: {error}") from error
        # Cedar's own rendering has no comments, so that a pattern cannot match inside one.
        plain = str(schema)
        version = _VERSION.search(plain)
        if version is None or version["name"] != NAMESPACE:
            raise VocabularyError(f'does not begin with @version("...") namespace {NAMESPACE}')
        closed = {
            match["name"]: tuple(_WORD.findall(match["words"]))
            for match in _CLOSED_LIST.finditer(plain)
        }
        words = {enum.name: _words_of(enum) for enum in mirrored_enums()}
        if earlier:
            words = {
                name: {number: word for number, word in words[name].items() if word in listed}
                for name, listed in closed.items()
                if name in words
            }
        _check_mirror(closed, words)
        return cls(
            version=version["version"],
            text=text,
            sha256=hashlib.sha256(content).digest(),
            schema=schema,
            closed_lists=closed,
            open_kinds=frozenset(match["name"] for match in _OPEN_KIND.finditer(plain)),
            facts=tuple(name for name, _ in _declared(plain)),
            _words=words,
            _plain=plain,
        )

    @property
    def words_fit(self) -> bool:
        """Whether the schema has every word that a value may be told in."""
        return all(
            word in self.closed_lists[enum]
            for enum, words in self._words.items()
            for word in words.values()
        )

    def versioned(self, version: str) -> "Vocabulary | None":
        """This vocabulary or the earlier one of that version; None when there is none."""
        return self if version == self.version else self.earlier.get(version)

    def lacking(self, version: str, enum: str) -> frozenset[int]:
        """The values of an enum for which that version has no word yet."""
        known = self._words[enum].keys()
        written = self.versioned(version)
        return frozenset(known - written._words.get(enum, {}).keys() if written else known)

    def check_takes_nothing_away(self, before: "Vocabulary") -> None:
        """Raises VocabularyError when something of the earlier version is no longer there as it was."""
        declared = dict(_declared(self._plain))
        for name, line in _declared(before._plain):
            if declared.get(name) != line:
                raise VocabularyError(f"{name}: no longer the fact of version {before.version}")
        for enum, words in before.closed_lists.items():
            gone = sorted(set(words) - set(self.closed_lists.get(enum, ())))
            if gone:
                raise VocabularyError(f"{enum}: no longer has {gone} of version {before.version}")

    @cached_property
    def loose(self) -> cedarpy.Schema:
        """The schema in which every fact may be absent: for comparing, never for deciding."""
        text = _FACTS.sub(
            lambda facts: re.sub(
                r"^    (\w+)\??:", r"    \1?:", facts["lines"], flags=re.MULTILINE
            ),
            self._plain,
        )
        return cedarpy.Schema.from_str(text)

    def cut(self, facts: Collection[str]) -> cedarpy.Schema:
        """The schema of searches of which no other facts are told; raises VocabularyError."""
        return self.schema if set(facts) == set(self.facts) else self._cuts(frozenset(facts))

    @cached_property
    def _cuts(self) -> Callable[[frozenset[str]], cedarpy.Schema]:
        return functools.lru_cache(CUTS_KEPT_MAX)(self._cut)

    def _cut(self, facts: frozenset[str]) -> cedarpy.Schema:
        kept = [line for name, line in _declared(self._plain) if name in facts]
        text = _FACTS.sub(lambda _: ",\n".join(kept), self._plain)
        if not kept:
            text = text.replace("type Facts = {\n\n  };", "type Facts = {  };")
        schema = cedarpy.Schema.from_str(text)
        # Cedar renders what it understood: nothing but the lines that were taken out may differ.
        if str(schema) != text:
            raise VocabularyError("the facts of a search cannot be told apart in the schema")
        return schema

    def word(self, enum: str, number: int) -> str | None:
        """The word for a value of an enum of the contracts; None when there is none."""
        return self._words[enum].get(number)

    def words(self, enum: str) -> Mapping[int, str]:
        """The word for each value of an enum of the contracts that has one."""
        return self._words[enum]

    def number(self, enum: str, word: str) -> int | None:
        """The value of the contracts for a word; None when there is none."""
        return next((n for n, known in self._words[enum].items() if known == word), None)


def mirrored_enums() -> Iterator[EnumDescriptor]:
    """The enums of the contracts that the vocabulary mirrors."""
    yield decision_pb2.DESCRIPTOR.enum_types_by_name["Seat"]
    yield from search_pb2.DESCRIPTOR.enum_types_by_name.values()
    yield from circumstances_pb2.DESCRIPTOR.enum_types_by_name.values()


def _declared(plain: str) -> list[tuple[str, str]]:
    """Each fact with the line that declares it."""
    facts = _FACTS.search(plain)
    lines = facts["lines"].split(",\n") if facts else []
    declared = [(match["name"], line) for line in lines if (match := _FACT.fullmatch(line))]
    if not declared or len(declared) != len(lines) or "context: Facts\n" not in plain:
        raise VocabularyError("the facts of a search are not one flat record named Facts")
    return declared


def _words_of(enum: EnumDescriptor) -> dict[int, str]:
    prefix = re.sub(r"(?<!^)([A-Z])", r"_\1", enum.name).upper() + "_"
    return {
        value.number: _camel(value.name.removeprefix(prefix))
        for value in enum.values
        if value.number != 0
    }


def _camel(shout: str) -> str:
    first, *rest = shout.split("_")
    return first.lower() + "".join(part.capitalize() for part in rest)


def _check_mirror(
    closed: Mapping[str, tuple[str, ...]], words: Mapping[str, Mapping[int, str]]
) -> None:
    """Each list and its enum say the same, both ways."""
    for name in sorted(set(closed) ^ set(words)):
        where = "vocabulary" if name in closed else "contracts"
        raise VocabularyError(f"{name}: only the {where} have this list")
    for name, listed in closed.items():
        different = sorted(set(listed) ^ set(words[name].values()))
        if different:
            raise VocabularyError(f"{name}: vocabulary and contracts differ in {different}")
