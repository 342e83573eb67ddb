"""The code of the last release, so that a service of it can run beside those of today.

The release is that of the newest tag before this commit (`v1.2.3`), where a clone has no tags the commit that
dated a version in CHANGELOG.md, or that of `--last-release COMMIT`. Its code comes out of git; the packages
that it needs are those that are installed now.
"""

import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from countersign.installation.layout import Layout
from countersign.installation.parts import Part, environment
from countersign.installation.ports import Ports
from support.sources import ROOT

FOLDERS: Final = ("services", "proto", "directives")
DATED: Final = r"^## \[[0-9.]+\] - [0-9]"
"""The heading of a released version in CHANGELOG.md."""

# Runs with the release's own code: an installation is made by it, and taken over by today's.
_PREPARES: Final = """
import dataclasses, json, pathlib, sys
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare
folder, given = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
known = {field.name for field in dataclasses.fields(Ports)}
layout = Layout(folder)
ports = Ports(**{name: port for name, port in given.items() if name in known})
prepare(layout, ensure_documents(layout), ports, on_record=False)
"""


@dataclass(frozen=True)
class LastRelease:
    """Its code in a folder."""

    commit: str
    folder: Path

    @property
    def _python(self) -> tuple[str, ...]:
        path = ":".join(str(self.folder / one) for one in ("services", "proto"))
        return ("/usr/bin/env", f"PYTHONPATH={path}", sys.executable, "-P")

    def prepare(self, layout: Layout, ports: Ports) -> None:
        """Makes a data directory, and keeps its configuration and trust roots beside those of today."""
        script = (*self._python, "-c", _PREPARES, str(layout.root), json.dumps(asdict(ports)))
        subprocess.run(script, check=True, env=environment())
        # What several processes read gets a new release's keys only when all of them are new.
        roots = layout.trust_roots
        shutil.copy(roots, self.kept(roots))
        for folder in (layout.config("broker").parent, layout.client("any").parent):
            for config in folder.glob("*.toml"):
                text = config.read_text().replace(roots.name, self.kept(roots).name)
                self.kept(config).write_text(text)

    @staticmethod
    def kept(path: Path) -> Path:
        """Its own form of a file; in the same folder, because paths in a configuration are from there."""
        return path.with_name(f"last-release-{path.name}")

    def part(self, part: Part) -> Part:
        """The same process, of the release."""
        *python, module, config = part.command
        assert python[-1] == "-m"
        of_release = (*self._python, "-m", module, str(self.kept(Path(config))))
        return replace(part, command=of_release)

    def countersign(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Its command line."""
        return self.run("from countersign.cli.main import main; main()", *arguments)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A script, with its code."""
        return subprocess.run(
            (*self._python, "-c", script, *arguments),
            check=False, capture_output=True, text=True, env=environment(),
        )  # fmt: skip


def last_release(commit: str | None, folder: Path) -> LastRelease:
    """Its code, unpacked into the folder; skips the test when there is no release to be had."""
    if commit is None:
        commit = _newest_tag() or _newest_dated()
        if not commit:
            shallow = _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
            why = (
                "the clone is shallow (git fetch --unshallow --tags)"
                if shallow
                else "CHANGELOG.md never had a version with a date"
            )
            pytest.skip(f"no release before this commit: {why}. --last-release COMMIT names one")
    packed = _git("archive", "--format=tar", commit, *FOLDERS)
    assert packed.returncode == 0, packed.stderr.decode()
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
        tar.extractall(folder)  # it is our own repository's
    return LastRelease(commit, folder)


def _newest_tag() -> str:
    found = _git("describe", "--tags", "--match", "v*", "--abbrev=0", "HEAD^")
    return found.stdout.decode().strip()


def _newest_dated() -> str:
    changed = ("log", "-1", "--format=%H", "--pickaxe-regex", f"-S{DATED}", "HEAD^")
    return _git(*changed, "--", "CHANGELOG.md").stdout.decode().strip()


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)
