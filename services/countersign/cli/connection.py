"""The configuration file that says who one is and where the servers are, and calls with it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from countersign.client import ClientSettings

CONFIG_VARIABLE: Final = "COUNTERSIGN_CONFIG"

Result = TypeVar("Result")


def config_option(command: Any) -> Any:
    """Adds --config, which may also come from the environment."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=CONFIG_VARIABLE,
        required=True,
        show_envvar=True,
        help="Configuration file of the agency system (client.toml).",
    )(command)


def load(config: Path) -> ClientSettings:
    """Reads the configuration file; raises SettingsError."""
    return ClientSettings.load(config)


def run(call: Coroutine[Any, Any, Result]) -> Result:
    """Runs one asynchronous call to its end."""
    return asyncio.run(call)
