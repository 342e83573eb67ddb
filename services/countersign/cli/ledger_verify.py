"""`countersign ledger verify`: exports and receipts, without a server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.markup import escape

from countersign.cli.connection import CONFIG_VARIABLE
from countersign.cli.ledger_files import (
    failure_text,
    verify_extends,
    verify_folder,
    verify_receipt_file,
)
from countersign.cli.ledger_keys import given
from countersign.cli.ledger_view import checkpoint_dict
from countersign.cli.output import OK, REFUSED, bar, cells, json_option, out, print_json
from countersign.client import VerificationError
from tlog.note import Verifier

PROOF_SUFFIX: Final = ".tlog-proof"
LEAF_SUFFIX: Final = ".leaf"


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
    help="The ledger's verifier key, as text or the name of a file with it. Taken from the trust roots "
    "of the configuration file when left out.",
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
    "--extends",
    "older",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="CHECKPOINT",
    help="An older signed checkpoint that you kept: each export must have the same entries up to its size.",
)
@json_option
def verify(
    paths: Sequence[Path],
    keys: Sequence[str],
    leaf: Path | None,
    config: Path | None,
    older: Path | None,
    as_json: bool,
) -> int:
    """Verify exports (directories) and receipts (.tlog-proof files), offline.

    Says VERIFIED, or exactly what failed. No server is asked.

    \b
    Examples:
      countersign ledger verify export --key ledger.vkey
      countersign ledger verify export --extends last-year.checkpoint --key ledger.vkey
      countersign ledger verify receipts/entry-7.tlog-proof --leaf entry-7.leaf --key ledger.vkey
    """
    verifiers = given(keys, config)
    results = [_verify_one(path, leaf, older, verifiers) for path in paths]
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
    path: Path, leaf: Path | None, older: Path | None, verifiers: Sequence[Verifier]
) -> dict[str, Any]:
    try:
        if path.is_dir():
            return _verify_export(path, older, verifiers)
        if path.suffix != PROOF_SUFFIX:
            raise click.UsageError(f"{path} is neither a directory nor a {PROOF_SUFFIX} file")
        if older is not None:
            raise click.UsageError("--extends is for exports: a receipt has no other entries")
        entry = leaf or path.with_suffix(LEAF_SUFFIX)
        index, opened = verify_receipt_file(path, entry, verifiers)
        says = f"the entry is number {index} of the {opened.size} that were signed"
        return {"path": str(path), "verified": True, "says": says, "index": index} | (
            checkpoint_dict(opened)
        )
    except VerificationError as error:
        return {"path": str(path), "verified": False, "says": str(error)}


def _verify_export(
    folder: Path, older: Path | None, verifiers: Sequence[Verifier]
) -> dict[str, Any]:
    with bar("verifying") as progress:
        found = verify_folder(folder, verifiers, progress)
    says = f"all {found.checkpoint.size} entries in {found.files} files are what was signed"
    document: dict[str, Any] = {"path": str(folder), "verified": True}
    if older is not None:
        extended = verify_extends(folder, found.checkpoint, older, verifiers)
        says += f", and they extend the {extended.size} of {older}"
        document["extends"] = checkpoint_dict(extended)
    return document | {"says": says} | checkpoint_dict(found.checkpoint)
