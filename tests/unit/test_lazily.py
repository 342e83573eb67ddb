"""Modules that are read when something of them is used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from shared.lazily import read_when_used


@pytest.fixture(name="package")
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that notes each time it is read."""
    name = "package_of_a_test"
    folder = tmp_path / name
    folder.mkdir()
    noting = (
        "import pathlib\nwith pathlib.Path(__file__).with_name('read').open('a') as notes:\n"
        "    notes.write('once ')\n"
    )
    (folder / "__init__.py").write_text(noting + "from .inner import NUMBER as NUMBER\n")
    (folder / "inner.py").write_text("NUMBER = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, f"{name}.inner", raising=False)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_it_is_read_once_and_whole_when_something_of_it_is_used(
    package: str, tmp_path: Path
) -> None:
    notes = tmp_path / package / "read"
    read_when_used(package)
    module = importlib.import_module(package)
    assert not notes.exists()
    assert module.NUMBER == 7
    inner = importlib.import_module(f"{package}.inner")
    assert (inner.NUMBER, module.inner) == (7, inner)
    with pytest.raises(AttributeError, match="no attribute 'OTHER'"):
        _ = module.OTHER
    read_when_used(package)
    assert importlib.import_module(package) is module
    assert notes.read_text() == "once "


def test_what_is_not_installed_stays_so() -> None:
    read_when_used("package_that_nobody_has")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("package_that_nobody_has")


def test_the_bus_is_read_without_a_web_server() -> None:
    asked = "import sys, shared.bus; print('nats' in sys.modules, 'aiohttp.client' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert said.stdout == "True False\n"
