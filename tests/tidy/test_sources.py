"""What the tidy tests read: what git tracks or would, and of that only text."""

import subprocess
from pathlib import Path

import pytest

from support.sources import ROOT, files_below, texts_below


@pytest.fixture(params=["clone", "plain tree"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tree as it lies after one followed the documents."""
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    left = (".countersign/clients/x.toml", "copy/tile/0", "receipts/a.leaf", "record/checkpoint")
    for name in (*left, ".venv/x.py", "docs/page.md", "binary"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "binary").write_bytes(b"\xff\xfe without a zero byte")
    if request.param == "clone":
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def test_what_is_ignored_is_not_read(tree: Path) -> None:
    names = {str(path.relative_to(tree)) for path in files_below(tree)}
    assert names == {".gitignore", "docs/page.md", "binary"}


def test_what_is_no_text_is_passed_over(tree: Path) -> None:
    assert {name for name, _ in texts_below(tree)} == {".gitignore", "docs/page.md"}
