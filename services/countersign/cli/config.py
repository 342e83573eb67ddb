"""`countersign config`: a configuration is looked at by the program that would run with it."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import click

from countersign.cli.output import json_option
from countersign.client import ClientSettings
from countersign.client.config_checks import checks
from shared.config_command import run_config
from shared.settings import SettingsError

CLIENT: Final = "client"
PROCESSES: Final = ("broker", "policy", "ledger", "connector", "witness", CLIENT)
TELLING: Final = {
    "order_signing_key": "broker",
    "signing_keys": "ledger",
    "probe_opening_key": "connector",
    "logs": "witness",
    "ledger": CLIENT,
    "vocabulary": "policy",
    "directives": "policy",
}
"""Keys that one process must have, in the order in which they are looked for."""

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_for = click.option(
    "--for",
    "process",
    type=click.Choice(PROCESSES),
    help="Whose configuration it is; found out from its keys when left out.",
)


@click.group()
def config() -> None:
    """Check a process's configuration, or show what is in force, and start nothing.

    Environment variables (COUNTERSIGN_...) count as they would for the process, and so does who calls: files
    must be readable by the user that the process runs as.
    """


@config.command("check")
@_file
@_for
@json_option
def check(file: Path, process: str | None, as_json: bool) -> int:
    """See whether the process would take this file, and all that it names.

    Exit codes: 0 it would, 1 it would not, 2 the command was not understood.

    \b
    Example:
      countersign config check /etc/countersign/broker.toml
      countersign config check agency.toml --for client --json
    """
    return _asked("check", file, process, as_json=as_json)


@config.command("show")
@_file
@_for
@json_option
def show(file: Path, process: str | None, as_json: bool) -> int:
    """Print every setting that is in force, and where it comes from.

    Each line is TOML, with `file`, `default` or the environment variable behind it. Of keys and passwords
    the paths are shown and nothing else.

    \b
    Example:
      countersign config show /etc/countersign/ledger.toml
    """
    return _asked("show", file, process, as_json=as_json)


def _asked(command: str, file: Path, process: str | None, *, as_json: bool) -> int:
    process = process or whose(file)
    arguments = [command, str(file), *(["--json"] if as_json else [])]
    if process == CLIENT:
        return run_config(CLIENT, ClientSettings, checks, arguments)
    # The program itself says what it would take. -P: a folder named "policy" where this is called must not
    # be taken for ours.
    command_line = [sys.executable, "-P", "-m", process, "config", *arguments]
    return subprocess.run(command_line, check=False).returncode  # noqa: S603


def whose(file: Path) -> str:
    """The process that a file is for, by its keys. Raises SettingsError when they do not tell."""
    try:
        keys = tomllib.loads(file.read_text(encoding="utf-8")).keys()
    except OSError as error:
        raise SettingsError(
            f"{file}: {error.strerror or error}; name a file that this user may read"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}; correct it: this is TOML") from error
    for key, process in TELLING.items():
        if key in keys:
            return process
    raise SettingsError(
        f"{file}: its keys do not tell whose configuration it is; say so with --for "
        f"{'|'.join(PROCESSES)}"
    )
