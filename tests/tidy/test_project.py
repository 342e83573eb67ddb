"""That the packaging and the documents agree with the code."""

import re
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

from support.sources import ROOT, listed, marked_promises, texts

PROMISES = range(1, 10)
REQUIREMENT_NAME = re.compile(r"[\w.-]+")


def project() -> dict[str, Any]:
    """The project's own description."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirement_names(requirements: list[str]) -> set[str]:
    """Only the names, as the pinned files spell them."""
    found = [REQUIREMENT_NAME.match(requirement) for requirement in requirements]
    names = {match[0].lower().replace("_", "-") for match in found if match}
    return names - {"countersign"}


def pinned_names(use: str) -> set[str]:
    """What one pinned file installs."""
    lines = (ROOT / "requirements" / f"{use}.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if not line.startswith(" ")}


def direct_dependencies() -> set[str]:
    """Every package that pyproject.toml names for running."""
    described = project()["project"]
    extras = described["optional-dependencies"].values()
    return requirement_names(
        [*described["dependencies"], *(one for extra in extras for one in extra)]
    )


def test_top_level_names_are_ours_alone() -> None:
    """The services are top-level packages: a dependency that brings the same name would hide ours."""
    names = {
        path.name
        for root in ("proto", "services")
        for path in (ROOT / root).iterdir()
        if path.is_dir()
    }
    brought = packages_distributions()
    offenders = {
        name: brought[name] for name in names if set(brought.get(name, [])) - {"countersign"}
    }
    assert not offenders, listed(offenders)


def test_namespace_package_has_no_init() -> None:
    """A services/countersign/__init__.py would hide the generated code of proto/countersign."""
    folders = ("proto/countersign", "services/countersign", "tests")
    offenders = [name for name in folders if (ROOT / name / "__init__.py").exists()]
    assert not offenders, listed(offenders)


def test_promise_markers_name_a_promise() -> None:
    offenders = {
        number: where for number, where in marked_promises().items() if number not in PROMISES
    }
    assert not offenders, listed(offenders)


def test_every_promise_is_proved() -> None:
    offenders = set(PROMISES) - marked_promises().keys()
    assert not offenders, listed(offenders)


def test_promises_page_lists_the_tests() -> None:
    """The page names all files whose tests prove a promise; `make promises` writes them there."""
    page = (ROOT / "docs" / "promises.md").read_text()
    named: dict[int, set[str]] = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        number = int(section.split(".")[0])
        named[number] = set(re.findall(r"`(tests/[\w/]+\.py)`", section))
    proved = marked_promises()
    offenders = {
        f"promise {number}": sorted(proved.get(number, set()))
        for number in PROMISES
        if named.get(number) != proved.get(number, set())
    }
    assert not offenders, listed(offenders)


def test_every_dependency_is_pinned_and_explained() -> None:
    pinned = pinned_names("dev")
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    dependencies = direct_dependencies()
    assert {name for name in dependencies if name not in pinned} == set()
    assert {name for name in dependencies if f"`{name}`" not in reasons} == set()


def test_every_development_tool_is_pinned() -> None:
    groups = project()["dependency-groups"]
    offenders = requirement_names([*groups["dev"], *groups["build"]]) - pinned_names("dev")
    assert not offenders, listed(offenders)


def test_decisions_are_listed() -> None:
    """The list in the first record is how one finds the others."""
    folder = ROOT / "docs" / "decisions"
    listing = (folder / "README.md").read_text()
    offenders = [path.name for path in folder.glob("0*.md") if path.name not in listing]
    assert not offenders, listed(offenders)


def test_make_targets_are_explained() -> None:
    makefile = dict(texts())["Makefile"]
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None
    helped = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    offenders = set(declared[1].split()) - helped
    assert not offenders, listed(offenders)
