"""What a strict model finds wrong, in words for whoever wrote the file and not for a programmer."""

from typing import Final

_PLAIN: Final = {"missing": "is missing", "extra_forbidden": "there is no such key"}
_OURS: Final = "Value error, "
"""Before a message that a model's own check gave."""


def plainly(kind: str, said: str) -> str:
    """An error's type and message in plain words."""
    if said.startswith(_OURS):
        return said.removeprefix(_OURS)
    words = said.removeprefix("Input ")
    return _PLAIN.get(kind) or words[:1].lower() + words[1:]
