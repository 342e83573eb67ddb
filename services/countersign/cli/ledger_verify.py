"""`countersign ledger verify`: exports and receipts, without a server.

All judging is done by `tlog`, which knows nothing else of ours; here is only how it is asked and told.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from countersign.cli.connection import CONFIG_VARIABLE
from countersign.cli.escaping import escape
from countersign.cli.ledger_files import failure_text
from countersign.cli.ledger_keys import given
from countersign.cli.output import OK, REFUSED, bar, cells, json_option, out, print_json
from tlog.folder import (
    LEAF_SUFFIX,
    PROOF_SUFFIX,
    checkpoint_document,
    export_text,
    failure_document,
    judged_document,
    receipt_text,
    verify_folder,
    verify_receipt_file,
)
from tlog.policy import Policy
from tlog.verify import RECEIPT, SINCE, NotVerified


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH...",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="VKEY",
    help="The ledger's verifier key, as text or the name of a file with it. Taken from the policy, or from "
    "the trust roots of the configuration file, when left out.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="A tlog-policy file: which logs are trusted, and which witnesses must have cosigned. With --key "
    "the keys stand in place of its logs.",
)
@click.option(
    "--leaf",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The entry's bytes for a receipt; its .leaf file beside it when left out.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    show_envvar=True,
    help="Configuration file whose trust roots have the key.",
)
@click.option(
    "--since",
    "--extends",
    "since",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="CHECKPOINT",
    help="An older signed checkpoint that you kept: each export must have the same entries up to its size.",
)
@json_option
def verify(
    paths: Sequence[Path],
    keys: Sequence[str],
    policy_file: Path | None,
    leaf: Path | None,
    config: Path | None,
    since: Path | None,
    as_json: bool,
) -> int:
    """Verify exports (directories) and receipts (.tlog-proof files), offline.

    Says VERIFIED, or exactly what failed: which file, which entry, which key, what the quorum lacks. No
    server is asked, and nobody either. Exits 0 when everything verifies, 1 when something does not, and 2
    when the command, a key or the policy cannot be used.

    \b
    Examples:
      countersign ledger verify export --policy ledger.policy
      countersign ledger verify export --since last-year.checkpoint --key ledger.vkey
      countersign ledger verify receipts/entry-7.tlog-proof --leaf entry-7.leaf --key ledger.vkey
    """
    policy = given(keys, policy_file, config)
    results = [_verify_one(path, leaf, since, policy) for path in paths]
    if as_json:
        print_json({"results": results})
    else:
        for result in results:
            _print_result(result)
    return OK if all(result["verified"] for result in results) else REFUSED


def _print_result(result: dict[str, Any]) -> None:
    path, says = cells(result["path"], result["says"])
    if result["verified"]:
        line = f"[green]VERIFIED[/] {path}: {says}"
    else:
        line = f"[bold red]FAILED:[/] {escape(failure_text(result['says'], result['path']))}"
    out().print(line, soft_wrap=True)


def _verify_one(
    path: Path, leaf: Path | None, since: Path | None, policy: Policy
) -> dict[str, Any]:
    try:
        if path.is_dir():
            return _verify_export(path, since, policy)
        if path.suffix != PROOF_SUFFIX:
            raise click.UsageError(f"{path} is neither a directory nor a {PROOF_SUFFIX} file")
        if since is not None:
            raise click.UsageError("--since is for exports: a receipt has no other entries")
        return _verify_receipt(path, leaf or path.with_suffix(LEAF_SUFFIX), policy)
    except NotVerified as error:
        document = {"path": str(path), "verified": False} | failure_document(error)
        if error.file == SINCE:
            document |= {"file": str(since), "says": f"{error.what} ({since})"}
        elif error.file == RECEIPT:
            document |= {"file": str(path), "says": error.what}
        else:
            document["says"] = str(error)
        return document


def _verify_receipt(path: Path, leaf: Path, policy: Policy) -> dict[str, Any]:
    index, judged = verify_receipt_file(path, leaf, policy)
    says = receipt_text(index, judged)
    document = {"path": str(path), "verified": True, "says": says, "index": index}
    return document | judged_document(judged)


def _verify_export(folder: Path, since: Path | None, policy: Policy) -> dict[str, Any]:
    with bar("verifying") as progress:
        found = verify_folder(folder, policy, progress, since)
    says = export_text(found)
    document: dict[str, Any] = {"path": str(folder), "verified": True}
    if found.since is not None:
        says += f", and they extend the {found.since.size} of {since}"
        document["since"] = checkpoint_document(found.since)
    return document | {"says": says} | judged_document(found.judged)
