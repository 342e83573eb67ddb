"""What is wrong with a configuration, in words for whoever has to correct it: key, fault, what to do."""

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from shared.model_errors import plainly

PREFIX: Final = "COUNTERSIGN_"
"""Before the name of each environment variable that overrides a key."""
DELIMITER: Final = "__"
"""Between section and key in such a name."""

_REFERENCE: Final = "docs/configuration.md"

Keys = tuple[str | int, ...]
"""Where a value stands: section, section in it, key."""


class SettingsError(Exception):
    """The configuration cannot be used; the message names the file and each key."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    key: str
    """Dotted; empty when it is about the file as a whole."""
    wrong: str
    do: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.wrong}; {self.do}" if self.do else f"{where}{self.wrong}"


class FileRefused(SettingsError):
    """A configuration file says what cannot be meant."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        several = len(problems) > 1
        said = "".join(f"\n  {one}" for one in problems) if several else f" {problems[0]}"
        super().__init__(f"{path}:{said}")
        self.problems = tuple(problems)


def dotted(keys: Keys) -> str:
    """As one would say it."""
    return ".".join(str(part) for part in keys)


def variable(keys: Keys) -> str:
    """The environment variable that overrides this key."""
    return PREFIX + DELIMITER.join(str(part) for part in keys).upper()


def holds(values: object, keys: Keys) -> bool:
    """Whether there is something at this place."""
    for part in keys:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, Sequence) and not isinstance(values, str) and isinstance(part, int):
            if part >= len(values):
                return False
            values = values[part]
        else:
            return False
    return True


def problems_in(
    error: ValidationError,
    settings_class: type[BaseModel],
    file: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> list[Problem]:
    """Each fault that the models found, once."""
    found: dict[tuple[str, str], Problem] = {}
    for one in error.errors():
        keys = _stated(one["loc"], one["type"], (file, environment))
        problem = _problem(keys, one["type"], one["msg"], settings_class)
        if holds(environment, keys) and keys:
            problem = Problem(
                problem.key,
                problem.wrong,
                f"{problem.do} (the environment gives it: {variable(keys)})",
            )
        found.setdefault((problem.key, problem.wrong), problem)
    return list(found.values())


def _problem(keys: Keys, kind: str, said: str, settings_class: type[BaseModel]) -> Problem:
    key = dotted(keys)
    if kind == "missing":
        return Problem(key, plainly(kind, said), f"give it ({_REFERENCE} says what it is for)")
    if kind == "extra_forbidden":
        names = sorted(_names(settings_class, keys[:-1]))
        close = difflib.get_close_matches(str(keys[-1]), names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{_REFERENCE} lists those that there are"
        return Problem(key, plainly(kind, said), f"remove it, or correct its name: {hint}")
    return Problem(key, plainly(kind, said), "correct it")


def _stated(loc: Keys, kind: str, given: Sequence[Mapping[str, Any]]) -> Keys:
    """The place as the file has it: without the names that models of a choice bear in errors."""
    keys: Keys = ()
    for number, part in enumerate(loc, start=1):
        is_last = number == len(loc)
        if any(holds(one, (*keys, part)) for one in given) or (is_last and kind == "missing"):
            keys = (*keys, part)
    return keys


def _names(settings_class: type[BaseModel], keys: Keys) -> set[str]:
    """The keys of the section at this place."""
    models = [settings_class]
    for part in keys:
        annotations = [
            model.model_fields[str(part)].annotation
            for model in models
            if str(part) in model.model_fields
        ]
        # A part that names no field is a label of the reader's own: the models stay.
        models = [one for kind in annotations for one in models_in(kind)] or models
    return {name for model in models for name in model.model_fields}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotation, however it wraps them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in typing.get_args(annotation):
        yield from models_in(one)
