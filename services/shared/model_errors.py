"""What a strict model finds wrong, in words for whoever wrote the file and not for a programmer."""

from typing import Final

from pydantic import ValidationError

_PLAIN: Final = {"missing": "is missing", "extra_forbidden": "there is no such key"}
_NAMED: Final = 10
_OURS: Final = "Value error, "
"""Before a message that a model's own check gave."""


def plainly(kind: str, said: str) -> str:
    """An error's type and message in plain words."""
    if said.startswith(_OURS):
        return said.removeprefix(_OURS)
    words = said.removeprefix("Input ")
    return _PLAIN.get(kind) or words[:1].lower() + words[1:]


def problems_of(error: ValidationError) -> str:
    """What a strict document has wrong, and where; not what stands there: it may be about a person."""
    found = error.errors(include_input=False, include_url=False)
    said = [_problem(one["loc"], plainly(one["type"], one["msg"])) for one in found[:_NAMED]]
    if len(found) > _NAMED:
        said.append(f"and {len(found) - _NAMED} more")
    return "; ".join(said)


def _problem(place: tuple[str | int, ...], wrong: str) -> str:
    return f"{'.'.join(map(str, place))}: {wrong}" if place else wrong
