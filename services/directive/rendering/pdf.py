"""The page as PDF/A, for a file that is kept for decades; fonts are in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

import typst

from directive.rendering.sheet import Sheet

_TEMPLATE: Final = Path(__file__).with_name("page.typ")


class NotSet(Exception):
    """The page cannot be set: it has a letter that no font of ours has. The message says which."""


def pdf(sheet: Sheet) -> bytes:
    """The page; raises NotSet.

    What a directive says goes in as data, and is never read as the template's language. Fonts of the machine
    are left out, so that the page looks the same wherever it is set.
    """
    try:
        compiled = typst.compile(
            _TEMPLATE.read_bytes(),
            format="pdf",
            ignore_system_fonts=True,
            sys_inputs={"sheet": json.dumps(asdict(sheet))},
            pdf_standards=["a-2u"],
        )
    except typst.TypstError as error:
        raise NotSet(f"the PDF cannot be set: {error.message}") from error
    assert isinstance(compiled, bytes)
    return compiled
