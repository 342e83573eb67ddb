"""`countersign ledger export-table`, `verify-export-table` and `verify-periods`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.ledger_export import judged_receipt
from countersign.cli.ledger_files import failure_text, with_any_key
from countersign.cli.ledger_keys import given, trusted
from countersign.cli.ledger_query import filter_of, filter_options, say_who_asks
from countersign.cli.ledger_trust import trust_options, witnessed_options
from countersign.cli.output import (
    OK,
    REFUSED,
    bar,
    cells,
    json_option,
    out,
    print_json,
)
from countersign.client import ClientSettings, VerificationError
from countersign.client.ledger import LedgerClient
from countersign.client.ledger_query import LedgerQueryClient
from countersign.client.periods import closings_in, verify_periods
from countersign.client.table_export import Cosigned, TableExport, require_asked
from countersign.client.table_verify import VerifiedTable, verify_table
from countersign.client.tables import FORMATS
from countersign.ledger.v1 import event_pb2
from countersign.ledger.v1 import query_pb2 as pb
from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.cosignature import LogVerifier
from tlog.folder import (
    checkpoint_document,
    cosigned_text,
    entries_in_folder,
    judged_document,
    verify_folder,
)
from tlog.merkle import Frontier, leaf_hash
from tlog.policy import Policy
from tlog.tiles import CHECKPOINT_FILE
from tlog.verify import NotVerified

_FORMATS: Final = {
    "jsonl": event_pb2.EXPORT_FORMAT_JSON_LINES,
    "csv": event_pb2.EXPORT_FORMAT_CSV,
    "parquet": event_pb2.EXPORT_FORMAT_PARQUET,
}


@click.command(name="export-table")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True,
    help="Form of the table.",
)  # fmt: skip
@witnessed_options(
    "Have it rest on a checkpoint that a quorum of witnesses has cosigned. Fails when there is none in time; "
    "what is written then rests on the ledger's signature alone."
)
@config_option
@json_option
@filter_options
def export_table(
    directory: Path,
    form: str,
    witnessed: bool,
    wait_s: int,
    policy_file: Path | None,
    config: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Write what a query finds into DIRECTORY as a table, with a proof of every row.

    That you exported, and by what query, is itself put on record, before any row leaves the ledger. The
    directory has a manifest and all that `verify-export-table` needs to verify it without a server. Bounds
    that are not in the rows themselves (--end-state and --obligation-state) are as of the size it names.

    \b
    Examples:
      countersign ledger export-table report --agency CA0194200 --role origin --format parquet
      countersign ledger verify-export-table report --key ledger.vkey
      countersign ledger export-table report --witnessed --policy ledger.policy
      countersign ledger verify-export-table report --policy ledger.policy
    """
    if policy_file is not None and not witnessed:
        raise click.UsageError("--policy goes with --witnessed")
    if directory.exists() and any(directory.iterdir()):
        raise click.UsageError(f"{directory} is not empty")
    authority = options["authority"]
    request = pb.ExportEntriesRequest(
        filter=filter_of(options), format=_FORMATS[form], authority=authority
    )
    settings = load(config)
    say_who_asks(request.filter, settings, options)
    own = None if policy_file is None else given((), policy_file, config)
    wait = wait_s if witnessed else None
    manifest = run(_export(settings, TableExport(directory, form), request, wait, own))
    found = verify_table(directory, own or Policy.of_logs(trusted(settings)))
    require_asked(manifest, request.filter)
    if as_json:
        print_json(manifest | {"directory": str(directory), "export_index": found.export_index})
        return
    path = cells(directory)[0]
    out().print(f"Exported {found.rows} rows to {path}; on record as entry {found.export_index}")
    out().print(f"VERIFIED: {_says(found)}", soft_wrap=True)


async def _export(
    settings: ClientSettings,
    writing: TableExport,
    request: pb.ExportEntriesRequest,
    wait_s: int | None,
    policy: Policy | None,
) -> dict[str, Any]:
    async with LedgerQueryClient.connect(settings) as client:
        beginning = await writing.write(client.export(request))
    # Whole without witnesses too, and on record: their absence is no reason to lose it.
    manifest = writing.finish(beginning)
    if wait_s is None:
        return manifest
    async with LedgerClient.connect(settings) as reading:
        checkpoint = with_any_key(
            trusted(settings), lambda key: open_checkpoint(beginning.checkpoint, key)
        )
        cosigned = await _cosigned(reading, beginning, checkpoint, wait_s, policy)
    return writing.finish(beginning, cosigned)


async def _cosigned(
    client: LedgerClient,
    beginning: pb.ExportBeginning,
    first: Checkpoint,
    wait_s: int,
    policy: Policy | None,
) -> Cosigned:
    """A checkpoint with its quorum that has all entries of the first; raises VerificationError."""
    # The first tree's last entry is waited for; the receipt wanted is in the same tree or a larger one.
    _, lacking = judged_receipt(await client.receipt(first.size - 1, wait_s), policy)
    response = await client.receipt(beginning.export_made.record.index, 0)
    note, now_lacking = judged_receipt(response, policy)
    if lacking or now_lacking:
        raise VerificationError(
            "QUORUM_MISSING",
            "what was written rests on the ledger's signature alone; no quorum of witnesses has cosigned it: "
            f"{lacking or now_lacking}",
        )
    consistency = await client.consistency_proof(first.size, response.tree_size)
    return Cosigned(note, consistency, response.receipt.tlog_proof)


@click.command(name="verify-export-table")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@trust_options
@json_option
def verify_export_table(
    folder: Path, keys: Sequence[str], policy_file: Path | None, config: Path | None, as_json: bool
) -> int:
    """Verify an exported table in FOLDER, offline.

    Every file is what the manifest says, every row is what its entry says, and every entry is in the tree
    that the ledger signed, and that witnesses have cosigned where a --policy asks for them. Where the query
    asks for whole periods, the rows are counted against the ledger's own totals, so that an entry left out
    is noticed. Exits 0 when all of it holds and 1 when something does not.

    \b
    Example:
      countersign ledger verify-export-table report --policy ledger.policy
    """
    policy = given(keys, policy_file, config)
    try:
        with bar("verifying") as progress:
            found = verify_table(folder, policy, progress)
    except VerificationError as error:
        return _failed(folder, error, as_json)
    if as_json:
        says = {"rows": found.rows, "tree_size": found.tree_size, "complete": found.complete}
        document = {"path": str(folder), "verified": True, "export_index": found.export_index}
        print_json(document | says | judged_document(found.judged))
        return OK
    out().print(f"[green]VERIFIED[/] {cells(folder)[0]}: {_says(found)}", soft_wrap=True)
    return OK


def _says(found: VerifiedTable) -> str:
    witnesses = cosigned_text(found.judged)
    return f"{found.rows} rows are what the ledger signed{witnesses}; {found.complete}"


def _failed(path: object, error: VerificationError, as_json: bool) -> int:
    if as_json:
        print_json(
            {"path": str(path), "verified": False, "reason": error.reason, "says": str(error)}
        )
    else:
        (says,) = cells(failure_text(error, path))
        out().print(f"[bold red]FAILED:[/] {says}", soft_wrap=True)
    return REFUSED


@click.command(name="verify-periods")
@click.argument(
    "folder", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True)
)
@click.option("--server", is_flag=True, help="Read the entries from the ledger instead.")
@trust_options
@json_option
def verify_periods_command(
    folder: Path | None,
    server: bool,
    keys: Sequence[str],
    policy_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Count every closed period again from the entries of an export in FOLDER, or with --server.

    A period that the ledger closed says how many entries of each kind each agency has in it, and which
    searches were open at its end. Here all of it is counted anew, and the entries are verified first.

    \b
    Examples:
      countersign ledger verify-periods copy --key ledger.vkey
      countersign ledger verify-periods --server
    """
    if (folder is None) == (not server):
        raise click.UsageError("give a FOLDER with an export, or --server")
    try:
        if folder is not None:
            checkpoint, leaves = _of_folder(folder, given(keys, policy_file, config))
        else:
            if config is None:
                raise click.UsageError("--server needs a --config")
            settings = load(config)
            checkpoint, leaves = run(_of_server(settings, trusted(settings)))
        closings = closings_in(enumerate(leaves()))
        verify_periods(leaves(), closings)
    except VerificationError as error:
        return _failed(folder or "server", error, as_json)
    except NotVerified as error:
        return _failed(folder, VerificationError("NOT_VERIFIED", str(error)), as_json)
    end = closings[-1].end_index if closings else 0
    if as_json:
        says = {"verified": True, "periods": len(closings), "closed_until": end}
        print_json(says | checkpoint_document(checkpoint))
        return OK
    out().print(
        f"[green]VERIFIED[/] {len(closings)} periods count entries 0 to {end - 1} as they are; "
        f"{checkpoint.size - end} later ones are in no closed period yet"
        if closings
        else f"[green]VERIFIED[/] no period is closed; the ledger has {checkpoint.size} entries",
        soft_wrap=True,
    )
    return OK


def _of_folder(folder: Path, policy: Policy) -> tuple[Checkpoint, Any]:
    with bar("verifying") as progress:
        found = verify_folder(folder, policy, progress)
    return found.checkpoint, lambda: entries_in_folder(folder, found)


async def _of_server(
    settings: ClientSettings, verifiers: Sequence[LogVerifier]
) -> tuple[Checkpoint, Any]:
    async with LedgerClient.connect(settings) as client:
        note = (await client.checkpoint()).checkpoint
        checkpoint = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        kept: list[bytes] = []
        frontier = Frontier()
        async for leaf in client.leaves():
            if len(kept) == checkpoint.size:
                break
            kept.append(leaf)
            frontier.append(leaf_hash(leaf))
    if frontier.root() != checkpoint.root:
        raise VerificationError(
            "NOT_AS_SIGNED",
            f"{CHECKPOINT_FILE}: the entries received are not those that were signed",
        )
    return checkpoint, lambda: iter(kept)
