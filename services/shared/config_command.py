"""`countersign-<process> config check|show FILE`: a configuration is looked at, and nothing is started."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from shared.clock import SystemClock
from shared.config_check import Checks, look
from shared.config_show import in_force
from shared.settings import ProcessSettings
from shared.settings_problems import FileRefused, Problem

USABLE: Final = 0
NOT_USABLE: Final = 1

Settings = TypeVar("Settings", bound=ProcessSettings)


def run_config(
    process: str,
    settings_class: type[Settings],
    checks: Callable[[Settings], Checks],
    arguments: Sequence[str],
) -> int:
    """Exit codes: 0 the process would take it, 1 it would not, 2 the command was not understood."""
    parser = argparse.ArgumentParser(prog=f"countersign-{process} config")
    parser.add_argument("command", choices=("check", "show"))
    parser.add_argument("file", type=Path, help="configuration file (TOML)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    if given.command == "show":
        return _show(process, settings_class, given.file, as_json=given.json)
    found = look(settings_class, given.file, checks, SystemClock())
    if given.json:
        said = {
            **_head(process, given.file, found.problems),
            "paths": [
                {"key": one.key, "path": str(one.path), "kept": one.kept} for one in found.names
            ],
        }
        sys.stdout.write(f"{json.dumps(said, indent=2)}\n")
    elif found.problems:
        sys.stderr.write(f"{given.file}: countersign-{process} would not start\n")
        _complain(found.problems)
    else:
        sys.stdout.write(
            f"{given.file}: countersign-{process} would take it, and the {len(found.names)} files and "
            "folders that it names\n"
        )
    return NOT_USABLE if found.problems else USABLE


def _show(process: str, settings_class: type[ProcessSettings], file: Path, *, as_json: bool) -> int:
    try:
        settings = in_force(settings_class, file)
    except FileRefused as refused:
        if as_json:
            sys.stdout.write(f"{json.dumps(_head(process, file, refused.problems), indent=2)}\n")
        else:
            sys.stderr.write(f"{file}: countersign-{process} would not start\n")
            _complain(refused.problems)
        return NOT_USABLE
    if as_json:
        shown = [{"key": one.key, "value": one.value, "source": one.source} for one in settings]
        said = {**_head(process, file, ()), "settings": shown}
        sys.stdout.write(f"{json.dumps(said, indent=2)}\n")
    else:
        sys.stdout.write(f"# countersign-{process} with {file}\n")
        sys.stdout.write("".join(f"{one.line()}\n" for one in settings))
    return USABLE


def _head(process: str, file: Path, problems: Sequence[Problem]) -> dict[str, object]:
    return {
        "process": process,
        "file": str(file),
        "usable": not problems,
        "problems": [{"key": one.key, "wrong": one.wrong, "do": one.do} for one in problems],
    }


def _complain(problems: Sequence[Problem]) -> None:
    sys.stderr.write("".join(f"  {one}\n" for one in problems))
