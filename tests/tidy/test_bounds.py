"""The page of limits says what the code does, and every test that a page names is there."""

import importlib
import re
from functools import reduce
from typing import Any

import pytest

from broker.config import BrokerSettings
from broker.limits import LimitSettings
from support.sources import ROOT

PAGE = ROOT / "docs" / "limits.md"
PAGES = (PAGE, ROOT / "docs" / "security.md")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")
BOUND = re.compile(r"^\|[^|]+\| `([\w.]+):([\w.]+)` \| (\d+)", re.MULTILINE)
RATE = re.compile(r"^\| `(\w+_per_\w+)`, `(\w+)` \|[^|]+\| ([\d,]+); ([\d,]+) \|", re.MULTILINE)
IN_FLIGHT = re.compile(r"^\| `(\w+_in_flight_max)` \|[^|]+\| ([\d,]+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Any) -> None:
    named = NAMED.findall(page.read_text())
    assert named
    missing = [f"{file}::{name}" for file, name in named if not is_there(file, name)]
    assert not missing


def is_there(file: str, name: str) -> bool:
    """Whether the file has that test; without a name, any."""
    wanted = rf"^(async )?def {name}\(" if name else r"^(async )?def test_"
    path = ROOT / file
    return path.is_file() and bool(re.search(wanted, path.read_text(), re.MULTILINE))


def test_the_bounds_are_those_of_the_code() -> None:
    said = {(module, name): int(number) for module, name, number in BOUND.findall(PAGE.read_text())}
    assert len(said) >= 12
    found = {(module, name): value_of(module, name) for module, name in said}
    assert found == said


def value_of(module: str, name: str) -> object:
    found: object = importlib.import_module(module)
    return reduce(getattr, name.split("."), found)


def test_what_is_left_out_is_as_the_page_says() -> None:
    page = PAGE.read_text()
    said = {
        name: float(number.replace(",", ""))
        for rate, burst, *numbers in RATE.findall(page)
        for name, number in zip((rate, burst), numbers, strict=True)
    } | {name: float(number.replace(",", "")) for name, number in IN_FLIGHT.findall(page)}
    assert said == {name: float(value) for name, value in LimitSettings()}
    orders = BrokerSettings.model_fields["orders_bytes_max"].default
    assert f"| `orders_bytes_max` in `broker.toml` | {orders} bytes |" in page
