"""`countersign ledger export`: the whole ledger as files that anyone can verify offline."""

from collections.abc import Sequence
from pathlib import Path

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.ledger_files import (
    Export,
    failure_text,
    verify_folder,
    with_any_key,
)
from countersign.cli.ledger_keys import given, trusted
from countersign.cli.ledger_trust import witnessed_options
from countersign.cli.ledger_view import checkpoint_dict
from countersign.cli.output import bar, cells, json_option, out, print_json
from countersign.client import ClientSettings, VerificationError
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1 import ledger_pb2 as pb
from tlog.checkpoint import open_checkpoint
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.policy import Policy
from tlog.proof import TlogProof
from tlog.tiles import CHECKPOINT_FILE


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--replace", is_flag=True, help="Write anew what lies there, also when it does not verify."
)
@witnessed_options(
    "As far as the newest checkpoint that a quorum of witnesses has cosigned, which may be older than the "
    "ledger's newest. Fails when there is none."
)
@config_option
@json_option
def export(
    directory: Path,
    replace: bool,
    witnessed: bool,
    wait_s: int,
    policy_file: Path | None,
    config: Path,
    as_json: bool,
) -> None:
    """Copy the whole ledger into DIRECTORY as files that anyone can verify offline.

    A directory with an earlier export is brought up to date, provided that its files verify and that the
    ledger still shows the same history; otherwise nothing in it is changed and the command fails.

    \b
    Examples:
      countersign ledger export record
      countersign ledger export record --witnessed --policy ledger.policy
      countersign ledger verify record --policy ledger.policy
    """
    if (
        directory.exists()
        and any(directory.iterdir())
        and not (directory / CHECKPOINT_FILE).exists()
    ):
        raise click.UsageError(f"{directory} holds something that is not an export")
    if policy_file is not None and not witnessed:
        raise click.UsageError("--policy goes with --witnessed")
    policy = None if policy_file is None else given((), policy_file, config)
    settings = load(config)
    verifiers = trusted(settings)
    if not replace and (directory / CHECKPOINT_FILE).exists():
        _verify_earlier(directory, verifiers)
    wait = wait_s if witnessed else None
    files, export_of = run(_export(settings, directory, verifiers, replace, wait, policy))
    if as_json:
        document = checkpoint_dict(export_of.checkpoint)
        print_json(document | {"directory": str(directory), "files": files})
        return
    size = export_of.checkpoint.size
    out().print(f"Exported {size} entries in {files} files to {cells(directory)[0]}")


def _verify_earlier(directory: Path, verifiers: Sequence[LogVerifier]) -> None:
    """What was damaged is evidence, and must not be mended in passing."""
    try:
        with bar("verifying what lies there") as progress:
            verify_folder(directory, verifiers, progress)
    except VerificationError as error:
        raise VerificationError(
            "EXPORT_DAMAGED",
            f"the export in {directory} does not verify, and nothing was changed: {failure_text(error)}. "
            "Export to another directory, or write this one anew with --replace",
        ) from error


async def _export(
    settings: ClientSettings,
    directory: Path,
    verifiers: Sequence[LogVerifier],
    replace: bool,
    wait_s: int | None,
    policy: Policy | None,
) -> tuple[int, Export]:
    async with LedgerClient.connect(settings) as client:
        note = (await client.checkpoint()).checkpoint
        newest = with_any_key(verifiers, lambda key: open_checkpoint(note, key))
        if wait_s is not None:
            note = await _cosigned_note(client, newest.size, wait_s, policy)
        elif newest.size:
            # Of the newest entry too, with the lines of whoever has cosigned it by now.
            cosigned = _note_of(await client.receipt(newest.size - 1, 0))
            found = with_any_key(verifiers, lambda key: open_checkpoint(cosigned, key))
            note = cosigned if found.size >= newest.size else note
        # The note may be newer than the newest was, and with a wait for witnesses older.
        writing = Export(directory, note, verifiers, newest=newest, replace=replace)
        with bar("exporting") as progress:
            return await writing.write(client.leaves(), progress), writing


async def _cosigned_note(
    client: LedgerClient, size: int, wait_s: int, policy: Policy | None
) -> str:
    """The newest checkpoint with a quorum: of the whole tree if it comes in time, else an earlier one."""
    lacking = "the ledger has no entries"
    for index, wait in ((size - 1, wait_s), (0, 0)) if size else ():
        response = await client.receipt(index, wait)
        note, lacking = judged_receipt(response, policy)
        if not lacking:
            return note
    raise VerificationError(
        "QUORUM_MISSING", f"no checkpoint has its quorum of witnesses: {lacking}"
    )


def judged_receipt(response: pb.GetReceiptResponse, policy: Policy | None) -> tuple[str, str]:
    """A receipt's checkpoint, and what it lacks by the policy, or without one as the ledger says."""
    note = _note_of(response)
    if policy is None:
        return note, "" if response.quorum else response.lacking or "the ledger does not say what"
    try:
        return note, policy.judge(note).shortfall
    except TlogError as error:
        raise VerificationError("NOT_VERIFIED", str(error)) from error


def _note_of(response: pb.GetReceiptResponse) -> str:
    try:
        return TlogProof.parse(response.receipt.tlog_proof).checkpoint
    except TlogError as error:
        raise VerificationError("NOT_VERIFIED", str(error)) from error
