"""`countersign ledger`: read the record, and verify it without trusting anyone."""

from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import ORI, UUID
from countersign.cli.ledger_count_openings import count_openings
from countersign.cli.ledger_disclose import disclose, expunge
from countersign.cli.ledger_export import export
from countersign.cli.ledger_files import (
    with_any_key,
)
from countersign.cli.ledger_keys import trusted
from countersign.cli.ledger_kinds import KIND
from countersign.cli.ledger_mirror import mirror
from countersign.cli.ledger_monitor import evidence, monitor
from countersign.cli.ledger_prove import entry_and_proof, prove, verified
from countersign.cli.ledger_query import count, query
from countersign.cli.ledger_reconcile import reconcile
from countersign.cli.ledger_shopping import shopping
from countersign.cli.ledger_table import export_table, verify_export_table, verify_periods_command
from countersign.cli.ledger_verify import verify
from countersign.cli.ledger_view import checkpoint_dict, entry_rows, show_entry
from countersign.cli.output import (
    cells,
    err,
    json_option,
    out,
    print_json,
)
from countersign.client import ClientSettings
from countersign.client.ledger import PAGE_SIZE, LedgerClient
from countersign.ledger.v1 import ledger_pb2 as pb
from shared.entry_json import message_dict
from shared.kinds import kind_name
from tlog.checkpoint import open_checkpoint
from tlog.merkle import leaf_hash

LIST_DEFAULT: Final = 50


@click.group()
def ledger() -> None:
    """Read the record, and verify it without trusting anyone.

    What is read from the server is verified with the keys in your own trust roots. `verify` needs no
    server at all.
    """


@ledger.command(name="list")
@config_option
@json_option
@click.option("--search", "search_id", type=UUID, metavar="UUID", help="Only of this search.")
@click.option(
    "--kind", type=KIND, metavar="KIND", help="Only entries of this kind, by name or number."
)
@click.option("--agency", type=ORI, metavar="ORI", help="Only of this origin agency.")
@click.option("--start", type=click.IntRange(0), default=0, help="First index wanted.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=LIST_DEFAULT, show_default=True,
    help="How many at most.",
)  # fmt: skip
def list_entries(
    config: Path,
    as_json: bool,
    search_id: str | None,
    kind: str | None,
    agency: str | None,
    start: int,
    limit: int,
) -> None:
    """List entries by index.

    \b
    Examples:
      countersign ledger list
      countersign ledger list --kind search_decided --agency CA0194200 --json
    """
    wanted = pb.ListEntriesRequest(
        page_size=min(limit, PAGE_SIZE),
        start_index=start,
        search_id=search_id or "",
        kind=kind or "",
        origin_agency=agency or "",
    )
    records, more = run(_list(load(config), wanted, limit))
    if as_json:
        print_json({"entries": [_record_dict(one) for one in records], "more": more})
        return
    out().print(entry_rows(records) if records else "No entries.")
    if more:
        err().print(f"There are more: --start {records[-1].index + 1}")


async def _list(
    settings: ClientSettings, wanted: pb.ListEntriesRequest, limit: int
) -> tuple[list[pb.EntryRecord], bool]:
    records: list[pb.EntryRecord] = []
    async with LedgerClient.connect(settings) as client:
        async for record in client.entries(wanted):
            if len(records) == limit:
                return records, True
            records.append(record)
    return records, False


@ledger.command()
@click.argument("index", type=click.IntRange(0))
@config_option
@json_option
def show(index: int, config: Path, as_json: bool) -> None:
    """Show entry INDEX with all that it says.

    The entry is shown only if it is in the tree that the ledger signed.

    \b
    Example:
      countersign ledger show 7
    """
    settings = load(config)
    record, proof = run(entry_and_proof(settings, index, 0))
    checkpoint = verified(index, record, proof, trusted(settings))
    if as_json:
        document = _record_dict(record) | {"verified": checkpoint}
        print_json(document)
        return
    out().print(show_entry(record))
    out().print(f"VERIFIED: entry {index} is in the tree of size {checkpoint['size']}")


@ledger.command()
@config_option
@json_option
def checkpoint(config: Path, as_json: bool) -> None:
    """Show the newest signed checkpoint, verified with the keys in the trust roots.

    \b
    Example:
      countersign ledger checkpoint
    """
    settings = load(config)
    response = run(_checkpoint(settings))
    note = response.checkpoint
    opened = with_any_key(trusted(settings), lambda key: open_checkpoint(note, key))
    if as_json:
        print_json(checkpoint_dict(opened) | {"checkpoint": note})
        return
    click.echo(note, nl=False)
    # Not among the results: redirected to a file, they are exactly the checkpoint.
    err().print(f"VERIFIED: {opened.size} entries, signed by {cells(opened.origin)[0]}")


async def _checkpoint(settings: ClientSettings) -> pb.GetCheckpointResponse:
    async with LedgerClient.connect(settings) as client:
        return await client.checkpoint()


def _record_dict(record: pb.EntryRecord) -> dict[str, Any]:
    return {
        "index": record.index,
        "leaf_hash": b64encode(leaf_hash(record.leaf)).decode(),
        "leaf": b64encode(record.leaf).decode(),
        "kind": kind_name(record.entry),
        "entry": message_dict(record.entry),
    }


ledger.add_command(prove)
ledger.add_command(export)
ledger.add_command(verify)
ledger.add_command(reconcile)
ledger.add_command(mirror)
ledger.add_command(monitor)
ledger.add_command(evidence)
ledger.add_command(query)
ledger.add_command(count)
ledger.add_command(count_openings)
ledger.add_command(shopping)
ledger.add_command(export_table)
ledger.add_command(verify_export_table)
ledger.add_command(verify_periods_command)
ledger.add_command(disclose)
ledger.add_command(expunge)
