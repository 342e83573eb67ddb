"""Writes docs/configuration.md: every setting of every process, from the settings' own models."""

import argparse
import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from broker.config import BrokerSettings
from connector.config import ConnectorSettings
from countersign.client.config import ClientSettings
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared import toml
from shared.config_check import is_kept
from shared.settings import (
    BusSettings,
    ListenSettings,
    ProbesSettings,
    ProcessSettings,
    TelemetrySettings,
    TlsFiles,
)
from shared.settings_problems import models_in
from witness.config import WitnessSettings

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
PROCESSES: Final[Mapping[str, type[ProcessSettings]]] = {
    "broker": BrokerSettings,
    "policy": PolicySettings,
    "ledger": LedgerSettings,
    "connector": ConnectorSettings,
    "witness": WitnessSettings,
    "client": ClientSettings,
}
SHARED: Final[Mapping[type[BaseModel], str]] = {
    TlsFiles: "tls",
    ListenSettings: "listen",
    BusSettings: "bus",
    ProbesSettings: "probes",
    TelemetrySettings: "telemetry",
}
"""Sections that several files have, described once."""
UNITS: Final = (
    ("_per_s", "calls per second"),
    ("_per_minute", "searches per minute"),
    ("_s_max", "seconds"),
    ("_s", "seconds"),
    ("_hours", "hours"),
    ("bytes_max", "bytes"),
    ("_mb_max", "MiB"),
    ("_px_min", "pixels"),
    ("false_match_rate", "share, 0 to 1"),
    ("threshold", "score of the system behind"),
    ("minimum", "score of the system behind"),
    ("maximum", "score of the system behind"),
)
"""By how a name ends."""

MARK: Final = (
    "<!-- Below this line everything is generated from the settings by `make configuration`. -->\n"
)
"""What stands above it on the page is written by hand."""


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field, in the model and those that it is made from."""
    said: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one.__module__.startswith("pydantic"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                said[field.target.id] = " ".join(str(below.value.value).split())
    return said


def choices(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, without None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(one for one in get_args(annotation) if one is not type(None))
    return (annotation,)


def kind(annotation: Any, *, kept: bool) -> str:
    """The type as one would say it."""
    said = []
    for whole in choices(annotation):
        one = get_args(whole)[0] if hasattr(whole, "__metadata__") else whole
        if len(choices(one)) > 1:
            said.append(kind(one, kept=kept))
        elif get_origin(one) is Literal:
            said.append(" or ".join(f"`{value}`" for value in get_args(one)))
        elif get_origin(one) is tuple:
            said.append(f"list of {kind(get_args(one)[0], kept=kept)}")
        elif (name := _plain(one, kept=kept)) is not None:
            said.append(name)
        else:
            said.append("section")
    return ", or ".join(dict.fromkeys(said))


def _plain(one: Any, *, kept: bool) -> str | None:
    names: dict[Any, str] = {
        str: "text",
        bool: "true or false",
        int: "whole number",
        float: "number",
        date: "day",
        timedelta: "duration",
        Path: "path, kept" if kept else "path, read",
    }
    return names.get(one)


def unit(name: str, annotation: Any) -> str:
    """What a number counts; raises ValueError when nobody could tell."""
    plain = {
        get_args(one)[0] if hasattr(one, "__metadata__") else one for one in choices(annotation)
    }
    if timedelta in plain:
        return "ISO 8601 (`PT15M`), or seconds"
    if not plain & {int, float}:
        return ""
    for ending, said in UNITS:
        if name.endswith(ending):
            return said
    if int in plain:
        return "how many"
    raise ValueError(f"{name}: name the unit at its end, or in {Path(__file__).name}")


def bounds(metadata: Sequence[Any]) -> str:
    """Its limits."""
    said = []
    for one in metadata:
        said += [
            f"{sign} {getattr(one, name)}"
            for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le"))
            if isinstance(one, annotated_types.BaseMetadata) and hasattr(one, name)
        ]
    return ", ".join(said)


def default(field: FieldInfo) -> str:
    """As one would write it."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, timedelta):
        return f"`{_duration(value)}`"
    if isinstance(value, Path):
        return f"`{value}`"
    return f"`{toml.value_text(value)}`"


def _duration(value: timedelta) -> str:
    hours, minutes = divmod(int(value.total_seconds()) // 60, 60)
    if hours % 24 == 0 and hours:
        return f"P{hours // 24}D"
    return f"PT{hours}H" if not minutes else f"PT{minutes + 60 * hours}M"


def rows(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """A row for each setting, the sections in it after it."""
    said = descriptions(model)
    for name, field in model.model_fields.items():
        sections = list(models_in(field.annotation))
        reason = said.get(name) or " ".join(_paragraph(one) for one in sections)
        if not reason:
            raise ValueError(f"{model.__name__}.{name} says nothing of its reason")
        key = f"{before}{name}"
        own = [one for one in sections if one not in SHARED]
        shared = [one for one in sections if one in SHARED]
        text = reason.replace("|", "\\|").replace("<", "&lt;")
        typed = kind(field.annotation, kept=is_kept(field))
        limits = ", ".join(
            one for one in (unit(name, field.annotation), bounds(field.metadata)) if one
        )
        if shared:
            typed = f"[section](#{SHARED[shared[0]]})"
        of = f"{typed}; {limits}" if limits else typed
        yield f"| `{key}` | {of} | {default(field)} | {text} |"
        label = ".<label>" if _is_mapping(field) else ""
        for section in own:
            yield from rows(section, f"{key}{label}.")


def _paragraph(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _is_mapping(field: FieldInfo) -> bool:
    origin = get_origin(field.annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def table(model: type[BaseModel]) -> str:
    """All settings of a file or section."""
    head = "| key | what it is | when left out | what for |\n|---|---|---|---|\n"
    return head + "".join(f"{row}\n" for row in rows(model))


def page(before: str) -> str:
    """The page with what follows from the settings as they are now."""
    by_hand, mark, _ = before.partition(MARK)
    parts = [by_hand, mark, "\n## Sections of several files\n\n"]
    for model, name in SHARED.items():
        parts.append(f"### {name}\n\n{inspect.getdoc(model)}\n\n{table(model)}\n")
    for process, model in PROCESSES.items():
        parts.append(f"## {process}.toml\n\n{inspect.getdoc(model)}\n\n{table(model)}\n")
    return "".join(parts).rstrip() + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=PAGE)
    output = parser.parse_args().output
    output.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
