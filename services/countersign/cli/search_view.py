"""Searches, decisions and candidates as a person reads them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from countersign.broker.v1.broker_pb2 import PeerSearch, Search, SearchState
from countersign.cli.escaping import escape
from countersign.cli.facts import word_of
from countersign.cli.output import cells, table
from countersign.cli.search_faults import every_fault, fault_text, faults_of_all
from countersign.connector.v1.connector_pb2 import CandidateList, FailureReason
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.circumstances_pb2 import InstrumentKind
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Receipt,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import Purpose
from shared.entry_facts import short_name

_PASSED = {
    DecisionOutcome.DECISION_OUTCOME_PERMITTED: "[bold green]Permitted[/]: every party permits.",
    DecisionOutcome.DECISION_OUTCOME_REFERRED: "[bold green]Referred[/]: every party that was asked here "
    "permits; a peer asks the others.",
}
_STYLES = {
    SearchState.SEARCH_STATE_REFUSED: "bold red",
    SearchState.SEARCH_STATE_ANSWERED: "bold green",
    SearchState.SEARCH_STATE_PENDING: "bold yellow",
}


def state_word(search: Search) -> str:
    """Where it stands, in one word."""
    return word_of(SearchState, search.state)


def time_text(time: Timestamp) -> str:
    """Local time, to the second; a dash when there is none."""
    if not time.ByteSize():
        return "-"
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def print_search(console: Console, search: Search) -> None:
    """The search, what the parties said, and its receipts."""
    style = _STYLES.get(search.state, "bold")
    console.print(f"Search {escape(search.search_id)}  [{style}]{state_word(search)}[/]")
    print_decision(console, search.decision)
    if search.state == SearchState.SEARCH_STATE_FAILED:
        reason = word_of(FailureReason, search.failure_reason)
        console.print(f"\nThe system gave no list: {reason}")
    if search.state == SearchState.SEARCH_STATE_PENDING:
        console.print(f"\nWaits for the system until {time_text(search.deadline)}.")
    print_receipt(console, "decision", search.decision_receipt)
    if search.HasField("end_receipt"):
        print_receipt(console, "end", search.end_receipt)
    if search.HasField("peer"):
        _print_peer(console, search.peer)


def _print_peer(console: Console, peer: PeerSearch) -> None:
    """What the peer said, of which the receipts were verified."""
    console.print(f"\nAt {escape(peer.trust_domain)}:")
    print_decision(console, Entry.FromString(peer.decision_receipt.leaf).search_decided.decision)
    print_receipt(console, "decision there", peer.decision_receipt, "its ledger")
    if peer.HasField("end_receipt"):
        print_receipt(console, "end there", peer.end_receipt, "its ledger")


def print_decision(console: Console, decision: Decision) -> None:
    """What each party says and by which rule, refusals first; then what would cure them."""
    if faults_of_all(decision):
        # No rule was applied: a table of parties would say the same of each of them.
        console.print(
            "[bold red]Refused[/]: no party can tell what its directives say. Nothing was sent."
        )
        for fault in every_fault(decision):
            console.print(f"\n{escape(fault)}: {escape(fault_text(fault))}")
        return
    verdict = _PASSED.get(decision.outcome) or _refusal(decision)
    console.print(f"{verdict}\n")
    parties = table(
        *("party", "as", "says", "rule", "what it says", "where it is written"),
        text={"as", "what it says", "where it is written"},
        below={"where it is written": "what it says", "rule": "says", "as": "party"},
    )
    for voice in sorted(_voices(decision.verdicts), key=lambda voice: voice.permits):
        rows = voice.rows or [("-", "no rule permits it", "")]
        for number, row in enumerate(rows):
            head = (voice.party, voice.seats, voice.says) if number == 0 else ("", "", "")
            parties.add_row(*cells(*head, *row))
    console.print(parties)
    _print_cures(console, decision)
    if decision.obligations:
        duties = table(
            *("duty", "parameters", "party", "rule"),
            title="Duties that come with it",
            text={"parameters"},
        )
        for duty in decision.obligations:
            duties.add_row(*cells(duty.kind, duty.parameters, duty.party, duty.rule_id))
        console.print()
        console.print(duties)


@dataclass
class _Voice:
    """What one party says, in all the seats in which it says the same."""

    party: str
    seats: str
    says: str
    permits: bool
    rows: list[tuple[str, str, str]]


def _voices(verdicts: Iterable[Verdict]) -> list[_Voice]:
    voices: list[_Voice] = []
    for said in verdicts:
        seat = word_of(Seat, said.seat)
        rows = [(rule.id, rule.title, rule.citation) for rule in said.rules]
        rows += [(fault, fault_text(fault), "") for fault in said.faults]
        rows += [("", f"Not known: {', '.join(said.unknown_facts)}", "")] * bool(said.unknown_facts)
        voice = _Voice(
            party=said.party or "unknown",
            seats=seat,
            says=word_of(VerdictOutcome, said.outcome),
            permits=said.outcome == VerdictOutcome.VERDICT_OUTCOME_PERMIT,
            rows=rows,
        )
        same = [one for one in voices if replace(one, seats=seat) == voice]
        if same:
            same[0].seats += f", {seat}"
        else:
            voices.append(voice)
    return voices


def _refusal(decision: Decision) -> str:
    names = dict.fromkeys(
        said.party or "an unknown party"
        for said in decision.verdicts
        # Whoever would have been asked at a peer was not: the search was not referred.
        if said.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT and not said.asked_at
    )
    who = ", ".join(names) or "nobody was there to permit it"
    return f"[bold red]Refused[/] by {escape(who)}. Nothing was sent."


def _print_cures(console: Console, decision: Decision) -> None:
    # A party in two seats misses the same in both.
    cured = dict.fromkeys(
        (said.party, " or ".join(map(_instrument, said.cured_by_instruments)))
        for said in decision.verdicts
        if said.cured_by_instruments
    )
    for party, kinds in cured:
        console.print(f"\nAn instrument in force would cure it for {escape(party)}: {kinds}.")
    missing = [
        (said.party, unmet.rule_id, unmet.requirement, unmet.citation)
        for said in decision.verdicts
        if said.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT
        for unmet in said.unmet
    ]
    if not missing:
        return
    cures = table(
        *("party", "rule", "what is missing", "where it is written"),
        title="What would cure it",
        text={"what is missing", "where it is written"},
        below={"where it is written": "what is missing"},
    )
    for row in dict.fromkeys(missing):
        cures.add_row(*cells(*row))
    console.print()
    console.print(cures)


def _instrument(kind: int) -> str:
    return short_name(InstrumentKind, kind).lower().replace("_", " ")


def print_receipt(
    console: Console, what: str, receipt: Receipt, ledger: str = "the ledger"
) -> None:
    """One line on where it is on record."""
    console.print(f"\nThe {what} is on record as entry {receipt.index} of {ledger}.")


def print_candidates(console: Console, found: CandidateList) -> None:
    """The candidates in the order of their scores, and the notice that must be shown with them."""
    scale = found.score_scale
    title = (
        f"{len(found.candidates)} candidates from {found.gallery_size} records of {found.gallery}"
    )
    ranked = table("rank", "candidate", "score", "possible match", title=escape(title))
    for candidate in found.candidates:
        possible = "yes" if candidate.above_threshold else "no"
        score = f"{candidate.similarity_score:.3f}"
        ranked.add_row(*cells(candidate.rank, candidate.candidate_id, score, possible))
    console.print()
    console.print(ranked)
    console.print(
        f"Scores by {escape(scale.algorithm)}; possible match from {scale.threshold:g} on."
    )
    console.print(f"\n[bold]{escape(found.notice)}[/]")


def print_searches(console: Console, searches: Iterable[Search]) -> None:
    """One row for each search."""
    searches = list(searches)
    if not searches:
        console.print("No searches.")
        return
    rows = table(
        *("search", "state", "decided", "system", "purpose", "on behalf of"),
        below={"on behalf of": "system", "purpose": "decided", "system": "search"},
    )
    for search in searches:
        summary = search.summary
        rows.add_row(
            *cells(
                search.search_id,
                state_word(search),
                time_text(search.decide_time),
                summary.system,
                word_of(Purpose, summary.purpose),
                summary.beneficiary_agency or "unknown",
            )
        )
    console.print(rows)
