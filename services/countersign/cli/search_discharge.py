"""`countersign search discharge`: says that a duty which came with a decision was done."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.connection import config_option, load, run
from countersign.cli.escaping import escape, without_commands
from countersign.cli.facts import search_id_argument
from countersign.cli.officer import officer_options, token_for
from countersign.cli.output import OK, json_option, out, print_json, progress
from countersign.cli.search_view import print_receipt
from countersign.client import Client, ClientSettings, verify_discharge, verify_search
from countersign.type.v1.decision_pb2 import Obligation
from shared.entry_json import message_dict
from shared.obligations import OBLIGATION_KINDS


@click.command()
@search_id_argument
@click.argument("kind", type=click.Choice(sorted(OBLIGATION_KINDS)), metavar="OBLIGATION")
@click.option("--rule", metavar="ID", help="The rule that imposed it, where several did.")
@click.option("--party", help="The party whose rule it is, where several have one.")
@click.option(
    "--narrative",
    default="",
    help="What was done, and where what shows it is kept. Only a commitment to it is public.",
)
@officer_options
@config_option
@json_option
def discharge(
    search_id: str,
    kind: str,
    rule: str | None,
    party: str | None,
    narrative: str,
    officer: str | None,
    token_file: Any,
    config: Path,
    as_json: bool,
) -> int:
    """Record that a duty of search ID was done: log, notice, notify, peer_review, report or retain.

    Only the agency that asked can say so; `countersign search get` shows the duties. A duty that is
    on record as done before stays so, by its first entry, and the exit code is 0 all the same.

    \b
    Example:
      countersign search discharge 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11 notify \\
        --officer lapd-40123 --narrative "Board told by letter 26-118"
    """
    settings = load(config)
    token = token_for(settings, search_id, officer, token_file)
    duty, response = run(_discharge(settings, search_id, (kind, rule, party), token, narrative))
    if as_json:
        print_json(
            {
                "search_id": search_id,
                "obligation": message_dict(duty),
                "existing": response.existing,
                "receipt": message_dict(response.receipt),
            }
        )
        return OK
    before = (
        "was on record as done before, and that entry stands" if response.existing else "is done"
    )
    out().print(f"The duty {escape(_named(duty))} {before}.", soft_wrap=True)
    print_receipt(out(), "discharge", response.receipt)
    return OK


async def _discharge(
    settings: ClientSettings,
    search_id: str,
    wanted: tuple[str, str | None, str | None],
    token: str,
    narrative: str,
) -> tuple[Obligation, pb.DischargeObligationResponse]:
    async with Client.connect(settings) as client:
        found = await client.get(search_id)
        verify_search(found, search_id, client.trust)
        duty = _only(found.decision.obligations, *wanted)
        with progress("recording that it was done"):
            response = await client.discharge(search_id, duty, token, narrative)
        verify_discharge(response, found.decision_receipt, duty, client.trust)
    return duty, response


def _only(
    duties: Iterable[Obligation], kind: str, rule: str | None, party: str | None
) -> Obligation:
    """The duty that is meant. Raises click.UsageError when it is none, or not one alone."""
    duties = list(duties)
    fitting = [
        duty
        for duty in duties
        if duty.kind == kind and rule in (None, duty.rule_id) and party in (None, duty.party)
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(map(_named, fitting or duties)) or "none"
    raise click.UsageError(
        without_commands(
            f"say which with --rule and --party: {listed}"
            if fitting
            else f"the decision on this search has no such duty. Its duties: {listed}"
        )
    )


def _named(duty: Obligation) -> str:
    return f"{duty.kind} by rule {duty.rule_id} of {duty.party}"
