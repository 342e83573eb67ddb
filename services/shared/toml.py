"""Writes TOML. The standard library reads it only."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value]"
Table: TypeAlias = "Mapping[str, Value | Table]"


def render(table: Table, title: str) -> str:
    """The text of a file, with a comment at its top."""
    return f"# {title}\n" + "".join(_lines(table, ()))


def line(keys: Sequence[str], value: Value) -> str:
    """One value by its dotted key, which may stand before any section."""
    return f"{'.'.join(_key(part) for part in keys)} = {value_text(value)}"


def _lines(table: Table, path: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    inner: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner += _lines(value, (*path, key))
        else:
            lines.append(f"{_key(key)} = {value_text(value)}\n")
    if path and (lines or not inner):
        lines.insert(0, f"\n[{'.'.join(_key(part) for part in path)}]\n")
    return lines + inner


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _text(key)


def value_text(value: Value) -> str:
    """A value as it stands behind the equals sign."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {value_text(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    return f"[{', '.join(value_text(part) for part in value)}]"


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, and for characters that JSON would write as
    # two surrogates.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
