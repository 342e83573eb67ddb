"""`countersign bench`: load on one's own installation, and how long its people would wait."""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.bench_view import Asked, Outcome, line, print_outcome
from countersign.cli.connection import config_option, load, run
from countersign.cli.facts import StatedFacts, facts_options
from countersign.cli.officer import TOKEN_BYTES_MAX, provider_of
from countersign.cli.output import OK, REFUSED, err, json_option, out, print_json, progress
from countersign.cli.search_view import print_decision
from countersign.cli.signals import until_told
from countersign.client import Client, ClientSettings, verify_check
from countersign.client.ledger import LedgerClient
from countersign.client.prepare import cleaned
from countersign.installation.bundled import probes_folder
from countersign.load.measured import Measured
from countersign.load.mix import BadMix, Kind, interleaved, parse_mix
from countersign.load.pace import Bounds, Time, closed_loop, open_loop
from countersign.load.tickets import Ticket, issued, of_tokens
from countersign.load.work import Case, Load
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SearchFacts

MARK: Final = "LOAD-TEST"
"""Case number and narrative of what is no case. The record has commitments to both."""
ENTRIES: Final = {Kind.SEARCH: 2, Kind.CHECK: 1, Kind.FORBIDDEN: 1, Kind.READ: 0}
"""What each leaves on record."""
COUNT_MAX: Final = 1_000_000
LOOK_S: Final = 0.5
"""How often the progress is drawn."""
TIME: Final = Time(time.perf_counter, asyncio.sleep)


class MixType(click.ParamType[dict[Kind, int]]):
    """`search=80,check=20`."""

    name = "mix"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[Kind, int]:
        """The weights."""
        try:
            return parse_mix(str(value))
        except BadMix as error:
            self.fail(str(error), param, ctx)


_OPTIONS: Final = (
    click.option(
        "--officer",
        "officers",
        multiple=True,
        metavar="ID",
        help="Officer for whom the configuration's identity provider issues tokens. Several take turns.",
    ),
    click.option(
        "--officer-tokens",
        "token_file",
        type=click.File(),
        metavar="FILE",
        help="Tokens of the agency's own provider instead, one in each line, each bound to a new UUID.",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(min=0, min_open=True, max=10_000),
        metavar="PER_SECOND",
        help="Begin so many a second, whatever becomes of them; timed from when each was to begin.",
    ),
    click.option(
        "--in-flight",
        type=click.IntRange(1, 5_000),
        metavar="N",
        help="Keep so many going instead, each followed by the next.",
    ),
    click.option(
        "--duration",
        "duration_s",
        type=click.FloatRange(min=0, min_open=True, max=86_400),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long work is begun; what has begun is waited for.",
    ),
    click.option(
        "--searches",
        "count_max",
        type=click.IntRange(1, COUNT_MAX),
        default=COUNT_MAX,
        show_default=True,
        metavar="N",
        help="So many at most, of all kinds together.",
    ),
    click.option(
        "--mix",
        type=MixType(),
        default="search=80,check=10,forbidden=5,read=5",
        show_default=True,
        help="What it consists of, in which parts: search, check (dry runs), forbidden (searches for "
        "nobody knows whom, which must be refused), read (of the ledger).",
    ),
    click.option(
        "--probe",
        "probes",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        multiple=True,
        help="Picture to search for; several take turns. Left out: drawn faces that come with this.",
    ),
    click.option(
        "--timeout",
        "wait_s",
        type=click.FloatRange(min=1, max=3_600),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long an answer may take; later it is an error.",
    ),
    click.option(
        "--errors-max",
        type=click.FloatRange(0, 100),
        default=1.0,
        show_default=True,
        metavar="PERCENT",
        help="Exit code 1 when more go wrong.",
    ),
    click.option(
        "--p99-max",
        "p99_max_ms",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MS",
        help="Exit code 1 when one in a hundred searches takes longer, from beginning to opened answer.",
    ),
    click.option("--yes", is_flag=True, help="Do not ask whether the record may grow."),
    click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False, writable=True),
        metavar="FILE",
        help="Write the JSON document there too.",
    ),
)


def _bench_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@facts_options
@_bench_options
@config_option
@json_option
def bench(stated: StatedFacts, config: Path, as_json: bool, **given: Any) -> int:
    """Measure an installation under load, as the agency of the configuration.

    THE SEARCHES ARE REAL: each is decided, run by the system and on record for ever, with the case number
    LOAD-TEST unless another is given. First one dry run shows whether such a search is permitted.
    Ctrl-C ends the load and reports what was measured. Exit code 1 when a bound is not kept.

    \b
    Example:
      countersign bench --rate 20 --duration 60 --p99-max 2000 --officer lapd-40123 --own-case \\
        --system lacris --gallery lacris-booking --purpose criminal-investigation \\
        --suspicion reasonable-suspicion --severity violent-felony --nibrs 120 \\
        --provenance crime-scene-recording --capture stored-video-frame
    """
    settings = load(config)
    facts = _marked(stated, settings.agency)
    tickets, at_hand = _tickets(settings, given)
    asked = _asked(given, facts, at_hand)
    pictures = given["probes"] or sorted(probes_folder().glob("*.jpg"))
    probes = [cleaned(path.read_bytes()) for path in pictures[: asked.bounds.count_max]]
    _agree(asked, settings, given["yes"])
    case = Case(facts, probes, given["wait_s"])
    outcome = run(_measure(settings, case, tickets, asked))
    if outcome is None:
        return REFUSED
    document = outcome.document()
    if as_json:
        print_json(document)
    else:
        print_outcome(out(), outcome)
    # Afterwards: a disk that is full must not keep from being shown what cannot be measured again.
    if given["output"] is not None:
        given["output"].write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return REFUSED if outcome.broken() else OK


def _marked(stated: StatedFacts, agency: str) -> SearchFacts:
    """The facts, so that whoever opens them later sees that this was no case."""
    if stated.search_id is not None:
        raise click.UsageError("--id is of one search: leave it out")
    facts = stated.of(agency)
    facts.case_number = facts.case_number or MARK
    facts.narrative = facts.narrative or MARK
    return facts


def _tickets(settings: ClientSettings, given: dict[str, Any]) -> tuple[Iterator[Ticket], int]:
    """Who asks, and for how many searches there are tokens."""
    officers, file = given["officers"], given["token_file"]
    if bool(officers) == (file is not None):
        raise click.UsageError("say who asks: either --officer ID or --officer-tokens FILE")
    if officers:
        return issued(provider_of(settings), officers), COUNT_MAX
    lines = (str(text).strip() for text in file.readlines(COUNT_MAX * TOKEN_BYTES_MAX))
    tickets = of_tokens(filter(None, lines))
    if not tickets:
        raise click.UsageError("there is no token in the file of --officer-tokens")
    return iter(tickets), len(tickets)


def _asked(given: dict[str, Any], facts: SearchFacts, count_max: int) -> Asked:
    if (given["rate"] is None) == (given["in_flight"] is None):
        raise click.UsageError("say how much: either --rate PER_SECOND or --in-flight N")
    if given["p99_max_ms"] is not None and Kind.SEARCH not in given["mix"]:
        raise click.UsageError("--p99-max is of searches, and --mix has none")
    return Asked(
        rate=given["rate"],
        in_flight=given["in_flight"],
        bounds=Bounds(given["duration_s"], min(given["count_max"], count_max)),
        mix=given["mix"],
        case_number=facts.case_number,
        errors_max=given["errors_max"],
        p99_max_ms=given["p99_max_ms"],
    )


def _agree(asked: Asked, settings: ClientSettings, yes: bool) -> None:
    """What is on record stays there: nobody writes it by mistake."""
    if yes or not any(ENTRIES[kind] for kind in asked.mix):
        return
    count = asked.bounds.count_max
    if asked.rate is not None:
        count = min(count, int(asked.rate * asked.bounds.duration_s) + 1)
    parts = sum(asked.mix.values())
    entries = sum(ENTRIES[kind] * weight for kind, weight in asked.mix.items()) * count // parts
    about = f"about {entries:,}" if asked.rate is not None or count < COUNT_MAX else "thousands of"
    searched = ", and has the system searched for people who are not sought"
    warning = (
        f"This makes {about} entries for ever in the ledger at {settings.ledger.address}, as "
        f"{settings.agency}{searched if Kind.SEARCH in asked.mix else ''}."
    )
    if not sys.stdin.isatty():
        raise click.UsageError(f"{warning} Say --yes if it may.")
    if not click.confirm(f"{warning}\nGo on?", err=True):
        raise click.UsageError("nothing was done")


async def _measure(
    settings: ClientSettings, case: Case, tickets: Iterator[Ticket], asked: Asked
) -> Outcome | None:
    """The load and what it came to; None when such a search would be refused."""
    async with Client.connect(settings) as client, LedgerClient.connect(settings) as ledger:
        first = next(tickets)
        if {Kind.SEARCH, Kind.CHECK} & asked.mix.keys() and not await _permitted(
            client, case, first
        ):
            return None
        measured = Measured()
        tickets = itertools.chain([first], tickets)
        work = Load(case, (client, ledger), tickets, measured, TIME.now)
        began = TIME.now()
        stopped = False
        with progress("measuring") as show:
            looking = asyncio.create_task(_look(measured, began, show))
            try:
                await until_told(_paced(asked, work, measured))
            except asyncio.CancelledError:
                stopped = True
            finally:
                looking.cancel()
        return Outcome(asked, measured, TIME.now() - began, stopped)


async def _permitted(client: Client, case: Case, ticket: Ticket) -> bool:
    """Before thousands are put on record: the parties permit it. Says why when they do not."""
    facts = SearchFacts()
    facts.CopyFrom(case.facts)
    facts.search_id = ticket.search_id
    answer = await client.check(facts, ticket.token)
    verify_check(answer, facts, client.trust)
    if answer.decision.outcome != DecisionOutcome.DECISION_OUTCOME_REFUSED:
        return True
    err().print("Nothing is measured: a search of these facts is refused.")
    print_decision(err(), answer.decision)
    return False


async def _paced(asked: Asked, load: Load, measured: Measured) -> None:
    kinds = interleaved(asked.mix)

    async def one(intended: float) -> None:
        await load.one(next(kinds), intended)

    if asked.rate is not None:
        await open_loop(asked.rate, asked.bounds, TIME, one, measured.leave_out)
    elif asked.in_flight is not None:
        await closed_loop(asked.in_flight, asked.bounds, TIME, one)


async def _look(measured: Measured, began: float, show: Callable[[str], None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            show(line(measured, TIME.now() - began))
            await asyncio.sleep(LOOK_S)
