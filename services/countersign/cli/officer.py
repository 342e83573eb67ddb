"""Officer tokens: from a file that the agency's identity provider filled, or the development one."""

from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load
from countersign.cli.facts import UUID
from countersign.cli.output import json_option, print_json
from countersign.client import ClientSettings
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from shared.settings import SettingsError
from shared.signing import SigningKey
from shared.tokens import AUDIENCE

TOKEN_BYTES_MAX: Final = 8192
"""The broker takes no longer ones."""


def officer_options(command: Any) -> Any:
    """Adds the ways to say who asks."""
    options = (
        click.option(
            "--officer",
            metavar="ID",
            help="Officer for whom the development identity provider issues a token. Trials only.",
        ),
        click.option(
            "--officer-token",
            "token_file",
            type=click.File(),
            metavar="FILE",
            help="File with the officer's token, bound to the search id; - for standard input.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def token_for(
    settings: ClientSettings,
    search_id: str,
    officer: str | None,
    token_file: Any,
    audience: str = AUDIENCE,
) -> str:
    """The officer's token for this search, or for this request of the ledger."""
    if (officer is None) == (token_file is None):
        raise click.UsageError("say who asks: either --officer-token FILE or --officer ID")
    if token_file is not None:
        return str(token_file.read(TOKEN_BYTES_MAX + 1)).strip()
    return provider_of(settings).token(str(officer), search_id, audience=audience)


def provider_of(settings: ClientSettings) -> DevelopmentIdentityProvider:
    """The identity provider that the configuration has the key of; raises SettingsError without one."""
    provider = settings.identity_provider
    if provider is None:
        raise SettingsError(
            "the configuration file has no [identity_provider]: officers bring a token of their "
            "agency's own provider (--officer-token)"
        )
    return DevelopmentIdentityProvider(provider.issuer, SigningKey.load(provider.signing_key))


@click.group()
def officer() -> None:
    """Have officer tokens issued, for trying things out."""


@officer.command()
@config_option
@click.option("--officer", "who", required=True, metavar="ID", help="The officer's identifier.")
@click.option(
    "--search-id",
    type=UUID,
    required=True,
    metavar="UUID",
    help="The search that it is good for.",
)
@json_option
def token(config: Path, who: str, search_id: str, as_json: bool) -> None:
    """Print a token of the development identity provider, good for five minutes and one search.

    \b
    Example:
      countersign officer token --officer lapd-40123 --search-id "$(uuidgen)"
    """
    issued = provider_of(load(config)).token(who, search_id)
    if as_json:
        print_json({"officer": who, "search_id": search_id, "token": issued})
    else:
        click.echo(issued)
