"""Whatever the files of a directive hold, the loader answers with findings, and changes nothing."""

from pathlib import Path
from typing import Any

import cedarpy
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from directive import cases, document, guards, places
from directive.entities import known_names
from directive.findings import DirectiveRefused, Finding
from directive.review import lint, review
from directive.signature import Signers
from shared.signing import SigningKey
from support.directives import DIRECTIVES, LAPD, SHIPPED, manifest, registry, vocabulary
from support.examples import examples

FILES = ("directive.toml", "rules.cedar", "cases.yaml", "directive.sig")
FILES_OF = {
    name: {path.name: path.read_bytes() for path in (DIRECTIVES / name).iterdir()}
    for name in SHIPPED
}
SIGNERS = Signers.parse({LAPD: (SigningKey.generate().note_signer("a/b").vkey,)})

WORDS = [
    *(
        "permit",
        "forbid",
        "when",
        "unless",
        "principal",
        "action",
        "resource",
        "context",
        "in",
        "has",
    ),
    *(
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        ".",
        "==",
        "!=",
        "<",
        "&&",
        "||",
        "!",
        "-",
        "@",
        "::",
    ),
    *(
        "id",
        "title",
        "citation",
        "requirement_1",
        "obligation_log",
        "if",
        "then",
        "else",
        "like",
        "is",
    ),
    *('"LAPD-1"', '"a"', '"\\""', '"\u0430b"', "1", "9223372036854775808", "true", "seat", "now"),
    *("beneficiary", "caseNumber", "// x\n", "\n", "\t", "§", "?principal", "hasTag", "contains"),
    'Countersign::Action::"search"',
    'Countersign::System::"lacris"',
    'Countersign::Seat::"origin"',
]
PIECES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([word.encode() for word in WORDS]),
    st.sampled_from(
        [b"\x00", b"\xff", b"\r", b"&a", b"*a", b"<<: ", b"!!int ", b"9" * 5000, b"[" * 300]
    ),
    st.sampled_from(
        [b"2026-13-01", b"2026-01-01T99:00:00Z", b"0x", b"1e999", b".inf", b"1:2:3", b"~"]
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A shipped directive with some bytes of its files replaced."""
    name = draw(st.sampled_from(SHIPPED))
    files = dict(FILES_OF[name])
    for _ in range(draw(st.integers(1, 3))):
        file = draw(st.sampled_from(FILES))
        content = files.get(file, b"")
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        files[file] = content[:start] + draw(PIECES) + content[end:]
    return name, files


def written(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    where = folder / name
    where.mkdir(exist_ok=True)
    for old in where.iterdir():
        old.unlink()
    for file, content in files.items():
        (where / file).write_bytes(content)
    return where


def check_findings(findings: tuple[Finding, ...], texts: dict[str, bytes]) -> None:
    """Each finding has a code, a message, and points into its file."""
    for finding in findings:
        assert finding.guard.replace("_", "").isupper() or finding.guard == "NOT_UTF8"
        assert finding.message
        if finding.place is not None:
            lines = texts[finding.file.rpartition("/")[2]].decode("utf-8", "replace").split("\n")
            assert 1 <= finding.place.line <= len(lines)
            assert 1 <= finding.place.column <= len(lines[finding.place.line - 1]) + 2


@given(given_files=damaged(), signed=st.booleans())
@settings(examples(1), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_directive_is_answered_with_findings(
    tmp_path: Path, given_files: tuple[str, dict[str, bytes]], *, signed: bool
) -> None:
    name, files = given_files
    folder = written(tmp_path, name, files)
    said = lint(folder, vocabulary(), registry(), SIGNERS if signed else None)
    check_findings(said.findings, files)
    if not said.findings:
        check_findings(review(folder, vocabulary(), registry()).findings, files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("file", FILES)
@given(content=st.binary(max_size=200))
@settings(examples(1), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered_with_findings(tmp_path: Path, file: str, content: bytes) -> None:
    files = FILES_OF["lapd-2020-11-13"] | {file: content}
    folder = written(tmp_path, "lapd-2020-11-13", files)
    said = lint(folder, vocabulary(), registry(), SIGNERS)
    assert said.findings
    check_findings(said.findings, files)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    key=st.sampled_from(["at", "seat", "registry", "ordinary", "cases", "surprise"]), value=VALUES
)
@examples(1)
def test_any_value_in_a_case_file_is_answered_with_findings(key: str, value: Any) -> None:
    content = yaml.safe_load(FILES_OF["facefind-nobody"]["cases.yaml"]) | {key: value}
    text = yaml.safe_dump(content, allow_unicode=True)
    try:
        cases.parse("a-directive", text.encode("utf-8", "replace"))
    except DirectiveRefused as refused:
        check_findings(refused.findings, {"cases.yaml": text.encode("utf-8", "replace")})


@given(words=st.lists(st.sampled_from(WORDS), max_size=40))
@examples(2)
def test_any_words_are_answered_with_findings(words: list[str]) -> None:
    rules = " ".join(words).encode()
    try:
        read = document.parse("a-directive", manifest().encode(), rules)
        guards.check(read, vocabulary(), known_names(registry()))
    except DirectiveRefused as refused:
        check_findings(refused.findings, {"rules.cedar": rules, "directive.toml": b""})


@st.composite
def sound_rules(draw: st.DrawFn) -> str:
    """Rules that the engine reads, with comments, texts and line breaks that could mislead."""
    texts = st.sampled_from(['"a"', '"; permit"', '"\\"; }"', '"// no"', '"when {"'])
    space = st.sampled_from([" ", "\n", " // ; }\n", "\t", "\n\n  "])
    found = []
    for number in range(draw(st.integers(1, 4))):
        notes = "".join(
            f"@{name}({draw(texts)}){draw(space)}"
            for name in draw(st.lists(st.sampled_from(["id", "title", "x"]), unique=True))
        )
        clauses = "".join(
            f"{draw(space)}{draw(st.sampled_from(['when', 'unless']))}{draw(space)}"
            f"{{ context.a{number} == {draw(texts)} || {{b: {draw(texts)}}}.b == {draw(texts)} }}"
            for _ in range(draw(st.integers(0, 3)))
        )
        effect = draw(st.sampled_from(["permit", "forbid"]))
        found.append(
            f"{notes}{effect}{draw(space)}(principal, action, resource){clauses};{draw(space)}"
        )
    return "".join(found)


@given(text=sound_rules())
@examples(2)
def test_rules_are_found_where_the_engine_finds_them(text: str) -> None:
    parsed = cedarpy.policies_to_pst(text).static_policies
    found = places.rules(text)
    assert len(found) == len(parsed)
    for number, parts in enumerate(found):
        whole = parsed[f"policy{number}"]
        alone = text[parts.tokens[0].start : parts.tokens[-1].end]
        (again,) = cedarpy.policies_to_pst(alone).static_policies.values()
        assert (again.effect, again.clauses) == (whole.effect, whole.clauses)
        assert len(parts.clauses) == len(whole.clauses)
        assert set(parts.annotations) == set(whole.annotations)


@given(text=sound_rules(), data=st.data())
@examples(1)
def test_a_parse_error_is_never_placed_behind_the_word_that_broke_it(
    text: str, data: st.DataObject
) -> None:
    given = list(places.tokens(text))
    broken = data.draw(st.sampled_from(given))
    wrong = f"{text[: broken.start]}#{text[broken.start :]}"
    with pytest.raises(ValueError) as error:
        cedarpy.policies_to_pst(wrong)
    place = places.parse_error(wrong, str(error.value))
    assert place == broken.place
