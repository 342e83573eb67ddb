"""Whom somebody who follows a log trusts, and where the log is: keys, a policy file, a configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from countersign.cli.connection import CONFIG_VARIABLE, load
from shared.settings import ProcessSettings

Command = TypeVar("Command", bound=Callable[..., Any])

URL_STARTS: Final = ("http://", "https://")
WAIT_S: Final = 5
"""A ledger asks its witnesses every second or so, and a witness answers within two."""
WAIT_S_MAX: Final = 30
"""As long as the ledger waits."""


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


def witnessed_options(helps: str) -> Callable[[Command], Command]:
    """Adds --witnessed, with this help, --wait and --policy: whether witnesses must have cosigned."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--policy",
                "policy_file",
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                metavar="FILE",
                help="With --witnessed, your own tlog-policy file in place of the ledger's word for what a "
                "quorum is.",
            ),
            click.option(
                "--wait",
                "wait_s",
                type=click.IntRange(0, WAIT_S_MAX),
                default=WAIT_S,
                show_default=True,
                metavar="SECONDS",
                help="With --witnessed, how long to wait at most for the newest entry to be cosigned.",
            ),
            click.option("--witnessed", is_flag=True, help=helps),
        ):
            command = option(command)
        return command

    return add


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
