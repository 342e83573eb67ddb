"""Text of others as a terminal may have it: it says something, and commands nothing."""

import re
from typing import Final

from rich import markup

# Control characters but the tab and the line feed, with those of ISO 6429 that begin a command; and what
# orders letters anew, or breaks lines unseen.
_UNSEEN: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_COMMANDS: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_BEYOND_ASCII: Final = re.compile(f"[{_UNSEEN}]")


def without_commands(text: str) -> str:
    """Text that is printed as it is, of whoever's: it does not move the cursor."""
    return _COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text)


def escape_json(document: str) -> str:
    """A JSON document that says the same and commands nothing; it escapes the first 32 characters itself."""
    return _BEYOND_ASCII.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def escape(text: str) -> str:
    """Text that is neither read as markup nor moves the cursor: a ledger could write VERIFIED over FAILED."""
    return markup.escape(without_commands(text))
