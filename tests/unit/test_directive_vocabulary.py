"""The vocabulary says exactly what the contracts say."""

import re

import pytest

from countersign.type.v1 import search_pb2
from countersign.type.v1.decision_pb2 import Seat
from directive.vocabulary import FILE_NAME, Vocabulary, VocabularyError, mirrored_enums
from support.directives import DIRECTIVES, vocabulary

TEXT = (DIRECTIVES / FILE_NAME).read_text(encoding="utf-8")


def test_every_enum_of_the_search_contract_and_the_seat_is_mirrored() -> None:
    mirrored = {enum.name for enum in mirrored_enums()}
    assert mirrored == {*search_pb2.DESCRIPTOR.enum_types_by_name, "Seat"}
    assert mirrored == set(vocabulary().closed_lists)


@pytest.mark.parametrize("enum", list(mirrored_enums()), ids=lambda enum: enum.name)
def test_each_value_has_one_word_and_each_word_one_value(enum: object) -> None:
    assert hasattr(enum, "values")
    assert hasattr(enum, "name")
    words = {value.number: vocabulary().word(enum.name, value.number) for value in enum.values}
    assert words.pop(0) is None
    assert None not in words.values()
    assert sorted(map(str, words.values())) == sorted(vocabulary().closed_lists[enum.name])
    assert all(vocabulary().number(enum.name, str(word)) == n for n, word in words.items())


def test_words_are_the_names_of_the_contract_in_one_word() -> None:
    assert vocabulary().word("Seat", Seat.SEAT_GALLERY_OWNER) == "galleryOwner"
    assert vocabulary().word("Purpose", 99) is None
    assert vocabulary().number("Purpose", "mindReading") is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace('"sketch",', ""), "ProbeProvenance.*sketch"),
        (lambda text: text.replace('"sketch"', '"sketch", "deepfake"'), "deepfake"),
        (lambda text: text.replace("entity Seat enum", "entity Chair enum"), "Seat|Chair"),
        (lambda text: text.replace('@version("1")', ""), "version"),
        (lambda text: text.replace("namespace Countersign", "namespace Other"), "namespace"),
        (lambda text: text + "}", "not a Cedar schema"),
    ],
)
def test_a_vocabulary_that_differs_is_not_loaded(change: object, complaint: str) -> None:
    assert callable(change)
    with pytest.raises(VocabularyError, match=complaint):
        Vocabulary.parse(change(TEXT).encode())


def test_a_comment_cannot_change_the_lists() -> None:
    shadow = '// entity Seat enum ["usurper"];\n' + TEXT
    assert Vocabulary.parse(shadow.encode()).closed_lists == vocabulary().closed_lists


def test_the_guide_lists_every_term() -> None:
    guide = (DIRECTIVES.parent / "docs" / "directives.md").read_text(encoding="utf-8")
    terms = {word for words in vocabulary().closed_lists.values() for word in words}
    terms |= set(re.findall(r"^    (\w+)\??:", TEXT, re.MULTILINE))
    missing = sorted(term for term in terms if f"`{term}`" not in guide)
    assert not missing
