"""`countersign system`: the face-recognition systems and their galleries."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import word_of
from countersign.cli.output import cells, json_option, out, print_json, table
from countersign.cli.rows import Rows
from countersign.client import Client, ClientSettings
from countersign.type.v1.search_pb2 import GalleryClass
from shared.entry_json import message_dict
from shared.referral import keys_of
from shared.registry import TrustRoots

PAGES_MAX: Final = 50


@click.group()
def system() -> None:
    """See the systems that can be searched."""


@system.command(name="list")
@config_option
@json_option
def list_systems(config: Path, as_json: bool) -> None:
    """List systems, who runs them, and their galleries.

    The last column compares the system's key as the broker has it with the one in the own trust roots:
    probes are only ever sealed to the latter.

    \b
    Example:
      countersign system list
    """
    settings = load(config)
    systems, trust = run(_systems(settings))
    if as_json:
        print_json({"systems": [message_dict(one) for one in systems]})
        return
    if not systems:
        out().print("No systems.")
        return
    out().print(rows_of(systems, trust))


def rows_of(systems: Sequence[pb.System], trust: TrustRoots) -> Rows:
    """The systems and their galleries; where any is at a peer, with the peer's trust domain."""
    at_peers = any(one.peer for one in systems)
    rows = table(
        *("system", "name", "operator", "commercial", "gallery", "class", "owner", "key"),
        *(("at peer",) if at_peers else ()),
        text={"name"},
        below={"class": "gallery", "owner": "gallery", "operator": "name"},
    )
    for one in systems:
        head = (one.id, one.name, one.operator_agency, "yes" if one.commercial else "no")
        for number, gallery in enumerate(one.galleries or [pb.Gallery()]):
            kind = word_of(GalleryClass, gallery.gallery_class)
            rows.add_row(
                *cells(
                    *(head if number == 0 else ("", "", "", "")),
                    gallery.id,
                    kind,
                    gallery.owner_agency,
                    _key(one, trust) if number == 0 else "",
                    *((one.peer if number == 0 else "",) if at_peers else ()),
                )
            )
    return rows


async def _systems(settings: ClientSettings) -> tuple[list[pb.System], TrustRoots]:
    found: list[pb.System] = []
    async with Client.connect(settings) as client:
        token = ""
        for _ in range(PAGES_MAX):
            page = await client.systems(page_token=token)
            found += page.systems
            token = page.next_page_token
            if not token:
                break
        return found, client.trust


def _key(system: pb.System, trust: TrustRoots) -> str:
    keys = keys_of(trust, system.id)
    if keys is None:
        return "not in the trust roots"
    if keys.sealing_public_key != system.sealing_public_key:
        return f"DIFFERS ({b64encode(system.sealing_public_key).decode()[:12]}...)"
    return "as trusted"
