"""Writes into docs/promises.md which test files prove each promise, as the tests' markers say."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"

sys.path.insert(0, str(ROOT / "tests"))
from support.sources import marked_promises  # noqa: E402

SECTION = re.compile(r"(^## (\d)\..*?^Proved by: )[^\n]*$", re.MULTILINE | re.DOTALL)


def listing(files: set[str]) -> str:
    """The files as the page names them."""
    return ", ".join(f"`{name}`" for name in sorted(files)) + "." if files else "nothing yet."


def main() -> None:
    """Command line; takes no arguments."""
    proved = marked_promises()
    page = PAGE.read_text()
    PAGE.write_text(SECTION.sub(lambda one: one[1] + listing(proved.get(int(one[2]), set())), page))


if __name__ == "__main__":
    main()
