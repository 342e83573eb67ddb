"""`countersign directive replay`: what would this directive have refused?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from countersign.cli.connection import config_option, load, run
from countersign.cli.directive_local import FOLDER, finding_json
from countersign.cli.escaping import escape
from countersign.cli.ground import ground_of, ground_options
from countersign.cli.output import (
    CONTRADICTED,
    OK,
    REFUSED,
    bar,
    cells,
    json_option,
    out,
    print_json,
    table,
)
from countersign.cli.worlds import Source, documents_of, officers_opened, worlds_options
from countersign.client import ClientSettings
from countersign.client.disclosure import DisclosureClient
from countersign.installation.files import write_public
from countersign.ledger.v1 import disclosure_pb2 as pb
from directive.book import load_directive
from directive.document import Document
from directive.findings import DirectiveRefused
from directive.projection import facts_read
from directive.proposed import AsOf, Reading
from directive.recorded import openings_needed, recorded
from directive.rendering import replayed
from directive.rendering.replayed import Span
from directive.replay import SAMPLE, Replay
from directive.replay_counts import Outcome, Replayed
from directive.worlds import NoSuchWorld, Worlds
from shared.clock import stamp
from shared.registry import TrustRoots
from shared.settings import SettingsError
from tlog.verify import Progress

FILE: Final = click.Path(path_type=Path, dir_okay=False)
DAY: Final = click.DateTime(formats=["%Y-%m-%d"])


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--since", type=DAY, default=None, help="Searches recorded from this day on (UTC).")
@click.option("--until", type=DAY, default=None, help="And before this day.")
@click.option(
    "--agency", "agencies", multiple=True, metavar="ORI", help="Only searches of this agency."
)
@click.option("--with-checks", is_flag=True, help="Dry runs too.")
@click.option(
    "--as-of",
    type=click.Choice([one.value for one in AsOf]),
    default=AsOf.ALWAYS.value,
    show_default=True,
    help="From when on it counts. always: as if in force throughout. legal: from and until its own dates, "
    "whenever it was received. received: by its dates too, but for no search of before it was received.",
)
@click.option(
    "--received",
    type=DAY,
    default=None,
    help="With --as-of received, for a text that is not on record: suppose that it was received at the "
    "beginning of this day (UTC).",
)
@click.option(
    "--sample",
    type=click.FloatRange(0, 1),
    default=SAMPLE,
    show_default=True,
    help="Share of the searches that the engine is asked about one by one.",
)
@click.option(
    "--markdown", type=FILE, default=None, help="Write a report, its chart (SVG) beside it."
)
@click.option("--html", type=FILE, default=None, help="Write the report as one HTML file.")
@worlds_options
@ground_options
@config_option
@json_option
def replay(
    folder: Path,
    since: datetime | None,
    until: datetime | None,
    agencies: tuple[str, ...],
    with_checks: bool,
    as_of: str,
    received: datetime | None,
    sample: float,
    markdown: Path | None,
    html: Path | None,
    config: Path,
    as_json: bool,
    source: Source,
    **chosen: Any,
) -> int:
    """Say what the directive in FOLDER would have refused, and permitted, of the searches on record.

    It takes the place of its party's directive of the same name, of the one that it replaces, and of those
    with one of its rules. Each decision of the past is made again first, as it was; the engine confirms every
    change. Reads the openings that the rules can read, of every search: by right, and on record as one entry.
    Where agencies registered officers in the ledger, these registrations are read too, as another entry says.

    Exit code 1 when a guard refuses the directive, 7 when a decision on record does not follow from what it
    was made by: then no count can be relied on.

    \b
    Example:
      countersign directive replay our-department-2027 --since 2026-01-01 --until 2027-01-01 \\
        --directives .countersign/directives --registry .countersign/registry.toml \\
        --html report.html --authority "City Council resolution 26-31" --reason "Proposed order"
    """
    settings = load(config)
    ground = ground_of(settings, chosen)
    worlds = run(_worlds(settings, source, ground))
    vocabulary = source.vocabulary
    try:
        world = worlds.newest
        proposal = load_directive(folder.resolve(), vocabulary, world.names)
        reading = _reading(AsOf(as_of), received, worlds, proposal.document)
        again = Replay(worlds, proposal, reading=reading, sample=sample)
        again.check(world)
    except NoSuchWorld as unknown:
        raise SettingsError(f"{unknown} (--directives FOLDER)") from unknown
    except DirectiveRefused as refused:
        return _refused(refused, as_json)
    request = pb.ReadRequestsRequest(
        with_checks=with_checks,
        agencies=sorted(set(agencies)),
        fields=openings_needed(worlds.facts | facts_read(proposal.rules, vocabulary.facts)),
        ground=ground,
    )
    _bound(request, since, until)
    with bar("deciding again") as progress:
        run(_replay(settings, request, again, progress))
    found = again.finish()
    report = _report(found, proposal.document, since, until, reading)
    _write(report, markdown, html)
    (print_json if as_json else _print)(report)
    return OK if found.sound else CONTRADICTED


def _reading(as_of: AsOf, named: datetime | None, worlds: Worlds, text: Document) -> Reading:
    """Raises SettingsError when nobody says when it was received."""
    if as_of is not AsOf.RECEIVED:
        if named is not None:
            raise SettingsError("--received goes with --as-of received")
        return Reading(as_of)
    received = worlds.received(text) if named is None else named.replace(tzinfo=UTC)
    if received is None:
        raise SettingsError(
            "this text is not on record, so nobody received it: say when it is to have been (--received DAY)"
        )
    return Reading(as_of, received)


def _bound(request: pb.ReadRequestsRequest, since: datetime | None, until: datetime | None) -> None:
    for name, moment in (("recorded_from", since), ("recorded_until", until)):
        if moment is not None:
            getattr(request, name).CopyFrom(stamp(moment.replace(tzinfo=UTC)))


def _report(
    found: Replayed,
    proposal: Document,
    since: datetime | None,
    until: datetime | None,
    reading: Reading,
) -> dict[str, Any]:
    span = Span(*(f"{day:%Y-%m-%d}" if day else "" for day in (since, until)))
    return replayed.document(found, proposal.manifest, proposal.sha256, span, reading)


async def _worlds(settings: ClientSettings, source: Source, ground: pb.Ground) -> Worlds:
    documents = await documents_of(settings)
    openings = await officers_opened(settings, documents, ground)
    return source.worlds(documents, openings, TrustRoots.load(settings.trust_roots))


async def _replay(
    settings: ClientSettings, request: pb.ReadRequestsRequest, again: Replay, progress: Progress
) -> None:
    done, expected = 0, 0

    def begun(of: int) -> None:
        nonlocal expected
        expected = of

    async with DisclosureClient.connect(settings) as client:
        async for row, entry in client.read_requests(request, begun):
            openings = {one.field: one.value for one in row.openings}
            search = recorded(row.index, entry, openings, request.fields)
            if search is not None:
                again.add(search)
            done += 1
            progress(done, expected)


def _refused(refused: DirectiveRefused, as_json: bool) -> int:
    if as_json:
        print_json({"findings": [finding_json(one) for one in refused.findings]})
    else:
        for finding in refused.findings:
            out().print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
    return REFUSED


def _write(report: dict[str, Any], markdown: Path | None, html: Path | None) -> None:
    try:
        if markdown is not None:
            chart = markdown.with_suffix(".svg")
            write_public(chart, replayed.chart(report).encode())
            write_public(markdown, replayed.markdown(report, chart.name).encode())
        if html is not None:
            write_public(html, replayed.html(report).encode())
    except ImportError as error:
        raise SettingsError(f"reports need countersign[render]: {error}") from error


def _print(report: dict[str, Any]) -> None:
    console, proposal = out(), report["proposal"]
    console.print(f"[bold]{escape(proposal['name'])}[/]: {escape(proposal['title'])}")
    console.print(f"  {escape(proposal['counted'])}", soft_wrap=True)
    for word, names in (("in place of", proposal["replaces"]), ("beside", proposal["beside"])):
        if names:
            console.print(f"  {word} {escape(', '.join(names))}", soft_wrap=True)
    rows = table("what becomes of it", "searches", title=f"{report['searches']} searches on record")
    for outcome in Outcome:
        rows.add_row(*cells(outcome, report["outcomes"][outcome.name]))
    console.print(rows)
    for title, name in (("agency", "by_agency"), ("rule", "by_rule"), ("month", "by_month")):
        rows = table(title, "now refused", "now permitted", "other reasons", "cannot say")
        told = (*replayed.CHANGED, Outcome.CANNOT_SAY)
        shown = {key: [of[one.name] for one in told] for key, of in report[name].items()}
        for key, counts in shown.items():
            if any(counts):
                rows.add_row(*cells(key, *counts))
        if any(map(any, shown.values())):
            console.print(rows)
    for reason, count in report["cannot_say"].items():
        console.print(f"Cannot say of {count}: {escape(reason)}", soft_wrap=True)
    _print_check(console, report)


def _print_check(console: Console, report: dict[str, Any]) -> None:
    check, engine = report["self_check"], report["engine"]
    for name, count in check["decided_alike_by_other_engines"].items():
        console.print(f"{count} were decided by {escape(name)}, and come out the same.")
    if report["sound"]:
        console.print(
            "[bold green]SOUND[/]: every decision that could be made again came out as it is on record; "
            f"{escape(engine['name'])} confirmed {engine['changes_confirmed']} changes and "
            f"{engine['others_sampled']} of the others",
            soft_wrap=True,
        )
        return
    entries = ", ".join(map(str, check["entries"]))
    console.print(
        f"[bold red]NOT TO BE RELIED ON[/]: {check['contradictions']} decisions do not follow from what "
        f"they were made by (entries {entries or '-'}); compiled rules and engine disagreed "
        f"{engine['disagreements']} times",
        soft_wrap=True,
    )
