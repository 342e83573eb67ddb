"""A word that mixes alphabets is refused; words of any one alphabet are not."""

import pytest

from directive.findings import DirectiveRefused, Place
from directive.scripts import mixed_words
from support.directives import FORBID, HEAD, directive


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("l\u0430pd", 2),
        ("see lacr\u0456s", 9),
        ("\u0391gency", 2),
        ("no \uff41gency", 5),
        ("\u0421al. Penal C\u043ede", 2),
    ],
)
def test_a_word_of_two_alphabets_is_found(text: str, column: int) -> None:
    assert next(mixed_words("plain\n" + text)).place == Place(2, column)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "§ 220 — Größe, naïve",
        "n.º 1ª",
        "5 µm",
        "закон",
        "νόμος",
        "顔認証AIの利用",
        "법",
        "a ж",
    ],
)
def test_words_of_one_alphabet_pass(text: str) -> None:
    assert list(mixed_words(text)) == []


@pytest.mark.parametrize(
    "rules",
    [
        FORBID + 'when { resource in Countersign::System::"l\u0430cris" };',
        FORBID + 'when { context.statute == "C\u0430l. Penal Code s. 211" };',
        HEAD.replace("a title", "a titl\u0435") + "forbid (principal, action, resource);",
        "// c\u043emment\n" + FORBID + ";",
        FORBID + "when { c\u043entext.attempt };",
    ],
)
def test_a_directive_with_mixed_alphabets_is_refused_where_it_is(rules: str) -> None:
    with pytest.raises(DirectiveRefused) as refused:
        directive(rules)
    (finding,) = refused.value.findings
    assert finding.guard == "MIXED_SCRIPTS"
    assert finding.place is not None
    letter = rules.splitlines()[finding.place.line - 1][finding.place.column - 1]
    assert not letter.isascii()
    assert f"U+{ord(letter):04X}" in finding.message
