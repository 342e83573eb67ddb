"""`countersign search explain`: makes a decision on record again, bit for bit, and says by which rules."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from countersign.cli.connection import config_option, load, run
from countersign.cli.escaping import escape
from countersign.cli.facts import UUID
from countersign.cli.ground import ground_of, ground_options
from countersign.cli.output import (
    CONTRADICTED,
    OK,
    REFUSED,
    json_option,
    out,
    print_json,
)
from countersign.cli.search_view import print_decision
from countersign.cli.worlds import Source, documents_of, officers_opened, worlds_options
from countersign.client import ClientSettings, VerificationError
from countersign.client.disclosure import DisclosureClient
from countersign.client.ledger import LedgerClient
from countersign.client.verify import verify_receipt
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from countersign.type.v1.decision_pb2 import Decision
from directive.explain import Explanation
from directive.explain import explain as made_again
from directive.question import Fault
from directive.recorded import NotRederivable, RecordedSearch, openings_needed, recorded
from directive.worlds import NoSuchWorld, World, Worlds
from shared.entry_json import message_dict
from shared.errors import NotFound
from shared.registry import TrustRoots


@click.command()
@click.argument("search_id", type=UUID, metavar="[ID]", required=False)
@click.option(
    "--index", type=click.IntRange(0), default=None, help="Of a dry run: the index of its entry."
)
@worlds_options
@ground_options
@config_option
@json_option
def explain(
    search_id: str | None,
    index: int | None,
    config: Path,
    as_json: bool,
    source: Source,
    **chosen: Any,
) -> int:
    """Make the decision on search ID again, from the record, and compare it bit for bit.

    Reads those openings of its entry that the rules of the time could read: by right, and itself on record.
    Where its agency registered its officers in the ledger, these registrations are read too, and on record.
    Says by which rules, citations and sentences each party spoke, or exactly what differs.

    Exit code 1 when it cannot be made again as it was (a text is missing, the engine is another one), 7 when
    all is at hand and it comes out otherwise.

    \b
    Example:
      countersign search explain 0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11 \\
        --directives .countersign/directives --registry .countersign/registry.toml \\
        --authority "Los Angeles City Charter s. 573" --reason "Complaint 26-114"
    """
    if (search_id is None) == (index is None):
        raise click.UsageError("name either the search, or the --index of an entry")
    settings = load(config)
    worlds, found, peers = run(
        _read(settings, search_id or "", index, ground_of(settings, chosen), source)
    )
    if isinstance(found, NotRederivable):
        _cannot(found.index, found.reason, as_json)
        return REFUSED
    try:
        world = worlds.of(found.decision)
        untold = world.untold(found)
    except NoSuchWorld as unknown:
        untold = str(unknown)
    if untold:
        _cannot(found.index, untold, as_json)
        return REFUSED
    explanation = made_again(found, world, peers)
    if as_json:
        print_json(_document(explanation, world))
    else:
        _print(out(), explanation, world)
    if explanation.explained:
        return OK
    return CONTRADICTED if explanation.contradicts else REFUSED


async def _read(
    settings: ClientSettings,
    search_id: str,
    index: int | None,
    ground: pb.Ground,
    source: Source,
) -> tuple[Worlds, RecordedSearch | NotRederivable, Mapping[str, Collection[str]]]:
    """What was in force, the decision with its openings, and the peers' parties.

    Each entry and opening is proved, and the reading on record.
    """
    documents = await documents_of(settings)
    async with LedgerClient.connect(settings) as ledger:
        if index is None:
            wanted = ListEntriesRequest(search_id=search_id.lower(), kind="search_decided")
            index = await anext((one.index async for one in ledger.entries(wanted)), None)
        if index is None:
            raise NotFound("SEARCH_UNKNOWN", f"there is no decision on search {search_id}")
        entry = (await ledger.entry(index)).entry
    trust = TrustRoots.load(settings.trust_roots)
    # What directives read does not depend on officers.
    needed = openings_needed(source.worlds(documents, {}, trust).facts)
    fields = [one.field for one in entry.commitments if one.field in needed]
    if not fields:
        raise NotFound("SEARCH_UNKNOWN", f"entry {index} is no decision on a search")
    peers = {one.trust_domain: one.parties for one in trust.peers}
    async with DisclosureClient.connect(settings) as client:
        try:
            disclosed = await client.disclose(index, fields, ground)
        except NotFound as error:
            if error.reason != "OPENING_EXPUNGED":
                raise
            worlds = source.worlds(documents, {}, trust)
            return worlds, _recorded(index, entry, {}, fields), peers
    # From here on what counts is what was proved, and not what was listed.
    proved = verify_receipt(disclosed.entry_receipt, trust)
    if search_id and proved.search_id != search_id.lower():
        raise VerificationError("DECISION_MISMATCH", f"entry {index} is of another search")
    openings = {one.field: one.value for one in disclosed.openings}
    found = _recorded(index, proved, openings, fields)
    if isinstance(found, NotRederivable):
        return source.worlds(documents, {}, trust), found, peers
    known = [one for one in documents if one[0] <= found.decision.documents_index]
    opened = await officers_opened(settings, known, ground, _registered_by(found), proved)
    return source.worlds(documents, opened, trust), found, peers


def _registered_by(found: RecordedSearch) -> list[str]:
    """Whose registrations say how the officer stood: nobody's is named where that may be any agency."""
    faults = {fault for said in found.decision.verdicts for fault in said.faults}
    if faults & {Fault.UNKNOWN_OFFICER, Fault.OFFICER_OF_ANOTHER_AGENCY}:
        return []
    return [found.said.origin_agency]


def _recorded(
    index: int, entry: Entry, openings: Mapping[str, str], fields: list[str]
) -> RecordedSearch | NotRederivable:
    found = recorded(index, entry, openings, fields)
    if found is None:
        raise NotFound("SEARCH_UNKNOWN", f"entry {index} is no decision on a search")
    return found


def _cannot(index: int, reason: str, as_json: bool) -> None:
    if as_json:
        print_json({"index": index, "explained": False, "reason": reason})
    else:
        out().print(f"[bold red]NOT EXPLAINED[/]: entry {index}: {escape(reason)}", soft_wrap=True)


def _sentences(decision: Decision, world: World) -> dict[str, str]:
    """The source's sentence of each rule that spoke, from the text that was applied: another version of the
    same directive has rules of the same names.
    """
    applied = {(one.name, one.sha256) for said in decision.verdicts for one in said.directives}
    sentences = {
        rule.id: rule.source_sentence
        for name, one in world.book.directives.items()
        if (name, one.document.sha256) in applied
        for rule in one.rules
    }
    spoke = dict.fromkeys(rule.id for said in decision.verdicts for rule in said.rules)
    return {one: sentences[one] for one in spoke if sentences.get(one)}


def _print(console: Console, explanation: Explanation, world: World) -> None:
    search = explanation.search
    if not explanation.explained:
        console.print(
            f"[bold red]NOT EXPLAINED[/]: entry {search.index}: the decision does not come out as it is "
            "on record",
            soft_wrap=True,
        )
        for one in explanation.differences:
            console.print(f"  {escape(str(one))}", soft_wrap=True)
        if explanation.contradicts:
            console.print(
                "[bold red]Everything that it was made by is at hand[/]: the record or the engine is at "
                "fault (docs/directives.md).",
                soft_wrap=True,
            )
        return
    decision = search.decision
    console.print(
        f"[bold green]EXPLAINED[/]: entry {search.index}: made again bit for bit by "
        f"{escape(decision.engine)}, policy set {decision.policy_set_sha256.hex()}",
        soft_wrap=True,
    )
    for peer, count in explanation.taken.items():
        console.print(
            f"[bold yellow]{count} verdicts of {escape(peer)}[/] are taken from the record, not made again",
            soft_wrap=True,
        )
    print_decision(console, decision)
    for rule, sentence in _sentences(decision, world).items():
        console.print(f'{escape(rule)}: "{escape(sentence)}"', soft_wrap=True)


def _document(explanation: Explanation, world: World) -> dict[str, Any]:
    search = explanation.search
    return {
        "index": search.index,
        "search_id": search.facts.search_id,
        "explained": explanation.explained,
        "contradicts": explanation.contradicts,
        "taken_from_record": dict(explanation.taken),
        "decision": message_dict(search.decision),
        "sentences": _sentences(search.decision, world),
        "differences": [
            {
                "what": str(one.what),
                "about": one.about,
                "recorded": one.recorded,
                "now": one.now,
            }
            for one in explanation.differences
        ],
    }
