"""The settings that are in force, each with where it comes from.

Keys and passwords stand in files of their own, of which only the paths are shown. What a URL may hold
before its host is hidden.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from shared import toml
from shared.settings import ProcessSettings
from shared.settings_problems import Keys, dotted, holds, variable

_USERINFO: Final = re.compile(r"(?<=://)\S+(?=@)")
"""Up to the last at sign: a password may have one too, or a slash."""
HIDDEN: Final = "hidden"


@dataclass(frozen=True)
class InForce:
    """One setting."""

    keys: Keys
    value: Any
    """As JSON has it; None when it is off."""
    source: str
    """`file`, `default`, or the environment variable."""

    @property
    def key(self) -> str:
        """Dotted."""
        return dotted(self.keys)

    def line(self) -> str:
        """A line of TOML: all lines together are a configuration that says the same."""
        if self.value is None:
            return f"# {self.key} is not given  ({self.source})"
        return f"{toml.line([str(part) for part in self.keys], self.value)}  # {self.source}"


def in_force(settings_class: type[ProcessSettings], path: Path) -> list[InForce]:
    """Every setting of a file; raises SettingsError."""
    settings = settings_class.load(path)
    file, environment = settings_class.given(path)
    return [
        InForce(keys, _without_secrets(value), _source(keys, file, environment))
        for keys, value in _values(settings, settings.model_dump(mode="json"), ())
    ]


def _values(value: object, dumped: Any, keys: Keys) -> Iterator[tuple[Keys, Any]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _values(getattr(value, name), dumped[name], (*keys, name))
    elif isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _values(one, dumped[name], (*keys, name))
    else:
        yield keys, dumped


def _source(keys: Keys, file: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    if holds(environment, keys):
        # A whole section may come as JSON in the variable of an outer key.
        names = (variable(keys[:length]) for length in range(len(keys), 0, -1))
        there = {name.upper() for name in os.environ}
        return next((name for name in names if name in there), "environment")
    return "file" if holds(file, keys) else "default"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _USERINFO.sub(HIDDEN, value)
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_secrets(one) for key, one in value.items() if one is not None}
    return value
