"""Whom somebody who follows a log trusts, and where the log is: keys, a policy file, a configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from countersign.cli.connection import CONFIG_VARIABLE, load
from shared.settings import ProcessSettings

Command = TypeVar("Command", bound=Callable[..., Any])

URL_STARTS: Final = ("http://", "https://")


def trust_options(command: Command) -> Command:
    """Adds --key, --policy and --config: whose signatures count."""
    for option in (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            envvar=CONFIG_VARIABLE,
            show_envvar=True,
            help="Configuration file: its trust roots have the log's key, and it names the log's URL.",
        ),
        click.option(
            "--policy",
            "policy_file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            metavar="FILE",
            help="tlog-policy file: the log's keys, the witnesses, and the quorum that must have cosigned.",
        ),
        click.option(
            "--key",
            "keys",
            multiple=True,
            metavar="VKEY",
            help="The log's verifier key, as text or the name of a file with it.",
        ),
    ):
        command = option(command)
    return command


def url_of(url: str | None, config: Path | None) -> str:
    """Where the log is: as given, else as the configuration has it. Raises click.UsageError."""
    if url is None and config is not None:
        url = load(config).ledger.url or None
    if url is None:
        raise click.UsageError("give the log's URL, or a --config that has it (ledger.url)")
    if not url.startswith(URL_STARTS):
        raise click.UsageError(f"not a URL: {url}")
    return url


def process_settings() -> ProcessSettings:
    """Where telemetry goes, from the environment: these commands run for long, like a service."""
    return ProcessSettings()
