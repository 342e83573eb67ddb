"""The vocabulary says exactly what the contracts say."""

import dataclasses
import re
from pathlib import Path

import pytest

from countersign.type.v1 import circumstances_pb2, search_pb2
from countersign.type.v1.decision_pb2 import Seat, VerdictOutcome
from directive import cases, document, guards
from directive.book import Book, Directive
from directive.entities import known_names
from directive.evaluate import Evaluator
from directive.question import CLOSED
from directive.vocabulary import FILE_NAME, Vocabulary, VocabularyError, mirrored_enums
from support.circumstances import instrument, known, whole_registry
from support.directives import (
    DIRECTIVES,
    FORBID,
    LAPD,
    NOON,
    PERMIT,
    TRAINED,
    manifest,
    registry,
    shipped_book,
    vocabulary,
)

TEXT = (DIRECTIVES / FILE_NAME).read_text(encoding="utf-8")


def test_every_enum_of_the_search_contract_and_the_seat_is_mirrored() -> None:
    mirrored = {enum.name for enum in mirrored_enums()}
    contracts = (search_pb2.DESCRIPTOR, circumstances_pb2.DESCRIPTOR)
    assert mirrored == {*(name for one in contracts for name in one.enum_types_by_name), "Seat"}
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
        (lambda text: text.replace('@version("2")', ""), "version"),
        (lambda text: text.replace("namespace Countersign", "namespace Other"), "namespace"),
        (lambda text: text + "}", "not a Cedar schema"),
    ],
)
def test_a_vocabulary_that_differs_is_not_loaded(change: object, complaint: str) -> None:
    assert callable(change)
    with pytest.raises(VocabularyError, match=complaint):
        Vocabulary.parse(change(TEXT).encode())


FIRST = vocabulary().earlier["1"]


def folder(tmp_path: Path, now: str, before: str) -> Path:
    (tmp_path / FILE_NAME).write_text(now)
    (tmp_path / "vocabulary-1.cedarschema").write_text(before)
    return tmp_path


def test_the_first_version_is_kept_to_the_byte() -> None:
    """Directives were written, and searches decided, in exactly these words."""
    digest = "d99a596933113f1395b1c6f8dc736836b4b8164ceb47154aab0b2269bbc598c9"
    assert FIRST.sha256.hex() == digest
    assert vocabulary().versioned("1") is FIRST
    assert vocabulary().versioned("2") is vocabulary()
    assert vocabulary().versioned("3") is None


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    attempt: Bool,\n", "", "attempt: no longer the fact of version 1"),
        ("    attempt: Bool,\n", "    attempt?: Bool,\n", "attempt: no longer"),
        ("    statute: String,\n", "    statute: Long,\n", "statute: no longer"),
    ],
)
def test_a_version_that_takes_a_fact_away_is_not_loaded(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert old in TEXT
    with pytest.raises(VocabularyError, match=complaint):
        Vocabulary.load(folder(tmp_path, TEXT.replace(old, new), FIRST.text))


def test_a_version_that_takes_a_word_away_is_not_loaded() -> None:
    fewer = FIRST.text.replace('"sketch",', '"sketch", "deepfake",')
    with pytest.raises(VocabularyError, match="deepfake"):
        Vocabulary.parse(fewer.encode(), earlier=True)
    before = dataclasses.replace(FIRST, closed_lists={"Purpose": ("mindReading",)})
    with pytest.raises(VocabularyError, match=r"Purpose: no longer has \['mindReading'\]"):
        vocabulary().check_takes_nothing_away(before)


@pytest.mark.parametrize(
    ("before", "complaint"),
    [
        (FIRST.text.replace('@version("1")', '@version("2")'), "says that it is version 2"),
        (FIRST.text.replace('@version("1")', '@version("0")'), "says that it is version 0"),
        ("nonsense", "not a Cedar schema"),
    ],
)
def test_an_earlier_version_that_is_not_what_its_name_says_is_not_loaded(
    tmp_path: Path, before: str, complaint: str
) -> None:
    with pytest.raises(VocabularyError, match=complaint):
        Vocabulary.load(folder(tmp_path, TEXT, before))


def test_this_version_is_not_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(TEXT)
    (tmp_path / "vocabulary-2.cedarschema").write_text(TEXT)
    with pytest.raises(VocabularyError, match="not an earlier one"):
        Vocabulary.load(tmp_path)


def test_words_that_a_version_did_not_have_are_told_by_their_values() -> None:
    assert vocabulary().lacking("1", "SuspicionLevel") == {4, 5}
    assert vocabulary().lacking("1", "ProbeEdit") == {1, 2, 3}
    assert vocabulary().lacking("1", "Seat") == set()
    assert vocabulary().lacking("2", "SuspicionLevel") == set()


@pytest.mark.promise(3)
@pytest.mark.parametrize("version", ["1", "2"])
def test_a_changed_vocabulary_leaves_every_verdict_as_its_cases_state_it(version: str) -> None:
    """Directives of every version, judged by all their cases in the words of today."""
    for name, shipped in shipped_book().directives.items():
        if int(shipped.document.manifest.vocabulary) > int(version):
            continue
        text = shipped.document.manifest_text.replace(
            f'vocabulary = "{shipped.document.manifest.vocabulary}"', f'vocabulary = "{version}"'
        )
        read = document.parse(name, text.encode(), shipped.document.rules_text.encode())
        rules = guards.check(read, vocabulary(), known_names(registry()))
        cases_of = cases.load(DIRECTIVES / name)
        report = cases.run(Directive(read, rules), cases_of, vocabulary(), registry())
        assert [one for one in report.results if one.problems] == []


SAID = {
    "seat": "origin",
    "purpose": "criminalInvestigation",
    "suspicion": "reasonableSuspicion",
    "severity": "violentFelony",
    "provenance": "crimeSceneRecording",
    "captureMode": "storedVideoFrame",
    "class": "bookingPhotos",
    "probeEdit": "none",
    "route": "direct",
    "protectedBasis": "none",
    "investigation": "open",
    "chargeStatus": "suspected",
    "instrument": "searchWarrant",
    "instrumentStatus": "granted",
    "instrumentIssuer": "court",
    "instrumentScope": "faceSearch",
    "requesterClass": "lawEnforcement",
    "galleryOrigin": "criminalProceedings",
}
"""What the search below says in the words of each closed list."""
MAY_BE_ABSENT = ("instrumentStatus", "instrumentIssuer", "instrumentScope")


def next_version(folder: Path, enum: str, word: str) -> Vocabulary:
    """A vocabulary 3 that is like version 2, and a version 2 that had not that word yet."""
    head, end = f"entity {enum} enum [", "]"
    listed = TEXT.partition(head)[2].partition(end)[0]
    fewer = ", ".join(one for one in re.findall(r'"\w+"', listed) if one != f'"{word}"')
    (folder / FILE_NAME).write_text(TEXT.replace('@version("2")', '@version("3")'))
    before = TEXT.replace(head + listed + end, head + fewer + end)
    (folder / "vocabulary-2.cedarschema").write_text(before)
    return Vocabulary.load(folder)


@pytest.mark.promise(3)
@pytest.mark.parametrize(("fact", "word"), SAID.items(), ids=SAID)
def test_a_word_of_a_later_version_is_unknown_in_every_closed_list(
    tmp_path: Path, fact: str, word: str
) -> None:
    """A prohibition that its author could not write for that word must not be passed by."""
    later = next_version(tmp_path, CLOSED[fact], word)
    names = known_names(whole_registry())
    facts = known(instrument=instrument())
    read = f"resource.{fact}" if fact == "class" else f"context.{fact}"
    present = f"context has {fact} && " if fact in MAY_BE_ABSENT else ""
    condition = f"when {{ {present}{read} != {read} }};"
    rules = f"{PERMIT.replace('LAPD-9', 'LAPD-8')};{FORBID} {condition}"
    said = []
    for version in ("2", "3"):
        parsed = document.parse(
            "a-directive", manifest(vocabulary=f'"{version}"').encode(), rules.encode()
        )
        made = Directive(parsed, guards.check(parsed, later, names))
        evaluator = Evaluator(Book([made], later), whole_registry())
        said.append(evaluator.evaluate_party(facts, TRAINED, NOON, LAPD)[0].verdict)
    before, after = said
    assert (list(before.faults), list(before.unknown_facts)) == (["FACT_UNKNOWN"], [fact])
    assert after.outcome == VerdictOutcome.VERDICT_OUTCOME_PERMIT


def test_every_closed_list_is_told_by_a_fact() -> None:
    assert set(CLOSED.values()) == set(vocabulary().closed_lists)
    assert SAID.keys() == CLOSED.keys()


def test_a_comment_cannot_change_the_lists() -> None:
    shadow = '// entity Seat enum ["usurper"];\n' + TEXT
    assert Vocabulary.parse(shadow.encode()).closed_lists == vocabulary().closed_lists


def test_the_guide_lists_every_term() -> None:
    guide = (DIRECTIVES.parent / "docs" / "directives.md").read_text(encoding="utf-8")
    terms = {word for words in vocabulary().closed_lists.values() for word in words}
    terms |= set(re.findall(r"^    (\w+)\??:", TEXT, re.MULTILINE))
    missing = sorted(term for term in terms if f"`{term}`" not in guide)
    assert not missing
