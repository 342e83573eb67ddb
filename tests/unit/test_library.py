"""Each directive of the library could be published, and every row of the catalogue is accounted for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from countersign.installation.layout import Layout
from countersign.installation.prepare import ensure_documents
from directive import review
from directive.book import LIBRARY, BookError, directive_folders, load_book
from shared.registry import Registry
from support.directives import DIRECTIVES, registry, vocabulary
from support.sources import ROOT

FOLDERS = directive_folders(DIRECTIVES / LIBRARY)
PENDING = "T15, T16, T27, T40, T44, T63, T68"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_directive_of_the_library_could_be_published(folder: Path) -> None:
    known = Registry.load(DIRECTIVES / LIBRARY / "registry.toml")
    found = review.review(folder, vocabulary(), known)
    assert [str(finding) for finding in found.findings] == []
    assert found.directive is not None
    manifest = found.directive.document.manifest
    assert "paraphrase" in (manifest.caution or "")
    assert manifest.source


def conformance(folder: Path = DIRECTIVES) -> tuple[int, str]:
    said = subprocess.run(  # a fresh process, as `make conformance` starts it
        [sys.executable, "tools/conformance.py", str(folder)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/services:{ROOT}/proto", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return said.returncode, said.stdout + said.stderr


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIRECTIVES, tmp_path / "directives"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_row_holds_or_is_pending_by_name() -> None:
    code, said = conformance()
    assert code == 0, said
    assert f"62 rows: 55 hold, 0 fail, 7 pending ({PENDING})" in said


def test_rows_that_come_out_otherwise_or_are_covered_by_no_case_fail(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(folder / LIBRARY / "detroit-307-5" / "rules.cedar", '"mobileDevice"', '"drone"')
    edit(folder / LIBRARY / "us-wa-43-386" / "cases.yaml", "- id: T37\n    name", "- name")
    edit(folder / LIBRARY / "rows.toml", 'T38 = { expect = "refused" }\n', "")
    code, said = conformance(folder)
    assert code == 1
    assert "52 hold, 3 fail" in said


def test_a_directive_that_is_refused_stops_the_table(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(
        folder / LIBRARY / "nypd-facial-recognition" / "rules.cedar", "context.purpose", "context.p"
    )
    code, said = conformance(folder)
    assert code == 1
    assert "UNKNOWN_TERM" in said


def test_no_service_loads_the_library_and_no_installation_has_it(tmp_path: Path) -> None:
    assert LIBRARY not in {path.name for path in directive_folders(DIRECTIVES)}
    layout = Layout(tmp_path / "data")
    ensure_documents(layout)
    assert (layout.directives / "vocabulary-1.cedarschema").exists()
    assert not (layout.directives / LIBRARY).exists()


@pytest.mark.promise(3)
def test_a_directive_with_the_librarys_name_is_not_passed_over(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    shutil.copytree(folder / "facefind-nobody", folder / LIBRARY, dirs_exist_ok=True)
    with pytest.raises(BookError, match=LIBRARY):
        load_book(folder, vocabulary(), registry())
