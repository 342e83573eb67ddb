"""The images: pinned by digest, for one user without rights, with the commands of the manifests in them."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from support.manifests import DEPLOY, KUSTOMIZATIONS, rendered
from support.sources import ROOT

CONTAINERFILE = (ROOT / "deploy" / "images" / "Containerfile").read_text()
SBOM_TOOLS = ROOT / ".scratch" / "sbom" / "bin" / "python"


def test_bases_are_named_by_whoever_builds() -> None:
    """A default would be a tag, or a digest that nobody renews."""
    assert re.findall(r"^ARG (.*)$", CONTAINERFILE, re.MULTILINE) == ["BUILDER", "RUNTIME"]
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", CONTAINERFILE, re.MULTILINE)
    assert {base for base, _ in stages} == {"${BUILDER}", "${RUNTIME}"}
    assert [name for base, name in stages if base == "${RUNTIME}"] == ["services", "connector"]


def test_nothing_runs_in_the_final_images_while_they_are_built() -> None:
    """So no shell is needed there, nor anything that would be left behind."""
    for stage in CONTAINERFILE.split("\nFROM ")[1:]:
        if stage.startswith("${RUNTIME}"):
            words = {line.split()[0] for line in stage.splitlines()[1:] if line.strip()}
            assert words == {"COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}


def test_what_is_installed_is_checked_by_hash_and_fetched_from_nowhere() -> None:
    installs = re.findall(
        r"/python install (.*?)(?:&&|$)", CONTAINERFILE.replace("\\\n", ""), re.MULTILINE
    )
    assert len(installs) == 4
    for one in installs:
        assert "--no-index" in one
        assert "--require-hashes" in one or "--no-deps" in one


def test_the_user_is_the_one_of_the_manifests() -> None:
    users = set(re.findall(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.MULTILINE))
    (user,) = users
    for folder in KUSTOMIZATIONS:
        for pod in rendered(folder).pods:
            context = pod.spec["securityContext"]
            assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user


def test_commands_of_the_manifests_are_in_the_images() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for folder in KUSTOMIZATIONS:
        for pod in rendered(folder).pods:
            for one in pod.containers:
                if one["image"].startswith("countersign/"):
                    assert one["command"][0] in {"python", *project["scripts"]}, one["name"]


def test_versions_of_the_manifests_are_the_project_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = set()
    for path in DEPLOY.rglob("kustomization.yaml"):
        tags |= set(re.findall(r"name: countersign/\w+, newTag: (\S+)}", path.read_text()))
    assert tags == {version}


@pytest.mark.parametrize("use", ["run", "connector"])
def test_the_bill_of_materials_lists_what_is_installed(use: str, tmp_path: Path) -> None:
    if not SBOM_TOOLS.exists():
        pytest.skip("the generator is not installed: run `make sbom`")
    pinned = ROOT / "requirements" / f"{use}.txt"
    made = tmp_path / "made.json"
    subprocess.run(
        [SBOM_TOOLS, ROOT / "tools" / "write_sbom.py", pinned, "3.11", made],
        check=True,
        capture_output=True,
    )
    document = json.loads(made.read_text())
    assert document["bomFormat"] == "CycloneDX"
    listed = {(one["name"], one["version"]) for one in document["components"]}
    for line in pinned.read_text().splitlines():
        named = re.match(r"([a-z0-9-]+)==([\w.]+)", line)
        if named:
            other = re.search(
                r"; (python_full_version >= '3\.12'|sys_platform == 'win32') \\$", line
            )
            assert ((named[1], named[2]) in listed) == (other is None), line
    hashes = [one["externalReferences"][0]["hashes"] for one in document["components"]]
    assert all(hashes)
