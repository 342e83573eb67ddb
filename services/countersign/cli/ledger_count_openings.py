"""`countersign ledger count-openings`: who asked how often, counted here from what the reader has a right to.

The ledger counts by what everybody may read. What only openings hold is given to who has the right to it,
with proof by its commitment, and is grouped on the reader's own machine.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import ORI
from countersign.cli.ground import ground_of, ground_options
from countersign.cli.ledger_query import Time
from countersign.cli.output import bar, cells, err, json_option, out, print_json, table
from countersign.client import ClientSettings
from countersign.client.disclosure import DisclosureClient
from countersign.client.tables import Row, row_of
from countersign.ledger.v1 import disclosure_pb2 as pb
from shared.clock import stamp
from tlog.verify import Progress

AGENCY: Final = "origin_agency"
OPENED: Final = {"officer": "officer", "case-number": "case_number"}
"""What stands behind commitments, and is counted by."""
GONE: Final = "-"
"""In place of a value whose opening was destroyed, or that nobody stated."""

_IN_THE_CLEAR: Final = (
    *("kind", "beneficiary-agency", "operator-agency", "gallery-owner", "system", "gallery"),
    *("gallery-class", "purpose", "offence", "severity", "suspicion", "provenance"),
    *("capture-mode", "outcome"),
)
_OF_THE_DATE: Final = {"year": 4, "month": 7, "day": 10}
"""How many characters of a time as RFC 3339 has it."""
_PUBLIC: Final = (*_IN_THE_CLEAR, *_OF_THE_DATE)


@click.command("count-openings")
@click.option(
    "--by",
    type=click.Choice(list(OPENED)),
    required=True,
    help="What only openings hold. An agency's are counted apart from another's.",
)
@click.option(
    "--and-by",
    "and_by",
    type=click.Choice(list(_PUBLIC)),
    multiple=True,
    help="Group by this as well; may be given several times.",
)
@click.option("--from", "start", type=Time(), metavar="TIME", help="Recorded at or after (UTC).")
@click.option("--until", type=Time(), metavar="TIME", help="Recorded before (UTC).")
@click.option(
    "--agency", "agencies", type=ORI, multiple=True, metavar="ORI", help="Only of this agency."
)
@click.option("--with-checks", is_flag=True, help="Dry runs too.")
@ground_options
@config_option
@json_option
def count_openings(
    by: str,
    and_by: tuple[str, ...],
    start: datetime | None,
    until: datetime | None,
    agencies: tuple[str, ...],
    with_checks: bool,
    config: Path,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Count searches by officer or by case number: by right, and on record as one entry.

    Each search is proved to be in the ledger, and each value to be the one that was committed to. Of a search
    whose opening was destroyed the value is `-`.

    \b
    Example:
      countersign ledger count-openings --by officer --and-by outcome --agency CA0194200 \\
        --from 2026-01-01 --authority "Los Angeles City Charter s. 573" --reason "Audit of the first quarter"
    """
    settings = load(config)
    request = pb.ReadRequestsRequest(
        with_checks=with_checks,
        agencies=sorted(set(agencies)),
        fields=[OPENED[by]],
        ground=ground_of(settings, chosen),
    )
    for name, moment in (("recorded_from", start), ("recorded_until", until)):
        if moment is not None:
            getattr(request, name).CopyFrom(stamp(moment))
    with bar("counting") as progress:
        groups = run(_counted(settings, request, and_by, progress))
    names = [AGENCY, OPENED[by], *(one.replace("-", "_") for one in and_by)]
    ordered = sorted(groups.items(), key=lambda one: (-one[1], one[0]))
    if as_json:
        told = [dict(zip(names, group, strict=True)) | {"entries": n} for group, n in ordered]
        print_json({"groups": told, "entries": groups.total()})
        return
    rows = table(*names, "entries", text=set(names))
    for group, number in ordered:
        rows.add_row(*cells(*group, number))
    out().print(rows if groups else "No entries.")
    says = (
        "each is in the ledger, each value is what was committed to, and this reading is on record"
    )
    err().print(f"VERIFIED: {groups.total()} entries; {says}")


async def _counted(
    settings: ClientSettings,
    request: pb.ReadRequestsRequest,
    and_by: Sequence[str],
    progress: Progress,
) -> Counter[tuple[str, ...]]:
    (field,) = request.fields
    groups: Counter[tuple[str, ...]] = Counter()
    expected = 0

    def begun(of: int) -> None:
        nonlocal expected
        expected = of

    async with DisclosureClient.connect(settings) as client:
        async for found, _ in client.read_requests(request, begun):
            row = row_of(found.index, found.leaf)
            opened = {one.field: one.value for one in found.openings}
            values = [opened.get(field), *(_public(row, name) for name in and_by)]
            groups[str(row[AGENCY]), *(value or GONE for value in values)] += 1
            progress(groups.total(), expected)
    return groups


def _public(row: Row, name: str) -> str:
    if name in _OF_THE_DATE:
        return str(row["recorded_at"])[: _OF_THE_DATE[name]]
    return str(row[name.replace("-", "_")] or "")
