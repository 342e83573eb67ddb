"""That the page of all settings is the one that the settings make."""

import runpy

from support.sources import ROOT


def test_the_page_of_settings_is_fresh() -> None:
    """`make configuration` writes it; a setting without a reason, or a number without a unit, stops that."""
    written = (ROOT / "docs" / "configuration.md").read_text()
    made = runpy.run_path(str(ROOT / "tools" / "generate_configuration.py"))["page"](written)
    assert made == written, "run 'make configuration' and commit what it writes"
