"""The configuration file that says who one is and where the servers are, and calls with it."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from opentelemetry.trace import SpanKind

from countersign.client import ClientSettings
from shared import telemetry
from shared.settings import SettingsError, TelemetrySettings

CONFIG_VARIABLE: Final = "COUNTERSIGN_CONFIG"
OFF: Final = TelemetrySettings()
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "ledger": (),
    "expunge": (),
    "officer": (),
    "directive": ("policy",),
    "registry": ("policy",),
    "vocabulary": ("policy",),
    "reconcile": (),
    "search explain": (),
    "directive replay": (),
    "registry list": (),
}
"""What a group of commands, or one of them, needs of the file. Others ask for searches."""
NEEDED_BY_OTHERS: Final = ("agency", "broker")

Result = TypeVar("Result")


class ConfigOption(click.Option):
    """--config, which says where such a file comes from when there is none."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """As of any option."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            raise click.MissingParameter(
                f"Name it with --config or in {CONFIG_VARIABLE}. `countersign up` writes one for each "
                "agency, and one for oversight, in the clients folder of its data directory "
                "(.countersign/clients).",
                ctx,
                param=self,
            ) from None


def config_option(command: Any) -> Any:
    """Adds --config, which may also come from the environment."""
    return click.option(
        "--config",
        "config",
        cls=ConfigOption,
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=CONFIG_VARIABLE,
        required=True,
        show_envvar=True,
        help="Configuration file of the agency system or oversight body.",
    )(command)


def load(config: Path) -> ClientSettings:
    """Reads the configuration file; raises SettingsError."""
    settings = ClientSettings.load(config)
    context = click.get_current_context(silent=True)
    if context:
        group = context.parent.info_name if context.parent else None
        of_group = NEEDED.get(group or "", NEEDED_BY_OTHERS)
        try:
            settings.need(*NEEDED.get(f"{group} {context.info_name}", of_group))
        except SettingsError as error:
            raise SettingsError(f"{config}: {error}") from error
        context.obj = settings
    return settings


def run(call: Coroutine[Any, Any, Result]) -> Result:
    """Runs one asynchronous call to its end, within a trace if the configuration asks for one."""
    context = click.get_current_context(silent=True)
    name = context.command_path.replace(" ", ".") if context else "countersign"
    settings = context.find_object(ClientSettings) if context else None
    chosen = settings.telemetry if settings else OFF
    # Nobody fetches metrics of what ends in a second, and the services' address may be in the environment.
    chosen = chosen.model_copy(update={"scrape": None})
    started = telemetry.start("countersign-cli", chosen, sys.stderr)  # results are on the other
    try:
        return asyncio.run(_traced(name, call))
    finally:
        started.stop()


async def _traced(name: str, call: Coroutine[Any, Any, Result]) -> Result:
    with telemetry.span(name, SpanKind.INTERNAL):
        return await call
