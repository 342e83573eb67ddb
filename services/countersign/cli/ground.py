"""On what ground openings are asked for: options of every command that reads them."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import click

from countersign.cli.facts import UUID
from countersign.cli.officer import token_for
from countersign.client import ClientSettings
from countersign.ledger.v1 import disclosure_pb2 as pb
from shared.tokens import LEDGER_AUDIENCE


def ground_options(command: Any) -> Any:
    """Adds by what authority, why, and who."""
    options = (
        click.option(
            "--authority",
            required=True,
            metavar="CITATION",
            help="Statute or order, as it is cited. Public: no name, no case number.",
        ),
        click.option(
            "--reason",
            required=True,
            metavar="TEXT",
            help="Why. Only a commitment to it is public.",
        ),
        click.option(
            "--request-id",
            type=UUID,
            metavar="UUID",
            help="Id of this request; an officer token is issued for it. A new one when left out.",
        ),
        click.option(
            "--officer",
            metavar="ID",
            help="Of an agency: the officer for whom the development identity provider issues a token.",
        ),
        click.option(
            "--officer-token",
            "token_file",
            type=click.File(),
            metavar="FILE",
            help="Of an agency: file with the officer's token, issued for --request-id.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def ground_of(settings: ClientSettings, chosen: Mapping[str, Any]) -> pb.Ground:
    """The ground of a request, from what those options gave."""
    request_id = str(chosen["request_id"] or uuid4()).lower()
    token = ""
    if settings.agency:
        token = token_for(
            settings, request_id, chosen["officer"], chosen["token_file"], LEDGER_AUDIENCE
        )
    elif chosen["officer"] is not None or chosen["token_file"] is not None:
        raise click.UsageError("an oversight body's certificate says who asks; it has no officers")
    return pb.Ground(
        request_id=request_id,
        authority=chosen["authority"],
        reason=chosen["reason"],
        officer_token=token,
    )
