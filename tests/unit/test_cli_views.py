"""How results look: no word is cut, nothing is said twice, and bad values are named."""

import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console

from countersign.broker.v1.broker_pb2 import Search, SearchState, System
from countersign.cli.directive_view import print_list
from countersign.cli.ledger_lines import line
from countersign.cli.ledger_view import entry_rows, show_entry
from countersign.cli.main import exit_code
from countersign.cli.output import cells, print_error, print_json, table
from countersign.cli.search_view import print_decision, print_searches
from countersign.cli.system import rows_of
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import EntryRecord
from countersign.type.v1.circumstances_pb2 import InstrumentKind
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    DeterminingRule,
    Obligation,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import Purpose
from shared.entry_json import message_dict
from shared.errors import Unavailable
from shared.registry import TrustRoots

SEARCH = "0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11"
PERMIT = VerdictOutcome.VERDICT_OUTCOME_PERMIT
FORBID = VerdictOutcome.VERDICT_OUTCOME_FORBID
CANNOT_TELL = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
CITATION = "Office of the Chief of Police, Notice of 13 Nov 2020, first page"


def printed(width: int, show: Callable[[Console], None]) -> str:
    text = io.StringIO()
    show(Console(file=text, width=width, highlight=False))
    return text.getvalue()


def refused_by_two_seats() -> Decision:
    """One party forbids in two seats, one nobody knows, and one permits with a duty."""
    rule = DeterminingRule(id="LAPD-3", title="No searches for outside agencies", citation=CITATION)
    return Decision(
        outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED,
        verdicts=[
            Verdict(seat=Seat.SEAT_ORIGIN, party="CA0194200", outcome=FORBID, rules=[rule]),
            Verdict(seat=Seat.SEAT_OPERATOR, party="CA0194200", outcome=FORBID, rules=[rule]),
            Verdict(
                seat=Seat.SEAT_BENEFICIARY, outcome=CANNOT_TELL, faults=["BENEFICIARY_UNKNOWN"]
            ),
            Verdict(seat=Seat.SEAT_JURISDICTION, party="US-CA", outcome=PERMIT),
        ],
        obligations=[
            Obligation(kind="retain", parameters="90 days", rule_id="CA-1", party="US-CA")
        ],
    )


def record(decision: Decision) -> EntryRecord:
    entry = Entry(search_id=SEARCH)
    entry.recorded_at.FromSeconds(1_800_000_000)
    entry.search_decided.summary.system = "lacris"
    entry.search_decided.summary.gallery = "lacris-booking"
    entry.search_decided.summary.origin_agency = "CA0194200"
    entry.search_decided.request_sha256 = bytes(range(32))
    entry.search_decided.decision.CopyFrom(decision)
    return EntryRecord(index=7, entry=entry)


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_cut_in_a_list_of_entries(width: int) -> None:
    text = printed(
        width, lambda console: console.print(entry_rows([record(refused_by_two_seats())]))
    )
    for word in (SEARCH, "search_decided", "CA0194200", "lacris/lacris-booking"):
        assert word in text
    assert text.count("CA0194200: LAPD-3") == 1, "a party in two seats is one party"
    assert "BENEFICIARY_UNKNOWN" in text
    assert "no rule" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_cut_in_a_decision(width: int) -> None:
    text = printed(width, lambda console: print_decision(console, refused_by_two_seats()))
    for word in f"LAPD-3 BENEFICIARY_UNKNOWN cannot-tell {CITATION}".split():
        assert word in text
    assert ("where it is written" in text.splitlines()[2]) == (width == 120)
    assert max(map(len, text.splitlines())) <= width
    blank = [line for line in text.splitlines() if not line.strip(" ")]
    assert not any(blank), "an empty line is empty"


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_cut_in_a_list_of_searches(width: int) -> None:
    search = Search(search_id=SEARCH, state=SearchState.SEARCH_STATE_PENDING)
    search.summary.system = "lacris"
    search.summary.purpose = Purpose.PURPOSE_CRIMINAL_INVESTIGATION
    search.decide_time.FromSeconds(1_800_000_000)
    text = printed(width, lambda console: print_searches(console, [search]))
    for word in (SEARCH, "criminal-investigation", "unknown", "lacris"):
        assert word in text
    assert max(map(len, text.splitlines())) <= width


def test_a_party_that_would_be_asked_at_a_peer_is_not_said_to_have_refused() -> None:
    decision = refused_by_two_seats()
    decision.verdicts.add(
        seat=Seat.SEAT_JURISDICTION,
        party="US-NV",
        outcome=CANNOT_TELL,
        faults=["ASKED_AT_PEER"],
        asked_at="state-b.example",
    )
    said = printed(200, lambda console: print_decision(console, decision))
    assert "Refused by CA0194200, an unknown party. Nothing was sent." in said
    assert "US-NV" in said


def test_table_that_cannot_fit_loses_nothing() -> None:
    rows = table("a", "b")
    rows.add_row(*cells("x" * 30, "[y]"))
    text = printed(12, lambda console: console.print(rows))
    assert text.count("x") == 30
    assert "y" in text


def test_digests_are_shown_in_hex() -> None:
    shown = show_entry(record(refused_by_two_seats()))
    assert bytes(range(32)).hex() in printed(120, lambda console: console.print(shown))


def test_fault_of_the_request_is_said_once() -> None:
    decision = refused_by_two_seats()
    for verdict in decision.verdicts:
        verdict.outcome = CANNOT_TELL
        del verdict.rules[:]
        verdict.faults.insert(0, "UNKNOWN_OFFICER")
    text = printed(120, lambda console: print_decision(console, decision))
    assert text.count("UNKNOWN_OFFICER") == 1
    assert text.count("BENEFICIARY_UNKNOWN") == 1
    assert "CA0194200" not in text
    listed = printed(120, lambda console: console.print(entry_rows([record(decision)])))
    assert listed.count("UNKNOWN_OFFICER") == 1


@pytest.mark.parametrize("peer", ["", "lasd.test"])
def test_a_system_at_a_peer_is_listed_with_the_peer(peer: str) -> None:
    systems = [System(id="facefind", name="Face Find"), System(id="lacris", peer=peer)]
    nobody = TrustRoots(log_verifier_keys=("a log",), broker_verify_keys=(bytes(32),))
    listed = printed(200, lambda console: console.print(rows_of(systems, nobody)))
    assert ("at peer" in listed, listed.count("lasd.test")) == (bool(peer), int(bool(peer)))


def test_nothing_found_is_said() -> None:
    assert printed(80, lambda console: print_searches(console, [])) == "No searches.\n"
    assert printed(80, lambda console: print_list(console, [])) == "No directives.\n"


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (
            "no address answers; last error: UNKNOWN: ipv4:127.0.0.1:1: connect: Connection refused",
            "Error: 127.0.0.1:1: connection refused [UNREACHABLE]",
        ),
        (
            "DNS resolution failed for ledger.example:443: C-ares status is not ARES_SUCCESS",
            "Error: ledger.example:443: cannot be reached (",
        ),
        ("Socket closed", "Error: Socket closed [UNREACHABLE]"),
    ],
)
def test_address_that_cannot_be_reached_comes_first(
    detail: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_error(Unavailable("UNREACHABLE", detail))
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "option", "expected"),
    [
        (("search", "get", "7"), "ID", "a UUID"),
        (("search", "check", "--id", "7"), "--id", "a UUID"),
        (("search", "check", "--beneficiary", "burbank"), "--beneficiary", "an ORI"),
        (("search", "check", "--nibrs", "robbery"), "--nibrs", "a NIBRS code"),
        (("officer", "token", "--search-id", ""), "--search-id", "a UUID"),
    ],
)
def test_value_of_another_form_is_a_usage_error(
    arguments: tuple[str, ...], option: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code([*arguments, "--config", "none.toml"]) == 2
    said = capsys.readouterr().err
    assert option in said
    assert expected in said


def test_a_refusal_names_the_instruments_that_would_cure_it_once() -> None:
    kinds = [
        InstrumentKind.INSTRUMENT_KIND_SEARCH_WARRANT,
        InstrumentKind.INSTRUMENT_KIND_COURT_ORDER,
    ]
    refused = Verdict(party="US-MA", outcome=FORBID, cured_by_instruments=kinds)
    decision = Decision(outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED, verdicts=[refused] * 2)
    said = printed(120, lambda console: print_decision(console, decision))
    line = "An instrument in force would cure it for US-MA: search warrant or court order."
    assert said.count(line) == 1


def test_words_of_a_newer_program_are_shown_by_their_numbers() -> None:
    strange = Verdict(party="CA0194200", outcome=77)  # type: ignore[arg-type]
    decision = Decision(outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED, verdicts=[strange])
    assert "77" in printed(120, lambda console: print_decision(console, decision))
    search = Search(search_id=SEARCH, state=99)  # type: ignore[arg-type]
    assert "99" in printed(120, lambda console: print_searches(console, [search]))


COMMANDS = ("\x1b[2K\x1b[1A", "\x9b31m", "\x1b]0;title\x07", "\r", "\u202e", "\x7f", "\u2028")


@pytest.mark.promise(4)
@pytest.mark.parametrize("command", COMMANDS)
def test_attack_what_is_on_record_commands_no_terminal(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ledger that writes an entry could otherwise write VERIFIED over what the command found."""
    entry = Entry(schema_epoch=1, search_id=f"a{command}search")
    entry.request_rejected.reason = f"because{command}so"
    record = EntryRecord(index=3, leaf=entry.SerializeToString(), entry=entry)
    print_error(Unavailable("REASON", f"from{command}a server", metadata={"more": command}))
    for shown in (
        printed(120, lambda console: console.print(entry_rows([record]))),
        printed(120, lambda console: console.print(show_entry(record))),
        capsys.readouterr().err,
    ):
        assert "\N{REPLACEMENT CHARACTER}" in shown
        assert command not in shown
    print_json(message_dict(record))
    whole = capsys.readouterr().out
    line(message_dict(record))
    for said in (whole, capsys.readouterr().out):
        assert command not in said
        assert json.loads(said)["entry"]["search_id"] == entry.search_id, "a program gets it all"
