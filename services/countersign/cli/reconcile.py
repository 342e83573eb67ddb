"""`countersign reconcile import`: which searches of a system's own audit export are not on record."""

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import ORI
from countersign.cli.ledger_query import Time
from countersign.cli.output import OK, REFUSED, cells, err, json_option, out, print_json, table
from countersign.cli.reconcile_record import OnRecord, Wanted, on_record
from countersign.client.audit_export import AuditExport, AuditMapping, AuditRow, BadExport
from countersign.client.outside import Found, Matched, Rows, TooManyUsers, match
from countersign.client.tables import harmless

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LIST_DEFAULT: Final = 50
USERS_SHOWN: Final = 50
CELL_SHOWN_MAX: Final = 60
"""What an export says is shown to a person, and may be anything."""
HEADING: Final = ("line", "time", "user", "case", "system_search_id", "search_id", "probe_sha256")


@click.group()
def reconcile() -> None:
    """Find searches that were run outside the broker."""


@dataclass
class Bounds:
    """The times within which rows count, in microseconds."""

    since_us: int | None
    until_us: int | None

    def empty(self) -> bool:
        """Whether nothing can be within them."""
        return (
            self.since_us is not None
            and self.until_us is not None
            and self.since_us >= self.until_us
        )

    def hold(self, row: AuditRow) -> bool:
        """Whether a row counts: one of two times does."""
        after = self.since_us is None or row.latest_us >= self.since_us
        return after and (self.until_us is None or row.earliest_us < self.until_us)


@dataclass
class Outside:
    """What no search on record accounts for."""

    shown: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    users: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First and last time of each user."""

    def add(self, row: AuditRow, limit: int) -> None:
        """Take a row."""
        self.count += 1
        self.users[row.user] += 1
        first, last = self.spans.get(row.user, (row.earliest_us, row.earliest_us))
        self.spans[row.user] = (min(first, row.earliest_us), max(last, row.earliest_us))
        if len(self.shown) < limit:
            self.shown.append(_as_dict(row))


@reconcile.command("import")
@config_option
@json_option
@click.argument("export", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--mapping",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="TOML file that says what the export's columns mean.",
)
@click.option("--since", type=Time(), metavar="TIME", help="Only rows at or after (UTC).")
@click.option("--until", type=Time(), metavar="TIME", help="Only rows before (UTC).")
@click.option(
    "--agency",
    type=ORI,
    metavar="ORI",
    help="With --authority: look up whose each search was, of this origin agency.",
)
@click.option(
    "--authority",
    metavar="TEXT",
    default="",
    help="By what authority openings are looked through; public, and on record.",
)
@click.option(
    "--why",
    metavar="TEXT",
    default="",
    help="Why they are, in words. Only a commitment to it is public.",
)
@click.option(
    "--as-officer",
    metavar="ID",
    help="Of an agency that looks up: the officer for whom the development identity provider "
    "issues tokens.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all rows that are outside into this new file.",
)
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    default=LIST_DEFAULT,
    show_default=True,
    help="How many rows are shown at most.",
)
def import_(
    config: Path,
    as_json: bool,
    export: Path,
    mapping: Path,
    limit: int,
    csv_file: Path | None,
    **options: Any,
) -> int:
    """List the searches of a system's own audit export that are not on record.

    A row is matched by the id of its search; else, with --authority, by officer and time; else by time alone,
    one row for each search. What is left was run outside the broker: by whom, when, on what. Ends with 0 when
    nothing is, 1 when something is, 2 when the export or its mapping cannot be used.

    \b
    Examples:
      countersign reconcile import audit.csv --mapping lacris.toml
      countersign reconcile import audit.csv --mapping lacris.toml --agency CA0194200 \\
        --authority "Los Angeles City Charter s. 573" --csv outside.csv
    """  # fmt: skip
    if bool(options["agency"]) != bool(options["authority"]):
        raise click.UsageError("give --agency and --authority, or neither")
    bounds = Bounds(_micros(options["since"]), _micros(options["until"]))
    if bounds.empty():
        raise click.UsageError("--since is not before --until: no search is of these times")
    settings = load(config)
    known = AuditMapping.load(mapping)
    try:
        source = AuditExport(export, known)
        rows, skipped = _read(source, bounds)
        record = run(on_record(settings, _wanted(known, rows, options)))
        matched = match(rows, record.searches, record.of_user, known.window_s * 1_000_000)
        outside = _outside(source, bounds, matched, limit, csv_file)
    except (BadExport, TooManyUsers, FileExistsError) as error:
        raise click.ClickException(str(error)) from error
    document = _document(known, rows, skipped, matched, record, outside)
    if as_json:
        print_json(document)
    else:
        _show(document, outside)
    return REFUSED if outside.count else OK


def _micros(at: datetime | None) -> int | None:
    return None if at is None else (at - EPOCH) // timedelta(microseconds=1)


def _read(source: AuditExport, bounds: Bounds) -> tuple[Rows, int]:
    rows, skipped = Rows(), 0
    for row in source.rows():
        if bounds.hold(row):
            rows.add(row)
        else:
            skipped += 1
    return rows, skipped


def _wanted(known: AuditMapping, rows: Rows, options: dict[str, Any]) -> Wanted:
    times = (min(rows.earliest), max(rows.latest)) if len(rows) else None
    officers = {user: one for user, one in known.officers.items() if user in rows.users}
    return Wanted(
        system=known.system,
        times=times,
        window=timedelta(seconds=known.window_s),
        officers=officers if options["authority"] else {},
        agency=options["agency"] or "",
        authority=options["authority"],
        why=options["why"],
        as_officer=options["as_officer"],
    )


def _outside(
    source: AuditExport, bounds: Bounds, matched: Matched, limit: int, csv_file: Path | None
) -> Outside:
    outside = Outside()
    with ExitStack() as stack:
        write = None
        if csv_file is not None:
            # What is there is never written over.
            file = stack.enter_context(csv_file.open("x", encoding="utf-8", newline=""))
            write = csv.writer(file, lineterminator="\r\n").writerow
            write(HEADING)
        for row in _left(source, bounds, matched):
            outside.add(row, limit)
            if write is not None:
                write([harmless(value) for value in _as_dict(row).values()])
    return outside


def _left(source: AuditExport, bounds: Bounds, matched: Matched) -> Iterator[AuditRow]:
    counted = (row for row in source.rows() if bounds.hold(row))
    for row, found in zip(counted, matched.rows, strict=True):
        if found == Found.OUTSIDE:
            yield row


def _as_dict(row: AuditRow) -> dict[str, Any]:
    return {
        "line": row.line,
        "time": _text(row.earliest_us),
        "user": row.user,
        "case": row.case,
        "system_search_id": row.system_search_id,
        "search_id": row.search_id,
        "probe_sha256": row.probe_sha256,
    }


def _text(us: int) -> str:
    return f"{(EPOCH + timedelta(microseconds=us)).replace(tzinfo=None).isoformat()}Z"


def _document(
    known: AuditMapping,
    rows: Rows,
    skipped: int,
    matched: Matched,
    record: OnRecord,
    outside: Outside,
) -> dict[str, Any]:
    return {
        "system": known.system,
        "rows": len(rows),
        "rows_skipped": skipped,
        "accounted": {
            "by_id": matched.rows.count(Found.BY_ID),
            "by_officer": matched.rows.count(Found.BY_OFFICER),
            "by_time": matched.rows.count(Found.BY_TIME),
        },
        "outside": outside.count,
        "users": [
            {
                "user": user,
                "searches": count,
                "first": _text(outside.spans[user][0]),
                "last": _text(outside.spans[user][1]),
            }
            for user, count in outside.users.most_common()
        ],
        "searches": outside.shown,
        "searches_on_record": len(record.searches),
        "on_record_without_a_row": len(matched.unused & record.within),
        "basis": record.basis,
    }


def _show(document: dict[str, Any], outside: Outside) -> None:
    if outside.count:
        users = table("user", "searches", "first (UTC)", "last (UTC)", text={"user"})
        for one in document["users"][:USERS_SHOWN]:
            users.add_row(*_shown(one["user"], one["searches"], one["first"], one["last"]))
        out().print(users)
        rows = table(*HEADING, text={"user", "case"})
        for one in outside.shown:
            rows.add_row(*_shown(*one.values()))
        out().print(rows)
    more = outside.count - len(outside.shown)
    if more:
        err().print(f"{more} more are not shown: --limit, or --csv FILE for all")
    accounted = document["accounted"]
    err().print(
        f"{document['rows']} searches in the export, {document['rows_skipped']} outside the times asked for. "
        f"Accounted for: {accounted['by_id']} by id, {accounted['by_officer']} by officer and time, "
        f"{accounted['by_time']} by time alone."
    )
    if lacking := document["on_record_without_a_row"]:
        err().print(
            f"{lacking} searches on record of these times have no row: is the export whole?"
        )
    if document["rows"] and not document["searches_on_record"]:
        err().print(
            f"The record has no search on {document['system']} of these times at all: "
            "does the mapping name the system as the registry does?"
        )
    out().print(_result(document, outside))


def _result(document: dict[str, Any], outside: Outside) -> str:
    system = document["system"]
    if outside.count:
        return (
            f"OUTSIDE: {outside.count} searches of {system} are not on record, "
            f"by {len(outside.users)} users"
        )
    if not document["rows"]:
        # Nobody is to take it for a comparison that found all in order.
        return f"NOTHING COMPARED: the export has no search of {system} of these times"
    return f"NOTHING OUTSIDE: every search of {system} in the export is on record"


def _shown(*values: object) -> list[str]:
    """Cells that cannot steer a terminal or be run as a formula once they are copied into a table."""
    shown = []
    for value in values:
        text = "".join(one if one.isprintable() else "�" for one in str(value))
        if len(text) > CELL_SHOWN_MAX:
            text = f"{text[: CELL_SHOWN_MAX - 1]}…"
        shown.append(str(harmless(text)))
    return cells(*shown)
