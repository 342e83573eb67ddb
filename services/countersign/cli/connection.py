"""The configuration file that says who one is and where the servers are, and calls with it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from opentelemetry.trace import SpanKind

from countersign.client import ClientSettings
from shared import telemetry
from shared.settings import TelemetrySettings

CONFIG_VARIABLE: Final = "COUNTERSIGN_CONFIG"
OFF: Final = TelemetrySettings()

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
    settings = ClientSettings.load(config)
    context = click.get_current_context(silent=True)
    if context:
        context.obj = settings
    return settings


def run(call: Coroutine[Any, Any, Result]) -> Result:
    """Runs one asynchronous call to its end, within a trace if the configuration asks for one."""
    context = click.get_current_context(silent=True)
    name = context.command_path.replace(" ", ".") if context else "countersign"
    settings = context.find_object(ClientSettings) if context else None
    started = telemetry.start("countersign-cli", settings.telemetry if settings else OFF)
    try:
        return asyncio.run(_traced(name, call))
    finally:
        started.stop()


async def _traced(name: str, call: Coroutine[Any, Any, Result]) -> Result:
    with telemetry.span(name, SpanKind.INTERNAL):
        return await call
