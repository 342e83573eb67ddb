"""`make release`: the same bytes from one commit, and none from what is no release."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from support.scrapes import DASHBOARDS
from support.sources import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"countersign-{VERSION}"
# In place of the generator, which tests/k8s/test_images.py runs.
SBOM_TOOL = '#!/bin/sh\necho "$2 for Python $3" > "$4"\n'


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=A test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def release(folder: Path, output: Path) -> subprocess.CompletedProcess[str]:
    tool = output.parent / "sbom-python"
    tool.write_text(SBOM_TOOL)
    tool.chmod(0o755)
    return subprocess.run(
        [sys.executable, "tools/release.py", output, tool, "3.11"],
        cwd=folder, check=False, capture_output=True, text=True,
    )  # fmt: skip


def repository(folder: Path, *paths: str) -> Path:
    """These files of the working copy as one commit, whose changelog says that its version is released."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## [{VERSION}] - 2026-11-22\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A release")
    return folder


@pytest.fixture(name="small")
def _small(tmp_path: Path) -> Path:
    """Enough to be refused."""
    return repository(tmp_path / "small", "pyproject.toml", "tools")


def test_a_release_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    # The tests and the pages would only make the source archive longer.
    first = repository(tmp_path / "first", "--", ".", ":!tests", ":!docs", ":!bench")
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = tmp_path / "here" / "dist", tmp_path / "there" / "dist"
    done = release(first, here)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "another place"
    before = os.umask(0o077)
    try:
        git(tmp_path, "clone", "--quiet", str(first), str(other))
        there.mkdir()
        (there / "of an earlier release").write_text("")
        assert release(other, there).returncode == 0
    finally:
        os.umask(before)
    assert (here / "SHA256SUMS").read_text() == (there / "SHA256SUMS").read_text()
    assert sorted(path.name for path in there.iterdir()) == [
        "SHA256SUMS",
        f"{NAME}-connector.cdx.json",
        f"{NAME}-images.tar.gz",
        f"{NAME}-kubernetes.tar.gz",
        f"{NAME}-machine.tar.gz",
        f"{NAME}-py3-none-any.whl",
        f"{NAME}-services.cdx.json",
        f"{NAME}.tar.gz",
    ]
    for line in (there / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((there / name).read_bytes()).hexdigest() == digest

    with zipfile.ZipFile(there / f"{NAME}-py3-none-any.whl") as wheel:
        assert {"broker/__main__.py", "countersign/broker/v1/broker_pb2.py"} <= {*wheel.namelist()}
    with tarfile.open(there / f"{NAME}-images.tar.gz") as images:
        top = f"{NAME}-images"
        held = {"Containerfile", "requirements/run.txt", f"wheels/{NAME}-py3-none-any.whl"}
        assert {f"{top}/{one}" for one in held} <= {*images.getnames()}
        assert images.getmember(f"{top}/fetch_wheels.sh").mode == 0o755
    with tarfile.open(there / f"{NAME}-kubernetes.tar.gz") as manifests:
        kustomization = f"{NAME}-kubernetes/overlays/production/kustomization.yaml"
        assert manifests.getmember(kustomization).mode == 0o644
    with tarfile.open(there / f"{NAME}-machine.tar.gz") as machine:
        wanted = {path.relative_to(ROOT) for path in (ROOT / "deploy" / "systemd").iterdir()}
        wanted |= {
            Path("requirements/embedded.txt"),
            Path("deploy/prometheus/countersign.rules.yaml"),
            Path("deploy/prometheus/watching.rules.yaml"),
            *(path.relative_to(ROOT) for path in DASHBOARDS.glob("*.json")),
        }
        assert {f"{NAME}-machine/{one}" for one in wanted} <= {*machine.getnames()}
    assert (
        "requirements/run.txt for Python 3.11" in (there / f"{NAME}-services.cdx.json").read_text()
    )


def refusal(small: Path, tmp_path: Path) -> str:
    """What it says that makes no release, and leaves nothing of one."""
    refused = release(small, tmp_path / "dist")
    assert refused.returncode == 2
    assert not (tmp_path / "dist").exists()
    return refused.stderr


def test_what_is_in_no_commit_is_not_released(small: Path, tmp_path: Path) -> None:
    (small / "left behind").write_text("")
    assert "in no commit" in refusal(small, tmp_path)


@pytest.mark.parametrize("heading", ["", f"## [{VERSION}] - unreleased\n"])
def test_a_version_without_its_day_in_the_changelog_is_not_released(
    small: Path, tmp_path: Path, heading: str
) -> None:
    (small / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}")
    git(small, "commit", "--quiet", "--all", "--message", "Not yet")
    assert "CHANGELOG.md" in refusal(small, tmp_path)


def test_what_the_changelog_has_as_unreleased_is_not_left_out_of_a_release(
    small: Path, tmp_path: Path
) -> None:
    dated = f"## [{VERSION}] - 2026-11-22\n\n### Added\n\n- One thing.\n"
    (small / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n### Changed\n\n- Another.\n\n{dated}")
    git(small, "commit", "--quiet", "--all", "--message", "Half of it")
    assert "[Unreleased]" in refusal(small, tmp_path)


def test_manifests_with_images_of_another_version_are_not_released(
    small: Path, tmp_path: Path
) -> None:
    base = small / "deploy" / "k8s" / "base" / "kustomization.yaml"
    base.parent.mkdir(parents=True)
    base.write_text("images:\n  - {name: countersign/services, newTag: 0.0.9}\n")
    git(small, "add", "--all")
    git(small, "commit", "--quiet", "--message", "The tag was forgotten")
    assert "deploy/k8s/base/kustomization.yaml has images of 0.0.9" in refusal(small, tmp_path)


def test_a_version_that_is_another_commit_is_not_released_again(
    small: Path, tmp_path: Path
) -> None:
    git(small, "tag", f"v{VERSION}")
    git(small, "commit", "--quiet", "--allow-empty", "--message", "Later")
    assert f"v{VERSION} is another commit" in refusal(small, tmp_path)
    dated = (small / "CHANGELOG.md").read_text()
    (small / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n- What came since.\n\n{dated}")
    git(small, "commit", "--quiet", "--all", "--message", "Later still")
    said = refusal(small, tmp_path)
    assert "give this one a new version" in said
    assert "put it under" not in said, "that would change a section that is released"
