"""The demonstration, run as a newcomer runs it."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from countersign.demo.scenes import SCENES
from countersign.demo.stage import SceneFailed, expect
from countersign.demo.telling import tell
from tlog.errors import TlogError


def processes_that_name(text: str) -> list[str]:
    return [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline"])
        if text in " ".join(process.info["cmdline"] or [])
    ]


def test_the_demonstration_shows_every_scene_and_leaves_nothing_behind(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("countersign")
    done = subprocess.run(
        [program, "demo"],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    # The record that was listed before says whose entry this is.
    changed = re.search(r"changes one byte: entry (\d+), of the first search", done.stdout)
    assert changed is not None
    listed = re.findall(r"^(\d+) +│ .*search_decided", done.stdout, re.MULTILINE)
    assert changed[1] == listed[0]
    assert f"entry {changed[1]} was changed" in done.stdout
    for number, (title, _) in enumerate(SCENES, start=1):
        assert f"{number}. {title}" in done.stdout
    assert not list(tmp_path.iterdir())
    assert not processes_that_name(str(tmp_path))


class TellsNothingAnd:
    """Starts no part, and ends as it is told."""

    def __init__(self, failure: Exception | None) -> None:
        self.folder = Path()
        self._failure = failure

    async def __call__(self, console: Console, folder: Path) -> None:
        self.folder = folder
        if self._failure is not None:
            raise self._failure


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (SceneFailed("the search is not refused"), 1, "demonstration failed: the search is not"),
        (TlogError("it does not verify"), 1, "demonstration failed: it does not verify"),
        (None, 0, "Everything happened as promised"),
    ],
)
async def test_what_did_not_happen_makes_it_fail_and_leaves_its_logs(
    failure: Exception | None, code: int, said: str
) -> None:
    telling, screen = TellsNothingAnd(failure), io.StringIO()
    assert await tell(Console(file=screen, width=120), telling) == code
    assert said in screen.getvalue()
    assert (str(telling.folder / "data" / "log") in screen.getvalue()) == (failure is not None)
    assert telling.folder.exists() == (failure is not None)
    shutil.rmtree(telling.folder, ignore_errors=True)


def test_a_scene_fails_when_something_is_not_as_it_promises() -> None:
    expect(True, "the search is refused")
    with pytest.raises(SceneFailed, match="the search is refused"):
        expect(False, "the search is refused")
