"""A directive's folder is read strictly, and its digest is over exact bytes."""

from pathlib import Path

import pytest

from directive import document
from directive.findings import DocumentError
from support.directives import FORBID, manifest

RULES = (FORBID + ";").encode()


def write(folder: Path, rules: bytes = RULES, **how: str) -> Path:
    path = folder / "a-directive"
    path.mkdir()
    (path / "directive.toml").write_text(manifest(**how), encoding="utf-8")
    (path / "rules.cedar").write_bytes(rules)
    return path


def test_a_directive_is_read_with_its_exact_text(tmp_path: Path) -> None:
    read = document.read(write(tmp_path))
    assert read.rules_text.encode() == RULES
    assert read.manifest.party == "CA0194200"
    assert read.sha256 == document.digest(read.manifest_text.encode(), RULES)


def test_one_changed_byte_changes_the_digest() -> None:
    assert document.digest(b"ab", b"c") != document.digest(b"a", b"bc")
    assert document.digest(b"a", b"b ") != document.digest(b"a", b"b")


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"surprise": "1"}, "surprise"),
        ({"party": '"lapd"'}, "party"),
        ({"rule_prefix": '"LAPD"'}, "rule_prefix"),
        ({"effective_from": '"2020-01-01"'}, "effective_from"),
        ({"effective_until": "2019-12-31"}, "effective_until"),
        ({"effective_until": "2020-01-01"}, "effective_until"),
        ({"source_sha256": '"abc"'}, "source_sha256"),
        ({"title": '""'}, "title"),
        ({"name": '"another"'}, "folder"),
        ({"title": "unquoted"}, "not TOML"),
        ({".".join(["a"] * 5_000): "1"}, "9:1: not TOML: more than 1000 dots in one line"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused_and_named(
    tmp_path: Path, how: dict[str, str], complaint: str
) -> None:
    lines = [line for line in manifest().splitlines() if line.split(" ")[0] not in how]
    folder = write(tmp_path)
    text = "\n".join(lines + [f"{key} = {value}" for key, value in how.items()])
    (folder / "directive.toml").write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError, match=complaint):
        document.read(folder)


@pytest.mark.parametrize("missing", ["directive.toml", "rules.cedar"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(DocumentError, match=f"a-directive/{missing}"):
        document.read(folder)


@pytest.mark.parametrize("other", ["/dev/zero", "/"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, other: str) -> None:
    """A pipe in its place would be waited for without end."""
    folder = write(tmp_path)
    (folder / "rules.cedar").unlink()
    (folder / "rules.cedar").symlink_to(other)
    with pytest.raises(DocumentError, match=r"a-directive/rules\.cedar: is no file"):
        document.read(folder)


def test_a_huge_file_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    folder = write(tmp_path, b"/" * (10 * 1024 * 1024))
    with pytest.raises(DocumentError, match="larger than"):
        document.read(folder)


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u0000", "\u00ad", "\r"])
def test_text_that_reads_otherwise_than_it_is_applied_is_refused(
    tmp_path: Path, hidden: str
) -> None:
    folder = write(tmp_path, (FORBID + f";\n// {hidden}").encode())
    with pytest.raises(DocumentError, match=f"U\\+{ord(hidden):04X}"):
        document.read(folder)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="not UTF-8"):
        document.read(write(tmp_path, RULES + b"\xff"))
