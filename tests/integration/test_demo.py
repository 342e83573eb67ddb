"""The demonstration, run as a newcomer runs it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from countersign.demo.scenes import SCENES


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
    for number, (title, _) in enumerate(SCENES, start=1):
        assert f"{number}. {title}" in done.stdout
    assert not list(tmp_path.iterdir())
    assert not processes_that_name(str(tmp_path))
