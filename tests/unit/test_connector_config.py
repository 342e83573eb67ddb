"""That the configuration which the documentation shows is one, and what a wrong one is told."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from connector.config import ConnectorSettings, ReferenceAdapter
from shared.settings import SettingsError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "connector.md"


@pytest.fixture(name="shown")
def _shown() -> str:
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def load(folder: Path, text: str) -> ConnectorSettings:
    file = folder / "connector.toml"
    file.write_text(text)
    return ConnectorSettings.load(file)


def test_documented_configuration_loads(tmp_path: Path, shown: str) -> None:
    settings = load(tmp_path, shown)

    assert settings.answers_kept == timedelta(days=30)
    assert isinstance(settings.behind, ReferenceAdapter)
    assert settings.behind.folder == tmp_path / "gallery"


@pytest.mark.parametrize(
    ("shown_as", "written_as", "named"),
    [
        ('answers_kept = "P30D"', 'answers_kept = "P7D"', "answers_kept"),
        ("workers = 1", "workers = 0", "workers"),
        ("workers = 1", "worker = 1", "worker"),
        ('adapter = "reference"', "", "behind"),
        ("orders_in_flight_max = 16", "orders_in_flight_max = 100000", "orders_in_flight_max"),
    ],
)
def test_value_that_would_break_an_invariant_is_named(
    tmp_path: Path, shown: str, shown_as: str, written_as: str, named: str
) -> None:
    assert shown_as in shown

    with pytest.raises(SettingsError, match=named):
        load(tmp_path, shown.replace(shown_as, written_as))


def test_load_test_adapter_is_never_the_default(tmp_path: Path, shown: str) -> None:
    without = re.sub(r"\[behind\].*?\n\n", "", shown, flags=re.DOTALL)

    with pytest.raises(SettingsError, match="behind"):
        load(tmp_path, without)
