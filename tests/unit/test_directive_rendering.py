"""A directive's page shows each rule beside its citation, and nothing in it is read as markup."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from directive import cases
from directive.book import load_directive
from directive.entities import known_names
from directive.rendering.html import html
from directive.rendering.pdf import NotSet, pdf
from directive.rendering.sheet import Sheet, sheet
from support.directives import DIRECTIVES, SHIPPED, registry, vocabulary

NAME = "lapd-2020-11-13"


def page_of(folder: Path) -> Sheet:
    one = load_directive(folder, vocabulary(), known_names(registry()))
    content = (folder / "cases.yaml").read_bytes()
    return sheet(one, cases.parse(folder.name, content), content)


def titled(folder: Path, title: str) -> Sheet:
    """LAPD's directive under another title."""
    copy = Path(shutil.copytree(DIRECTIVES / NAME, folder / NAME))
    manifest = copy / "directive.toml"
    lines = [
        f"title = '{title}'" if line.startswith("title") else line
        for line in manifest.read_text().splitlines()
    ]
    manifest.write_text("\n".join(lines) + "\n")
    return page_of(copy)


class Elements(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", SHIPPED)
def test_each_rule_stands_beside_its_citation_with_its_exact_text(name: str) -> None:
    page = page_of(DIRECTIVES / name)
    shown = Elements(html(page))
    rules = (DIRECTIVES / name / "rules.cedar").read_text()
    assert page.rules
    for rule in page.rules:
        assert rule.text in rules
        assert rule.text.startswith(("permit", "forbid"))
        assert rule.text.endswith(";")
        for said in (rule.id, rule.title, rule.citation, rule.text):
            assert said in shown.text
    assert "script" not in shown.tags
    for digest in page.digests:
        assert digest.value in shown.text
    assert "Counsel" in shown.text


def test_the_sentence_of_the_source_is_quoted_where_the_directive_gives_it() -> None:
    page = page_of(DIRECTIVES / NAME)
    quoted = {rule.id: rule.source_sentence for rule in page.rules}
    assert quoted["LAPD-2"].startswith("Department personnel shall not use")
    assert quoted["LAPD-4"] == ""
    assert "does not quote the sentence" in html(page)


def test_attack_markup_in_a_directive_is_shown_and_not_read(tmp_path: Path) -> None:
    title = '<script>alert("x")</script> #panic("y") $z$ {{ 7 * 7 }}'
    page = titled(tmp_path, title)
    shown = Elements(html(page))
    assert "script" not in shown.tags
    assert title in shown.text
    assert pdf(page).startswith(b"%PDF-")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_pdf_is_for_archives_and_the_same_each_time(name: str) -> None:
    page = page_of(DIRECTIVES / name)
    made = pdf(page)
    assert made.startswith(b"%PDF-1.")
    assert b"pdfaid" in made
    assert pdf(page) == made


def test_a_letter_that_no_font_has_is_said_and_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(NotSet, match="cannot be set"):
        pdf(titled(tmp_path, "顔認証"))


def test_the_command_writes_both_and_refuses_what_a_guard_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(DIRECTIVES / NAME, tmp_path / NAME))
    page, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    arguments = ["directive", "render", str(folder), "--html", str(page), "--pdf", str(paper)]
    assert exit_code(arguments) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert paper.read_bytes().startswith(b"%PDF-")
    page.unlink()
    (folder / "rules.cedar").write_text("permit")
    assert exit_code(arguments) == 1
    assert "PARSE" in capsys.readouterr().out
    assert not page.exists()
    assert exit_code(["directive", "render", str(folder)]) == 2
