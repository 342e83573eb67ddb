"""`countersign search`: ask for face searches and follow them."""

from pathlib import Path
from typing import Any, Final

import click

from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.connection import config_option, load, run
from countersign.cli.escaping import escape
from countersign.cli.facts import StatedFacts, facts_options, search_id_argument
from countersign.cli.officer import officer_options, token_for
from countersign.cli.output import (
    OK,
    REFUSED,
    USAGE,
    again,
    err,
    json_option,
    out,
    print_json,
    progress,
)
from countersign.cli.receipts import folder_for_receipts, save_receipts
from countersign.cli.search_discharge import discharge
from countersign.cli.search_explain import explain
from countersign.cli.search_view import (
    print_candidates,
    print_decision,
    print_receipt,
    print_search,
    print_searches,
    state_word,
)
from countersign.client import (
    Client,
    ClientSettings,
    OpenedAnswer,
    PreparedSearch,
    verify_check,
    verify_search,
)
from countersign.client.calls import END_STATES, WAIT_S, officer_of
from countersign.client.prepare import NotPrepared
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from shared.entry_json import message_dict

PAGE_MAX: Final = 200
LISTED_MAX: Final = 10_000

_GOOD_STATES: Final = frozenset({pb.SEARCH_STATE_ANSWERED, pb.SEARCH_STATE_PENDING})


@click.group()
def search() -> None:
    """Ask for face searches and follow them."""


search.add_command(discharge)
search.add_command(explain)


@search.command()
@facts_options
@officer_options
@config_option
@json_option
def check(
    stated: StatedFacts, officer: str | None, token_file: Any, config: Path, as_json: bool
) -> int:
    """Ask what every party would say. Nothing is sent; the question is recorded.

    Exit code 1 when the search would be refused.

    \b
    Example:
      countersign search check --officer lapd-40123 --own-case --case-number 26-0001 \\
        --system lacris --gallery lacris-booking --purpose criminal-investigation \\
        --suspicion reasonable-suspicion --severity violent-felony --nibrs 120 \\
        --provenance crime-scene-recording --capture stored-video-frame
    """
    settings = load(config)
    facts = stated.of(settings.agency)
    token = token_for(settings, facts.search_id, officer, token_file)
    answer = run(_check(settings, facts, token))
    if as_json:
        print_json({"search_id": facts.search_id, **message_dict(answer)})
    else:
        print_decision(out(), answer.decision)
        print_receipt(out(), "question", answer.receipt)
    permitted = answer.decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
    return OK if permitted else REFUSED


async def _check(
    settings: ClientSettings, facts: SearchFacts, token: str
) -> pb.CheckSearchResponse:
    async with Client.connect(settings) as client:
        with progress("asking every party"):
            answer = await client.check(facts, token)
        verify_check(answer, facts, client.trust)
    return answer


@search.command()
@click.argument("probe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@facts_options
@officer_options
@config_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the answer.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=WAIT_S,
    show_default=True,
    help="How many seconds to wait.",
)
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save the receipts here, to be verified offline.",
)
@json_option
def submit(
    probe: Path,
    stated: StatedFacts,
    officer: str | None,
    token_file: Any,
    config: Path,
    wait: bool,
    timeout: float,
    receipts: Path | None,
    as_json: bool,
) -> int:
    """Search for the face in the picture PROBE (JPEG, PNG or JPEG 2000).

    The picture is cleaned and sealed here: only the system that searches can see it. Every receipt is
    verified before anything is shown. Exit code 1 when the search is refused or gives no list.

    \b
    Example:
      countersign search submit probe.jpg --officer lapd-40123 --own-case --case-number 26-0001 \\
        --system lacris --gallery lacris-booking --purpose criminal-investigation \\
        --suspicion reasonable-suspicion --severity violent-felony --nibrs 120 \\
        --provenance crime-scene-recording --capture stored-video-frame \\
        --receipts receipts
    """
    settings = load(config)
    facts = stated.of(settings.agency)
    if receipts is not None:
        folder_for_receipts(receipts, "--receipts")
    token = token_for(settings, facts.search_id, officer, token_file)
    wait_s = timeout if wait else None
    with again(facts.search_id):
        found, answer = run(submit_search(settings, facts, probe.read_bytes(), token, wait_s))
    return _show(found, answer, receipts, as_json)


async def submit_search(
    settings: ClientSettings,
    facts: SearchFacts,
    picture: bytes,
    token: str,
    wait_s: float | None,
) -> tuple[pb.Search, OpenedAnswer | None]:
    """Submits, waits unless `wait_s` is None, verifies all and opens the answer."""
    async with Client.connect(settings) as client:
        who = officer_of(token)
        prepared = _prepared(client, settings, facts, picture, who)
        # Before the search is sent: a key that was lost afterwards could not be had again.
        prepared.save(settings.state)
        _remember_officer(settings, facts.search_id, who)
        with progress("asking every party, recording their decision"):
            found = await client.submit(prepared, token)
        if wait_s is not None and found.state not in END_STATES:
            with progress(f"waiting for {facts.system} to answer"):
                found = await client.wait(facts.search_id, wait_s)
        return found, _verified(client, facts.search_id, found, (prepared, who))


def _prepared(
    client: Client, settings: ClientSettings, facts: SearchFacts, picture: bytes, who: str
) -> PreparedSearch:
    """The same bytes when the search was submitted before, so that it is the same search."""
    kept = _sent(settings, facts.search_id)
    if kept is None:
        return client.prepare(facts, picture)
    if kept[0].facts != facts or kept[1] != who:
        # To keep another key under this id would make the first search's answer unreadable.
        raise click.UsageError(
            f"search {facts.search_id} was submitted from here with other facts or for another "
            "officer; leave --id out for a new search"
        )
    return kept[0]


def _verified(
    client: Client, asked_id: str, found: pb.Search, sent: tuple[PreparedSearch, str] | None
) -> OpenedAnswer | None:
    """Checks all that the broker says; opens the answer when there is one and its key is here."""
    prepared, who = sent or (None, None)
    verify_search(found, asked_id, client.trust, prepared, who)
    if sent is None or not found.HasField("answer"):
        return None
    return client.open_answer(sent[0], found, sent[1])


def _sent(settings: ClientSettings, search_id: str) -> tuple[PreparedSearch, str] | None:
    """What was sent from here under this id, and for which officer."""
    try:
        who = _officer_file(settings, search_id).read_text(encoding="utf-8")
        return PreparedSearch.load(settings.state, search_id), who
    except (NotPrepared, OSError):
        return None


def _officer_file(settings: ClientSettings, search_id: str) -> Path:
    return settings.state / f"{search_id}.officer"


def _remember_officer(settings: ClientSettings, search_id: str, who: str) -> None:
    """The decision is bound to the officer, who must be known again when the answer is opened."""
    path = _officer_file(settings, search_id)
    path.touch(mode=0o600)
    path.write_text(who, encoding="utf-8")


def _show(
    found: pb.Search, answer: OpenedAnswer | None, receipts: Path | None, as_json: bool
) -> int:
    saved, unsaved = _save(receipts, found)
    candidates = answer.candidates if answer is not None else None
    if as_json:
        document = message_dict(found)
        if candidates is not None:
            document["candidate_list"] = message_dict(candidates)
        print_json(document)
    else:
        console = out()
        print_search(console, found)
        if candidates is not None:
            print_candidates(console, candidates)
        elif found.state == pb.SEARCH_STATE_ANSWERED:
            console.print("\nThe candidates open only where the search was submitted.")
        for path in saved:
            console.print(f"Receipt saved: {escape(str(path))}", soft_wrap=True)
    if unsaved is not None:
        again = f"Try again: countersign search get {found.search_id} --receipts DIR"
        err().print(f"Error: no receipts saved: {unsaved}. {again}", markup=False)
        return USAGE
    return OK if found.state in _GOOD_STATES else REFUSED


def _save(folder: Path | None, found: pb.Search) -> tuple[list[Path], OSError | None]:
    """A disk that has filled up must not keep the answer from being shown."""
    if folder is None:
        return [], None
    try:
        return save_receipts(folder, found), None
    except OSError as error:
        return [], error


@search.command()
@search_id_argument
@config_option
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save the receipts here, to be verified offline.",
)
@json_option
def get(search_id: str, config: Path, receipts: Path | None, as_json: bool) -> int:
    """Show a search, and its candidates if it was submitted from here.

    \b
    Example:
      countersign search get 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11 --receipts receipts
    """
    settings = load(config)
    if receipts is not None:
        folder_for_receipts(receipts, "--receipts")
    found, answer = run(_get(settings, search_id))
    return _show(found, answer, receipts, as_json)


async def _get(settings: ClientSettings, search_id: str) -> tuple[pb.Search, OpenedAnswer | None]:
    async with Client.connect(settings) as client:
        found = await client.get(search_id)
        return found, _verified(client, search_id, found, _sent(settings, search_id))


@search.command()
@search_id_argument
@config_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=WAIT_S,
    show_default=True,
    help="How many seconds to watch.",
)
@json_option
def watch(search_id: str, config: Path, timeout: float, as_json: bool) -> int:
    """Follow a search until it has ended. With --json, one document at the end.

    \b
    Example:
      countersign search watch 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11
    """
    settings = load(config)
    found, answer = run(_watch(settings, search_id, timeout))
    return _show(found, answer, None, as_json)


async def _watch(
    settings: ClientSettings, search_id: str, timeout_s: float
) -> tuple[pb.Search, OpenedAnswer | None]:
    async with Client.connect(settings) as client:
        first = await client.get(search_id)
        verify_search(first, search_id, client.trust)
        found = first
        if first.state not in END_STATES:
            err().print(f"{state_word(first)}", markup=False)
            with progress("waiting for the search to end"):
                found = await client.wait(search_id, timeout_s)
        return found, _verified(client, search_id, found, _sent(settings, search_id))


@search.command(name="list")
@config_option
@click.option(
    "--limit",
    type=click.IntRange(1, LISTED_MAX),
    default=50,
    show_default=True,
    help="How many at most.",
)
@json_option
def list_searches(config: Path, limit: int, as_json: bool) -> int:
    """List the agency's searches, newest first.

    \b
    Example:
      countersign search list --limit 10
    """
    found = run(_list(load(config), limit))
    if as_json:
        print_json({"searches": [message_dict(one) for one in found]})
    else:
        print_searches(out(), found)
    return OK


async def _list(settings: ClientSettings, limit: int) -> list[pb.Search]:
    found: list[pb.Search] = []
    async with Client.connect(settings) as client:
        token = ""
        while len(found) < limit:
            page = await client.list(min(PAGE_MAX, limit - len(found)), token)
            for one in page.searches:
                verify_search(one, one.search_id, client.trust)
            found += page.searches
            token = page.next_page_token
            if not token:
                break
    return found


@search.command()
@search_id_argument
@config_option
@json_option
def cancel(search_id: str, config: Path, as_json: bool) -> int:
    """Withdraw a search that has not ended.

    Exit code 1 when it had ended before.

    \b
    Example:
      countersign search cancel 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11
    """
    found = run(_cancel(load(config), search_id))
    if as_json:
        print_json(message_dict(found))
    else:
        if found.state != pb.SEARCH_STATE_WITHDRAWN:
            out().print("Not withdrawn: the search had ended before.")
        print_search(out(), found)
    return OK if found.state == pb.SEARCH_STATE_WITHDRAWN else REFUSED


async def _cancel(settings: ClientSettings, search_id: str) -> pb.Search:
    async with Client.connect(settings) as client:
        found = await client.cancel(search_id)
        _verified(client, search_id, found, _sent(settings, search_id))
        return found
