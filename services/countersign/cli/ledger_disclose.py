"""`countersign ledger disclose` and `expunge`: what stands behind commitments, by right and on the record."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import UUID
from countersign.cli.ground import ground_of, ground_options
from countersign.cli.output import cells, json_option, out, print_json, table
from countersign.client import ClientSettings
from countersign.client.disclosure import DisclosureClient
from countersign.ledger.v1 import disclosure_pb2 as pb
from shared.entry_json import message_dict


@click.command()
@click.argument("index", type=click.IntRange(0))
@click.option(
    "--field",
    "fields",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Sensitive field of the entry, such as officer; may be given several times.",
)
@ground_options
@config_option
@json_option
def disclose(
    index: int, fields: tuple[str, ...], config: Path, as_json: bool, **chosen: Any
) -> None:
    """Show what stands behind commitments of entry INDEX. The reading is itself put on record.

    Each value is shown only if it opens the commitment in the entry, and only if the reading is on record.

    \b
    Example:
      countersign ledger disclose 7 --field officer --authority "LA City Charter s. 573" \\
          --reason "Audit of searches for other agencies"
    """
    settings = load(config)
    response = run(_disclose(settings, index, fields, ground_of(settings, chosen)))
    if as_json:
        print_json(
            {
                "index": index,
                "openings": [
                    {
                        "field": one.field,
                        "value": one.value,
                        "salt": b64encode(one.salt).decode(),
                    }
                    for one in response.openings
                ],
                "reading_index": response.reading_receipt.index,
            }
        )
        return
    rows = table("field", "value", title=f"Entry {index}", text={"value"})
    for one in response.openings:
        rows.add_row(*cells(one.field, one.value))
    out().print(rows)
    out().print(
        f"VERIFIED: they open commitments of entry {index}; this reading is entry "
        f"{response.reading_receipt.index}"
    )


async def _disclose(
    settings: ClientSettings, index: int, fields: Sequence[str], ground: pb.Ground
) -> pb.DiscloseResponse:
    async with DisclosureClient.connect(settings) as client:
        return await client.disclose(index, fields, ground)


@click.group()
def expunge() -> None:
    """Have openings destroyed for good: asked for by one person, approved or declined by another."""


@expunge.command()
@click.argument("indexes", type=click.IntRange(0), nargs=-1, metavar="INDEX...")
@click.option(
    "--search", "search_id", type=UUID, metavar="UUID", help="All entries of this search."
)
@ground_options
@config_option
@json_option
def request(
    indexes: tuple[int, ...],
    search_id: str | None,
    config: Path,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Ask that the openings of the entries INDEX... be destroyed. Nothing is, until another approves.

    \b
    Example:
      countersign ledger expunge request 7 --authority "Cal. Penal Code s. 851.91" --reason "Sealed arrest"
    """
    if bool(indexes) == bool(search_id):
        raise click.UsageError("name either entries or --search")
    settings = load(config)
    ground = ground_of(settings, chosen)
    response = run(_request(settings, indexes, (search_id or "").lower(), ground))
    _say(response.request, as_json)


async def _request(
    settings: ClientSettings, indexes: Sequence[int], search_id: str, ground: pb.Ground
) -> pb.RequestExpungeResponse:
    async with DisclosureClient.connect(settings) as client:
        return await client.request_expunge(indexes, search_id, ground)


@expunge.command()
@click.argument("requested_index", type=click.IntRange(0), metavar="REQUEST")
@ground_options
@config_option
@json_option
def approve(requested_index: int, config: Path, as_json: bool, **chosen: Any) -> None:
    """Approve request REQUEST (the index of its entry). The openings are destroyed, for good.

    \b
    Example:
      countersign ledger expunge approve 9 --authority "Cal. Penal Code s. 851.91" --reason "As ordered"
    """
    settings = load(config)
    response = run(_approve(settings, requested_index, ground_of(settings, chosen)))
    _say(response.request, as_json)
    if not as_json:
        out().print(f"{response.openings_destroyed} openings destroyed")


async def _approve(
    settings: ClientSettings, requested_index: int, ground: pb.Ground
) -> pb.ApproveExpungeResponse:
    async with DisclosureClient.connect(settings) as client:
        return await client.approve_expunge(requested_index, ground)


@expunge.command()
@click.argument("requested_index", type=click.IntRange(0), metavar="REQUEST")
@ground_options
@config_option
@json_option
def decline(requested_index: int, config: Path, as_json: bool, **chosen: Any) -> None:
    """Decline request REQUEST (the index of its entry), or take your own back. The openings stay.

    It cannot be approved any more; whoever still wants it makes a new request.

    \b
    Example:
      countersign ledger expunge decline 9 --authority "Cal. Gov. Code s. 34090" \\
          --reason "The records are evidence in a case that is pending"
    """
    settings = load(config)
    response = run(_decline(settings, requested_index, ground_of(settings, chosen)))
    _say(response.request, as_json)


async def _decline(
    settings: ClientSettings, requested_index: int, ground: pb.Ground
) -> pb.DeclineExpungeResponse:
    async with DisclosureClient.connect(settings) as client:
        return await client.decline_expunge(requested_index, ground)


@expunge.command(name="list")
@config_option
@json_option
def list_requests(config: Path, as_json: bool) -> None:
    """List the requests that concern openings which you may have destroyed, newest first.

    \b
    Example:
      countersign ledger expunge list
    """
    found = run(_list(load(config)))
    if as_json:
        print_json({"requests": [message_dict(one) for one in found]})
        return
    if not found:
        out().print("No requests.")
        return
    rows = table("request", "state", "agency", "entries", "authority", text={"authority"})
    for one in found:
        rows.add_row(*_cells(one))
    out().print(rows)


async def _list(settings: ClientSettings) -> list[pb.ExpungeRequest]:
    async with DisclosureClient.connect(settings) as client:
        return await client.expunge_requests()


def _state(one: pb.ExpungeRequest) -> str:
    return pb.ExpungeState.Name(one.state).removeprefix("EXPUNGE_STATE_")


def _cells(one: pb.ExpungeRequest) -> list[str]:
    entries = ", ".join(map(str, one.indexes))
    return cells(one.requested_index, _state(one), one.origin_agency, entries, one.authority)


def _say(one: pb.ExpungeRequest, as_json: bool) -> None:
    if as_json:
        print_json({"request": message_dict(one)})
        return
    entries = ", ".join(map(str, one.indexes))
    out().print(f"Request {one.requested_index}: {_state(one)} (entries {entries})")
