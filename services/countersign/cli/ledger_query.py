"""`countersign ledger query` and `count`: questions about what is on record."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from uuid import uuid4

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import ORI, UUID
from countersign.cli.ledger_files import with_any_key
from countersign.cli.ledger_keys import trusted
from countersign.cli.ledger_kinds import KIND
from countersign.cli.ledger_view import entry_rows
from countersign.cli.officer import token_for
from countersign.cli.output import (
    cells,
    err,
    json_option,
    out,
    print_json,
    table,
)
from countersign.client import ClientSettings, VerificationError
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2 as pb
from countersign.mirror.concerns import read_entry
from countersign.type.v1 import circumstances_pb2, decision_pb2, search_pb2
from shared.entry_facts import short_name
from shared.entry_json import message_dict
from shared.tokens import LEDGER_AUDIENCE
from tlog.checkpoint import open_checkpoint
from tlog.cosignature import LogVerifier
from tlog.proof import verify_receipt

PAGE_SIZE: Final = 500
LIST_DEFAULT: Final = 50

LooksUp: TypeAlias = pb.EntryFilter | pb.FindRouteShoppingRequest
"""What may ask for a value that only openings hold."""
Command = TypeVar("Command", bound=Callable[..., Any])


def _words(enum: Any) -> dict[str, int]:
    """Values as a person writes them ("imminent-threat-to-life")."""
    return {
        short_name(enum, number).lower().replace("_", "-"): number
        for number in enum.values()
        if number
    }


DIMENSIONS: Final = _words(pb.Dimension)
_ROLES: Final = _words(pb.AgencyRole)
_CLASSES: Final = _words(search_pb2.GalleryClass)
_PURPOSES: Final = _words(search_pb2.Purpose)
_SEVERITIES: Final = _words(search_pb2.OffenceSeverity)
_SUSPICIONS: Final = _words(search_pb2.SuspicionLevel)
_CIRCUMSTANCES: Final = {
    "routes": _words(circumstances_pb2.RequestRoute),
    "protected_bases": _words(circumstances_pb2.ProtectedBasis),
    "probe_edits": _words(circumstances_pb2.ProbeEdit),
    "investigations": _words(circumstances_pb2.InvestigationStage),
    "charge_statuses": _words(circumstances_pb2.ChargeStatus),
    "instruments": _words(circumstances_pb2.InstrumentKind),
}
"""Field of the filter to its words."""
_OUTCOMES: Final = _words(decision_pb2.DecisionOutcome)
_END_STATES: Final = _words(pb.EndState)
_DUTY_STATES: Final = _words(pb.ObligationState)


class Time(click.ParamType[datetime]):
    """A time in UTC: a date, or a date with a time of day."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """As of any type."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value} is not a time such as 2026-11-22 or 2026-11-22T14:30:00Z")
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at


LOOK_UP: Final = (
    click.option("--officer", metavar="ID", help="The officer; for entitled readers, and on record."),
    click.option("--case", "case_number", metavar="NUMBER",
                 help="The case number; for entitled readers, and on record."),
    click.option("--authority", metavar="TEXT", default="",
                 help="By what authority openings are looked through; needs --agency."),
    click.option("--why", metavar="TEXT", default="",
                 help="Why openings are looked through, in words. Only a commitment to it is public."),
    click.option("--as-officer", metavar="ID",
                 help="Of an agency that asks by --officer or --case: the officer for whom the "
                 "development identity provider issues a token."),
    click.option("--officer-token", "token_file", type=click.File(), metavar="FILE",
                 help="Likewise: file with the token of the officer who asks, issued for --request-id."),
    click.option("--request-id", type=UUID, metavar="UUID",
                 help="Id of the look-up, for which the token is issued. A new one when left out."),
)  # fmt: skip
"""For questions that look openings up."""

_OPTIONS: Final = (
    click.option("--from", "start", type=Time(), metavar="TIME", help="Recorded at or after (UTC)."),
    click.option("--until", type=Time(), metavar="TIME", help="Recorded before (UTC)."),
    click.option("--start", "start_index", type=click.IntRange(0), default=0, help="First index."),
    click.option("--end", "end_index", type=click.IntRange(0), default=0, help="Index after the last."),
    click.option("--agency", type=ORI, metavar="ORI", help="An agency that takes part."),
    click.option("--role", type=click.Choice(list(_ROLES)), help="In what role; any when left out."),
    click.option("--jurisdiction", metavar="CODE", help="A jurisdiction that binds one of them."),
    click.option("--kind", "kinds", type=KIND, multiple=True, help="Of this kind."),
    click.option("--search", "search_id", type=UUID, metavar="UUID", help="Of this search."),
    click.option("--system", metavar="ID", help="The system."),
    click.option("--gallery", metavar="ID", help="The gallery."),
    click.option("--class", "classes", type=click.Choice(list(_CLASSES)), multiple=True,
                 help="Class of the gallery."),
    click.option("--purpose", "purposes", type=click.Choice(list(_PURPOSES)), multiple=True,
                 help="Why."),
    click.option("--offence", metavar="CODE", help="NIBRS code of the offence."),
    click.option("--severity", "severities", type=click.Choice(list(_SEVERITIES)), multiple=True,
                 help="Severity of the offence."),
    click.option("--suspicion", "suspicions", type=click.Choice(list(_SUSPICIONS)), multiple=True,
                 help="Suspicion against the person in the probe."),
    *(
        click.option(option, field, type=click.Choice(list(_CIRCUMSTANCES[field])), multiple=True,
                     help=text)
        for option, field, text in (
            ("--route", "routes", "The channel of the request."),
            ("--protected-basis", "protected_bases", "What protected activity or trait it rests on."),
            ("--probe-edit", "probe_edits", "What was done to the probe."),
            ("--investigation", "investigations", "How far the investigation was."),
            ("--charge-status", "charge_statuses", "What stood against the person."),
            ("--instrument", "instruments", "Kind of the instrument; none when it was stated."),
        )
    ),
    click.option("--emergency/--no-emergency", default=None, help="Whether one was claimed."),
    click.option("--outcome", type=click.Choice(list(_OUTCOMES)), help="Of the decision."),
    click.option("--rule", "rule_id", metavar="ID", help="A rule that determined it."),
    click.option("--citation", metavar="TEXT", help="What such a rule cites begins with this."),
    click.option("--reason", metavar="REASON", help="Of a rejection, an undecided search, an alarm."),
    click.option("--end-state", type=click.Choice(list(_END_STATES)), help="How the search ended."),
    click.option("--obligation", metavar="KIND", help="A kind of obligation that came with it."),
    click.option("--obligation-state", type=click.Choice(list(_DUTY_STATES)),
                 help="What became of it; open while no entry says."),
    *LOOK_UP,
)  # fmt: skip


def filter_options(command: Command) -> Command:
    """Adds one option for each bound that a filter has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filter_of(options: dict[str, Any]) -> pb.EntryFilter:
    """Takes the options of a filter out of all options; raises click.UsageError."""
    given = {name: options.pop(name) for name in _NAMES}
    wanted = pb.EntryFilter(
        start_index=given["start_index"],
        end_index=given["end_index"],
        kinds=given["kinds"],
        gallery_classes=[_CLASSES[one] for one in given["classes"]],  # type: ignore[misc]  # numbers
        purposes=[_PURPOSES[one] for one in given["purposes"]],  # type: ignore[misc]  # numbers
        severities=[_SEVERITIES[one] for one in given["severities"]],  # type: ignore[misc]  # numbers
        suspicions=[_SUSPICIONS[one] for one in given["suspicions"]],  # type: ignore[misc]  # numbers
        agency_role=_number(_ROLES, given["role"]),
        outcome=_number(_OUTCOMES, given["outcome"]),
        end_state=_number(_END_STATES, given["end_state"]),
        obligation_state=_number(_DUTY_STATES, given["obligation_state"]),
    )
    for field, words in _CIRCUMSTANCES.items():
        getattr(wanted, field).extend(words[one] for one in given[field])
    if given["emergency"] is not None:
        wanted.emergency = given["emergency"]
    for name in _TEXTS:
        if given[name]:
            setattr(wanted, name, given[name])
    if given["start"]:
        wanted.recorded_from.FromDatetime(given["start"])
    if given["until"]:
        wanted.recorded_until.FromDatetime(given["until"])
    opening_of(wanted, given)
    return wanted


def say_who_asks(wanted: LooksUp, settings: ClientSettings, options: dict[str, Any]) -> None:
    """Takes from the options for which officer an agency looks openings up; raises click.UsageError."""
    officer, token_file, request_id = (options.pop(name) for name in _WHO_ASKS)
    if not wanted.HasField("opening"):
        if officer or token_file:
            raise click.UsageError(
                "public fields are read by any officer: only --officer or --case need one"
            )
        return
    wanted.opening.request_id = str(request_id or uuid4()).lower()
    if settings.agency:
        wanted.opening.officer_token = token_for(
            settings, wanted.opening.request_id, officer, token_file, LEDGER_AUDIENCE
        )
    elif officer or token_file:
        raise click.UsageError("an oversight body's certificate says who asks; it has no officers")


def opening_of(wanted: LooksUp, given: dict[str, Any]) -> None:
    """Puts what is sought in openings into a question; raises click.UsageError."""
    sought = [name for name in ("officer", "case_number") if given[name]]
    if not sought:
        if given["why"]:
            raise click.UsageError("--why goes with --officer or --case")
        return
    if len(sought) > 1:
        raise click.UsageError("give either --officer or --case")
    if not given["agency"] or not given["authority"]:
        raise click.UsageError(
            "openings are looked through for one agency and by an authority that goes on record: give "
            "--agency and --authority"
        )
    wanted.opening.field = sought[0]
    wanted.opening.value = given[sought[0]]
    wanted.opening.agency = given["agency"]
    wanted.opening.authority = given["authority"]
    wanted.opening.reason = given["why"]


def _number(words: dict[str, int], word: str | None) -> Any:
    return words[word] if word else 0


_WHO_ASKS: Final = ("as_officer", "token_file", "request_id")
_NAMES: Final = (
    *("start", "until", "start_index", "end_index", "agency", "role", "jurisdiction", "kinds"),
    *("search_id", "system", "gallery", "classes", "purposes", "offence", "severities"),
    *(*_CIRCUMSTANCES, "emergency"),
    *("suspicions", "outcome", "rule_id", "citation", "reason", "end_state", "obligation"),
    *("obligation_state", "officer", "case_number", "authority", "why"),
)
_TEXTS: Final = (
    *("agency", "jurisdiction", "search_id", "system", "gallery", "offence", "rule_id"),
    *("citation", "reason", "obligation"),
)


@click.command()
@config_option
@json_option
@filter_options
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=LIST_DEFAULT, show_default=True,
    help="How many at most.",
)  # fmt: skip
def query(config: Path, as_json: bool, limit: int, **options: Any) -> None:
    """Find entries by what they say, each proved to be in the ledger.

    All bounds hold together; an option that may be given several times asks for any of its values. An entry
    that belongs to a decided search has the facts of the decision too.

    \b
    Examples:
      countersign ledger query --agency CA0194200 --outcome refused --from 2026-11-01
      countersign ledger query --kind search_decided --end-state open
      countersign ledger query --obligation peer_review --obligation-state open --json
    """
    wanted = filter_of(options)
    settings = load(config)
    say_who_asks(wanted, settings, options)
    found, basis, more = run(_query(settings, wanted, limit))
    verifiers = trusted(settings)
    for one in found:
        verified(one, verifiers)
    if as_json:
        entries = [
            {"index": one.record.index, "entry": message_dict(one.record.entry)} for one in found
        ]
        print_json({"entries": entries, "more": more, "basis": basis_dict(basis, verifiers)})
        return
    out().print(entry_rows([one.record for one in found]) if found else "No entries.")
    says = basis_dict(basis, verifiers)
    asked = f"asked of the ledger's first {says['tree_size']} entries"
    err().print(f"VERIFIED: each row is in the ledger; {asked}" if found else asked.capitalize())
    if more:
        err().print(f"There are more: --start {found[-1].record.index + 1}")


async def _query(
    settings: ClientSettings, wanted: pb.EntryFilter, limit: int
) -> tuple[list[pb.FoundEntry], pb.Basis, bool]:
    found: list[pb.FoundEntry] = []
    request = pb.QueryEntriesRequest(
        filter=wanted, page_size=min(limit, PAGE_SIZE), with_receipts=True
    )
    async with LedgerQueryClient.connect(settings) as client:
        while True:
            page = await client.query(request)
            found += page.entries
            if len(found) >= limit or not page.next_page_token:
                more = len(found) > limit or bool(page.next_page_token)
                return found[:limit], page.basis, more
            request.page_token = page.next_page_token


def verified(one: pb.FoundEntry, verifiers: Sequence[LogVerifier]) -> None:
    """Verify that what is shown is in the ledger; raises VerificationError."""
    record = one.record
    index, _ = with_any_key(verifiers, lambda key: verify_receipt(record.leaf, one.tlog_proof, key))
    if index != record.index:
        raise VerificationError("NOT_VERIFIED", f"the proof of entry {record.index} is of {index}")
    # What is shown is what was proved.
    record.entry.CopyFrom(read_entry(record.leaf))


def basis_dict(basis: pb.Basis, verifiers: Sequence[LogVerifier]) -> dict[str, Any]:
    """What an answer rests on, for programs; raises VerificationError if it is not signed."""
    opened = with_any_key(verifiers, lambda key: open_checkpoint(basis.checkpoint, key))
    if opened.size < basis.tree_size or (
        opened.size == basis.tree_size and opened.root != basis.root
    ):
        raise VerificationError("NOT_VERIFIED", "the answer does not rest on its checkpoint")
    return {
        "tree_size": basis.tree_size,
        "root": message_dict(basis).get("root", ""),
        "checkpoint": basis.checkpoint,
    }


@click.command()
@config_option
@json_option
@filter_options
@click.option(
    "--by", "by", type=click.Choice(list(DIMENSIONS)), multiple=True,
    help="Group by this; up to four times.",
)  # fmt: skip
def count(config: Path, as_json: bool, by: tuple[str, ...], **options: Any) -> None:
    """Count entries, grouped by any of what they say.

    An entry with several rules, citations, jurisdictions, agencies or obligations counts in the group of
    each; the total counts it once. Days, months and years are in UTC.

    \b
    Examples:
      countersign ledger count --kind search_decided --by origin-agency --by outcome
      countersign ledger count --by month --by kind --from 2026-01-01 --json
      countersign ledger count --outcome refused --by rule
    """
    wanted = filter_of(options)
    settings = load(config)
    say_who_asks(wanted, settings, options)
    counts = run(_count(settings, wanted, [DIMENSIONS[one] for one in by]))
    basis = basis_dict(counts.basis, trusted(settings))
    names = [one.replace("-", "_") for one in by]
    if as_json:
        groups = [
            {
                **dict(zip(names, group.values, strict=True)),
                "entries": group.entries,
                "candidates_returned": group.candidates_returned,
            }
            for group in counts.groups
        ]
        print_json({"groups": groups, "entries": counts.entries, "basis": basis})
        return
    rows = table(*names, "entries", "candidates", text=set(names))
    for group in counts.groups:
        values = [value or "-" for value in group.values]
        rows.add_row(*cells(*values, group.entries, group.candidates_returned))
    out().print(rows)
    err().print(f"{counts.entries} entries in all, of the first {basis['tree_size']} in the ledger")


async def _count(
    settings: ClientSettings, wanted: pb.EntryFilter, group_by: Sequence[int]
) -> pb.CountEntriesResponse:
    async with LedgerQueryClient.connect(settings) as client:
        return await client.count(wanted, group_by)  # type: ignore[arg-type]  # numbers
