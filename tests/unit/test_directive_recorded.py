"""Whatever directives can read of a request can be put together again from its entry and its openings."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings

from broker.record import checked_entry, decided_entry
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1.policy_pb2 import EvaluateResponse, Parties
from countersign.type.v1.search_pb2 import SearchFacts
from directive.evaluate import Evaluator
from directive.recorded import (
    NOT_FOR_RULES,
    OPENED,
    READ_WITH,
    SUMMARISED,
    NotRederivable,
    RecordedSearch,
    openings_needed,
    recorded,
)
from ledger.entry import Completer
from shared.kinds import SCHEMA_EPOCH
from support.circumstances import circumstances, emergency, instrument, whole_registry
from support.clocks import ClockThatStandsStill
from support.directives import NOON, TRAINED, ordinary, shipped_book, vocabulary
from support.drawn_searches import searches
from support.ledgers import BROKER
from support.vaults import SEALER

EVERY = ["officer", *OPENED.values(), "search_id"]
WHOLE = ordinary(
    narrative="what happened",
    instrument_number="SW-26-1",
    emergency_basis="shots were heard",
    candidates_max=7,
    circumstances=circumstances(instrument=instrument(), emergency=emergency()),
)


def evaluator() -> Evaluator:
    return Evaluator(shipped_book(), whole_registry())


def response(facts: SearchFacts) -> EvaluateResponse:
    return EvaluateResponse(
        decision=evaluator().evaluate(facts, TRAINED, NOON), parties=Parties(operator_agency="X")
    )


def on_record(pending: PendingEntry) -> tuple[Entry, dict[str, str]]:
    """The entry as the ledger keeps it, and its openings."""
    completer = Completer(BROKER, ClockThatStandsStill(), sealer=SEALER)
    leaf = completer.complete(pending, "entry").leaf
    return Entry.FromString(leaf), {one.field: one.value for one in pending.sensitive}


def read_back(pending: PendingEntry) -> RecordedSearch:
    entry, openings = on_record(pending)
    found = recorded(3, entry, openings, EVERY)
    assert isinstance(found, RecordedSearch)
    return found


def test_of_every_fact_it_is_said_where_it_is_on_record() -> None:
    named = [*OPENED, *SUMMARISED, *NOT_FOR_RULES]
    assert sorted(named) == sorted(SearchFacts.DESCRIPTOR.fields_by_name)
    assert {*READ_WITH} <= {*vocabulary().facts}
    assert {*READ_WITH.values()} <= {*OPENED.values()}


@pytest.mark.parametrize("name", [*OPENED, *SUMMARISED])
def test_each_fact_is_put_together_again(name: str) -> None:
    found = read_back(decided_entry(WHOLE, TRAINED, response(WHOLE), b"", NOON))
    assert getattr(WHOLE, name), "it would not be missed"
    assert getattr(found.facts, name) == getattr(WHOLE, name)


@given(facts=searches())
@settings(max_examples=50)
def test_a_request_and_its_decision_are_put_together_again(facts: SearchFacts) -> None:
    if facts.HasField("beneficiary_agency") and not facts.beneficiary_agency:
        facts.ClearField("beneficiary_agency")  # the contract has no empty one
    evaluated = response(facts)
    facts.expires_after.CopyFrom(Duration(seconds=60))
    for pending in (
        decided_entry(facts, TRAINED, evaluated, b"", NOON),
        checked_entry(facts, TRAINED, evaluated),
    ):
        found = read_back(pending)
        expected = SearchFacts()
        expected.CopyFrom(facts)
        expected.ClearField("expires_after")
        expected.candidates_max = facts.candidates_max or 20
        assert (found.facts, found.officer, found.at) == (expected, TRAINED, NOON)
        assert (found.index, found.month, found.decision) == (3, "2026-06", evaluated.decision)
        again = evaluator().evaluate(found.facts, found.officer, found.at)
        assert again.SerializeToString(deterministic=True) == (
            evaluated.decision.SerializeToString(deterministic=True)
        )


def test_rules_need_no_other_openings_than_of_what_they_read() -> None:
    assert openings_needed(frozenset()) == ["officer"]
    assert openings_needed({"purpose", "caseNumber"}) == ["officer", "case_number"]
    assert openings_needed(vocabulary().facts) == [
        *("officer", "case_number", "narrative", "emergency_basis")
    ]


@pytest.mark.parametrize(
    ("gone", "wanted"),
    [
        (["officer"], ["officer"]),
        (["case_number"], ["officer", "case_number"]),
        (EVERY, ["officer"]),
    ],
)
def test_what_was_destroyed_is_not_guessed(gone: list[str], wanted: list[str]) -> None:
    entry, openings = on_record(decided_entry(WHOLE, TRAINED, response(WHOLE), b"", NOON))
    left = {field: value for field, value in openings.items() if field not in gone}
    found = recorded(3, entry, left, wanted)
    assert isinstance(found, NotRederivable)
    assert (found.agency, found.reason) == (WHOLE.origin_agency, "its openings were destroyed")


def test_what_was_not_asked_for_is_not_missed() -> None:
    entry, openings = on_record(decided_entry(WHOLE, TRAINED, response(WHOLE), b"", NOON))
    found = recorded(3, entry, {"officer": openings["officer"]}, ["officer"])
    assert isinstance(found, RecordedSearch)


def test_an_entry_of_a_newer_release_is_left_alone() -> None:
    entry, openings = on_record(decided_entry(WHOLE, TRAINED, response(WHOLE), b"", NOON))
    entry.schema_epoch = SCHEMA_EPOCH + 1
    found: Any = recorded(3, entry, openings, EVERY)
    assert found.reason == "written by a newer release"
    assert recorded(3, Entry(), {}, EVERY) is None


def test_the_peers_that_an_entry_names_are_read_with_it() -> None:
    entry, openings = on_record(decided_entry(WHOLE, TRAINED, response(WHOLE), b"", NOON))
    assert isinstance(plain := recorded(1, entry, openings, EVERY), RecordedSearch)
    assert (plain.referred_to, plain.referred_by) == ("", "")
    entry.search_decided.referred_to = "east.test"
    entry.search_decided.referred_by.peer = "west.test"
    assert isinstance(named := recorded(1, entry, openings, EVERY), RecordedSearch)
    assert (named.referred_to, named.referred_by) == ("east.test", "west.test")
