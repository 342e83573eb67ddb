"""The page as HTML: one file, without scripts, without anything from elsewhere."""

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from directive.rendering.sheet import Sheet

_TEMPLATES: Final = Path(__file__).parent


def html(sheet: Sheet) -> str:
    """The page. What a directive says is shown as it is and never read as markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(sheet=sheet)
