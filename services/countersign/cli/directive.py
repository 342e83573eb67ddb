"""`countersign directive`: what each party has ordered, and whether a directive does what it says."""

from pathlib import Path

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.directive_author import diff, init, sign
from countersign.cli.directive_local import lint, test
from countersign.cli.directive_publish import publish, withdraw
from countersign.cli.directive_render import render
from countersign.cli.directive_replay import replay
from countersign.cli.directive_view import print_directive, print_list
from countersign.cli.output import json_option, out, print_json
from countersign.client import ClientSettings
from countersign.client.documents import DirectiveClient
from countersign.policy.v1 import policy_pb2 as pb
from shared.entry_json import message_dict


@click.group()
def directive() -> None:
    """Read what each party has ordered, and test directives before they are put in force."""


@directive.command(name="list")
@config_option
@click.option("--party", default="", help="Only this party's: an ORI, or a jurisdiction (US-CA).")
@json_option
def list_directives(config: Path, party: str, as_json: bool) -> None:
    """List the directives that the policy service has loaded.

    \b
    Example:
      countersign directive list --party CA0194200
    """
    found = run(_list(load(config), party))
    if as_json:
        print_json({"directives": [message_dict(one) for one in found]})
        return
    print_list(out(), found)


@directive.command()
@click.argument("name")
@config_option
@json_option
@click.option("--rules", "as_written", is_flag=True, help="Print the rules as written (Cedar).")
def show(name: str, config: Path, as_json: bool, as_written: bool) -> None:
    """Show one directive: its source, and each rule with its citation.

    \b
    Example:
      countersign directive show lapd-2020-11-13
    """
    response = run(_show(load(config), name))
    if as_json:
        print_json(message_dict(response))
    elif as_written:
        click.echo(response.rules, nl=False)
    else:
        print_directive(out(), response)


for command in (init, lint, test, sign, publish, withdraw, diff, render, replay):
    directive.add_command(command)


async def _list(settings: ClientSettings, party: str) -> list[pb.Directive]:
    async with DirectiveClient.connect(settings.policy.address, settings.tls) as client:
        return await client.list(party)


async def _show(settings: ClientSettings, name: str) -> pb.GetDirectiveResponse:
    async with DirectiveClient.connect(settings.policy.address, settings.tls) as client:
        return await client.get(name)
