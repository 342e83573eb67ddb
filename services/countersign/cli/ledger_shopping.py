"""`countersign ledger shopping`: who asked several routes for like facts until one permitted."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import ORI
from countersign.cli.ledger_keys import trusted
from countersign.cli.ledger_query import (
    DIMENSIONS,
    LOOK_UP,
    Time,
    basis_dict,
    opening_of,
    say_who_asks,
    verified,
)
from countersign.cli.output import cells, err, json_option, out, print_json, table
from countersign.cli.rows import Rows
from countersign.client import ClientSettings
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2 as pb
from countersign.type.v1.decision_pb2 import DecisionOutcome
from shared.entry_facts import facts_of, short_name
from shared.entry_json import message_dict, moment_text

Command = TypeVar("Command", bound=Callable[..., Any])

PAGE_SIZE: Final = 50
_ALIKE: Final = (
    *("beneficiary-agency", "purpose", "offence", "severity", "suspicion", "provenance"),
    "capture-mode",
)


def _look_up_options(command: Command) -> Command:
    for option in reversed(LOOK_UP):
        command = option(command)
    return command


@click.command()
@config_option
@json_option
@click.option("--agency", type=ORI, metavar="ORI", help="The agency that asked.")
@click.option("--from", "start", type=Time(), metavar="TIME", help="Permitted at or after (UTC).")
@click.option("--until", type=Time(), metavar="TIME", help="Permitted before (UTC).")
@click.option(
    "--within",
    "hours",
    type=click.IntRange(1, 2160),
    default=24,
    show_default=True,
    help="Hours that a refusal was before the permit, at most.",
)
@click.option(
    "--alike",
    type=click.Choice(_ALIKE),
    multiple=True,
    help="What attempts must have in common, instead of all of these.",
)
@click.option(
    "--refused-routes",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="How many other routes had refused, at least.",
)
@_look_up_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=PAGE_SIZE,
    show_default=True,
    help="How many permits at most.",
)
def shopping(
    config: Path,
    as_json: bool,
    start: datetime | None,
    until: datetime | None,
    limit: int,
    **options: Any,
) -> None:
    """Find permits that came after other systems or galleries had refused like facts.

    Dry runs count like searches. Each permit is shown with the refusals since the permit before it, all of
    them proved to be in the ledger. Those of one officer, or on one case, are found by readers entitled to
    look openings up: --officer, --case.

    \b
    Examples:
      countersign ledger shopping --agency CA0194200 --from 2026-11-01
      countersign ledger shopping --alike offence --alike purpose --within 168 --json
    """
    wanted = _request(start, until, min(limit, PAGE_SIZE), options)
    settings = load(config)
    say_who_asks(wanted, settings, options)
    found, basis, more = run(_found(settings, wanted, limit))
    verifiers = trusted(settings)
    for one in found:
        for attempt in one.attempts:
            verified(attempt, verifiers)
    rests_on = basis_dict(basis, verifiers)
    if as_json:
        print_json({"found": [_as_dict(one) for one in found], "more": more, "basis": rests_on})
        return
    for one in found:
        out().print(_rows(one))
    if not found:
        out().print("No permit came after another route had refused.")
    asked = f"asked of the ledger's first {rests_on['tree_size']} entries"
    err().print(f"VERIFIED: each row is in the ledger; {asked}" if found else asked.capitalize())
    if more:
        err().print("There are more: ask for a shorter time, or give --limit")


def _request(
    start: datetime | None, until: datetime | None, page_size: int, options: dict[str, Any]
) -> pb.FindRouteShoppingRequest:
    given = {name: options.pop(name) for name in (
        *("agency", "hours", "alike", "refused_routes", "officer", "case_number"),
        *("authority", "why"),
    )}  # fmt: skip
    wanted = pb.FindRouteShoppingRequest(
        origin_agency=given["agency"] or "",
        alike_in=[DIMENSIONS[one] for one in given["alike"]],  # type: ignore[misc]  # numbers
        refused_routes_min=given["refused_routes"],
        page_size=page_size,
        with_receipts=True,
    )
    wanted.within.FromSeconds(given["hours"] * 3600)
    if start:
        wanted.recorded_from.FromDatetime(start)
    if until:
        wanted.recorded_until.FromDatetime(until)
    opening_of(wanted, given)
    return wanted


async def _found(
    settings: ClientSettings, wanted: pb.FindRouteShoppingRequest, limit: int
) -> tuple[list[pb.RouteShopping], pb.Basis, bool]:
    found: list[pb.RouteShopping] = []
    async with LedgerQueryClient.connect(settings) as client:
        while True:
            page = await client.shopping(wanted)
            found += page.found
            if len(found) >= limit or not page.next_page_token:
                more = len(found) > limit or bool(page.next_page_token)
                return found[:limit], page.basis, more
            wanted.page_token = page.next_page_token


def _as_dict(one: pb.RouteShopping) -> dict[str, Any]:
    return {
        "attempts": [
            {"index": attempt.record.index, "entry": message_dict(attempt.record.entry)}
            for attempt in one.attempts
        ],
        "refusals": one.refusals,
        "refused_routes": one.refused_routes,
    }


def _rows(one: pb.RouteShopping) -> Rows:
    permit = one.attempts[-1].record
    listed = len(one.attempts) - 1
    (agency,) = cells(facts_of(permit.entry).origin_agency)
    title = f"{agency}: {one.refusals} refused, then entry {permit.index}"
    if listed < one.refusals:
        title += f" (the last {listed} are listed)"
    rows = table(
        "index", "recorded (UTC)", "what", "system", "gallery", "outcome", "rules", title=title
    )
    for attempt in one.attempts:
        facts = facts_of(attempt.record.entry)
        rows.add_row(
            *cells(
                attempt.record.index,
                moment_text(attempt.record.entry.recorded_at, "%Y-%m-%d %H:%M:%S"),
                "dry run" if facts.kind_name == "search_checked" else "search",
                facts.system,
                facts.gallery,
                short_name(DecisionOutcome, facts.outcome).lower(),
                ", ".join(facts.rules),
            )
        )
    return rows
