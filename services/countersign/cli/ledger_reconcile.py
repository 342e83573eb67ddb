"""`countersign ledger reconcile`: two exports, and whether they agree on the searches between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from countersign.cli.connection import CONFIG_VARIABLE
from countersign.cli.escaping import escape
from countersign.cli.ledger_files import failure_text
from countersign.cli.ledger_keys import given
from countersign.cli.output import OK, REFUSED, cells, json_option, out, print_json, table
from countersign.client.reconcile import Account, Differs, Discrepancy, Reconciled, Search
from countersign.client.reconcile import reconcile as compared
from tlog.folder import entries_in_folder, failure_document, verify_folder
from tlog.policy import Policy
from tlog.verify import NotVerified

_TEXTS = {
    Differs.NOT_TAKEN: "referred, and nothing of it is on record at the peer",
    Differs.NOT_SENT: "on record as referred, and nothing of it is on record where it came from",
    Differs.DECISION: "the peer answered to another decision or request",
    Differs.END: "the two ledgers have it end differently",
}


@click.command()
@click.argument("one", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("other", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="VKEY",
    help="Verifier key of one of the ledgers, as text or the name of a file with it; give both. Taken from "
    "the policy, or from the trust roots of the configuration file, when left out.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="A tlog-policy file with both logs, and the witnesses that must have cosigned.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    show_envvar=True,
    help="Configuration file whose trust roots have the keys of the ledger and of its peers.",
)
@json_option
def reconcile(
    one: Path,
    other: Path,
    keys: Sequence[str],
    policy_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Compare what two ledgers have on record of the searches between them.

    ONE and OTHER are exports (`countersign ledger export`), which are verified first. Lists each search that
    one has as referred to the other and the other lacks, each that differs in what was decided on, and each
    that ends differently. Exit code 1 when there is any, or when an export does not verify.

    Make both exports after the searches have ended: one that may still end is left out, and counted.

    \b
    Example:
      countersign ledger reconcile state-a state-b --key a.vkey --key b.vkey
    """
    policy = given(keys, policy_file, config, with_peers=True)
    accounts = []
    for folder in (one, other):
        try:
            accounts.append(_account(folder, policy))
        except NotVerified as failure:
            if as_json:
                print_json({"verified": False, "path": str(folder), **failure_document(failure)})
            else:
                out().print(f"[bold red]NOT VERIFIED[/]: {escape(failure_text(failure, folder))}")
            return REFUSED
    if accounts[0].log_origin == accounts[1].log_origin:
        raise click.UsageError(f"both are exports of the log {accounts[0].log_origin}")
    found = compared(*accounts)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    return REFUSED if found.discrepancies else OK


def _account(folder: Path, policy: Policy) -> Account:
    verified = verify_folder(folder, policy)
    return Account.of(verified.checkpoint.origin, entries_in_folder(folder, verified))


def _document(found: Reconciled) -> dict[str, Any]:
    return {
        "compared": found.compared,
        "not_judged": found.not_judged,
        "discrepancies": [
            {
                "search_id": one.search_id,
                "what": str(one.what),
                "sent_by": one.sent_by,
                "sent": _side(one.sent),
                "taken": _side(one.taken),
            }
            for one in found.discrepancies
        ],
    }


def _side(search: Search | None) -> dict[str, Any] | None:
    if search is None:
        return None
    return {
        "index": search.index,
        "end": search.ended,
        "end_index": search.end_at[0] if search.end_at is not None else None,
    }


def _print(found: Reconciled) -> None:
    console = out()
    if found.discrepancies:
        rows = table(
            *("search", "referred by", "what is wrong", "there", "here"),
            title="Searches on which the ledgers do not agree",
            text={"what is wrong"},
        )
        for one in found.discrepancies:
            rows.add_row(*cells(one.search_id, one.sent_by, _TEXTS[one.what], *_ends(one)))
        console.print(rows)
    told = f"{found.compared} compared, {len(found.discrepancies)} on which they do not agree"
    console.print(f"{told}; {found.not_judged} may still end, or are newer than the other export.")


def _ends(one: Discrepancy) -> tuple[str, str]:
    taken, sent = (
        "-" if side is None else f"{side.index}: {side.ended}" for side in (one.taken, one.sent)
    )
    return taken, sent
