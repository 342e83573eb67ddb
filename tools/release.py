"""Builds what a release consists of, the same bytes wherever and whenever it is built from one commit:

    release.py OUTPUT SBOM_PYTHON IMAGE_PYTHON

wheel and source archive, what images are built from, the manifests, what one machine needs besides, a bill of
materials of each image, and SHA256SUMS of them all. From the commit that is checked out and nothing else: a
folder with changes is refused, as are a version that CHANGELOG.md does not have with a date, one beside which
it has something unreleased, and manifests with images of another. Asks nothing of
any network.
SBOM_PYTHON is the interpreter of requirements/sbom.txt, IMAGE_PYTHON the version in the images.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

SUMS: Final = "SHA256SUMS"
IMAGES: Final = ("run", "services"), ("connector", "connector")
"""Each requirement file with the image that has it."""

DASHBOARDS: Final = {f"k8s/components/grafana/{one}.json" for one in ("operator", "oversight")}
"""For Grafana beside one machine too (deploy/grafana)."""


class NotReleased(Exception):
    """Nothing was built; the message says what is missing."""


def git(root: Path, *arguments: str) -> str:
    """What it prints."""
    done = subprocess.run(
        ["git", "-C", root, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def version_of(root: Path) -> str:
    """The version, if this commit may become its release. Raises NotReleased."""
    version = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    if git(root, "status", "--porcelain"):
        raise NotReleased("there are changes that are in no commit; git status lists them")
    changelog = (root / "CHANGELOG.md").read_text()
    # Before the changelog: who forgot to raise the version must not be told to change a released section.
    tag = f"v{version}"
    if git(root, "tag", "--list", tag) and git(root, "tag", "--points-at", "HEAD", tag) != tag:
        raise NotReleased(f"{tag} is another commit: give this one a new version")
    dated = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$"
    if not re.search(dated, changelog, re.MULTILINE):
        raise NotReleased(f"CHANGELOG.md has no heading '## [{version}] - YYYY-MM-DD'")
    if re.search(r"^## \[Unreleased\]\s+(?!## )\S", changelog, re.MULTILINE):
        raise NotReleased(
            f"CHANGELOG.md has something under [Unreleased] that is in this release: put it under [{version}]"
        )
    for path in sorted((root / "deploy" / "k8s").rglob("kustomization.yaml")):
        if others := set(re.findall(r"countersign/\w+, newTag: ([^\s}]+)", path.read_text())) - {
            version
        }:
            raise NotReleased(f"{path.relative_to(root)} has images of {', '.join(sorted(others))}")
    return version


def archive(path: Path, folder: str, files: Mapping[str, Path], at: int) -> None:
    """A tar of these files below one folder: sorted, of nobody, all of one time."""
    with (
        path.open("wb") as raw,
        # Neither name nor time of the file itself in its header.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=at) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(files):
            content = files[name].read_bytes()
            one = tarfile.TarInfo(f"{folder}/{name}")
            one.size, one.mtime = len(content), at
            one.mode = 0o755 if files[name].stat().st_mode & 0o100 else 0o644
            tar.addfile(one, io.BytesIO(content))


def below(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its name there."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def build(source: Path, output: Path, version: str, at: int) -> None:
    """Everything but the bills of materials, from a copy of the commit."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(at), "TZ": "UTC"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", output],
        check=True, cwd=source, env=environment, capture_output=True,
    )  # fmt: skip
    wheels = {f"wheels/{path.name}": path for path in output.glob("*.whl")}
    requirements = {
        f"requirements/{use}.txt": source / "requirements" / f"{use}.txt" for use, _ in IMAGES
    }
    images = below(source / "deploy" / "images") | wheels | requirements
    name = f"countersign-{version}"
    archive(output / f"{name}-images.tar.gz", f"{name}-images", images, at)
    # Units, alert rules, dashboards: whatever has no archive of its own.
    units = {
        f"deploy/{name}": path
        for name, path in below(source / "deploy").items()
        if not name.startswith(("images/", "k8s/")) or name in DASHBOARDS
    }
    units["requirements/embedded.txt"] = source / "requirements" / "embedded.txt"
    archive(output / f"{name}-machine.tar.gz", f"{name}-machine", units, at)
    manifests = below(source / "deploy" / "k8s")
    archive(output / f"{name}-kubernetes.tar.gz", f"{name}-kubernetes", manifests, at)


def bills(source: Path, output: Path, version: str, tools: tuple[str, str]) -> None:
    """What each image holds, as CycloneDX."""
    sbom_python, image_python = tools
    for use, image in IMAGES:
        path = output / f"countersign-{version}-{image}.cdx.json"
        subprocess.run(
            [sbom_python, "tools/write_sbom.py", f"requirements/{use}.txt", image_python, path],
            check=True, cwd=source, capture_output=True,
        )  # fmt: skip


def sums(files: Iterable[Path]) -> str:
    """As `sha256sum --check` reads it."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(files)
    )


def release(root: Path, output: Path, tools: tuple[str, str]) -> None:
    """Builds it all into a new folder in place of `output`. Raises NotReleased."""
    version = version_of(root)
    at = int(git(root, "log", "-1", "--format=%ct"))
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "source", Path(folder) / "built"
        # The index is the commit: nothing is changed.
        git(root, "checkout-index", "--all", f"--prefix={source}/")
        build(source, built, version, at)
        bills(source, built, version, tools)
        (built / SUMS).write_text(sums(built.iterdir()))
        # Whole or not at all: half a release would have sums that say it is one.
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(built, output)


def main() -> int:
    """Builds the release of the commit that is checked out."""
    output, sbom_python, image_python = sys.argv[1:]
    try:
        # Not resolved: the interpreter of an environment is a link to that of the system.
        release(Path.cwd(), Path(output), (str(Path(sbom_python).absolute()), image_python))
    except NotReleased as error:
        print(f"No release: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    print((Path(output) / SUMS).read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
