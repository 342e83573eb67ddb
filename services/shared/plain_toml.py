"""TOML as people write it: on a key of many parts the parser takes time with the square of their number.

A line of 40 kB kept it busy for seconds. A key ends on the line on which it begins, so no key has more
parts than its line has dots.
"""

import tomllib
from typing import Any, Final

DOTS_MAX: Final = 1_000
"""In one line. A long list of statutes has some hundreds."""


def loads(text: str) -> dict[str, Any]:
    """The document; raises what `tomllib.loads` does, which lets ValueError and RecursionError through."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOTS_MAX:
            raise tomllib.TOMLDecodeError(
                f"more than {DOTS_MAX} dots in one line (at line {number}, column 1)"
            )
    return tomllib.loads(text)
