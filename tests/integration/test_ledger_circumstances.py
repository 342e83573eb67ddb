"""Oversight filters and counts by the circumstances under which searches were asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1 import circumstances_pb2 as said
from ledger.index import QueryIndex
from ledger.index_queries import count, page
from ledger.query_filters import dimensions_of, question_of, text_of
from support.attempts import attempt, by_officer
from support.disclosures import COMMISSION, LedgerUnderTest
from support.ledgers import ORIGIN
from support.terminals import Terminal

STATED = said.Circumstances(
    route=said.REQUEST_ROUTE_FUSION_CENTER,
    protected_basis=said.PROTECTED_BASIS_LAWFUL_ASSEMBLY,
    probe_edit=said.PROBE_EDIT_SUBSTANTIVE,
    investigation=said.INVESTIGATION_STAGE_ASSESSMENT,
    charge_status=said.CHARGE_STATUS_NOT_SUSPECTED,
    instrument=said.Instrument(kind=said.INSTRUMENT_KIND_SUBPOENA),
    emergency=said.Emergency(claimed=True),
)
WITHOUT = said.Circumstances(
    route=said.REQUEST_ROUTE_DIRECT,
    protected_basis=said.PROTECTED_BASIS_NONE,
    probe_edit=said.PROBE_EDIT_NONE,
    investigation=said.INVESTIGATION_STAGE_OPEN,
    charge_status=said.CHARGE_STATUS_CHARGED,
    instrument=said.Instrument(kind=said.INSTRUMENT_KIND_NONE),
    emergency=said.Emergency(claimed=False),
)
UNKNOWN, ORDINARY, UNUSUAL, END = range(4)


def _ended() -> Entry:
    entry = Entry()
    entry.search_failed.decided_index = UNUSUAL
    return entry


HISTORY = (
    attempt("lacris/booking", dry=False),
    attempt("lacris/booking", dry=False, circumstances=WITHOUT),
    attempt("lacris/booking", dry=False, circumstances=STATED, permitted=True),
    _ended(),
)
CASES = [
    ("routes", STATED.route, WITHOUT.route, "ROUTE", "FUSION_CENTER", "DIRECT"),
    (
        *("protected_bases", STATED.protected_basis, WITHOUT.protected_basis),
        *("PROTECTED_BASIS", "LAWFUL_ASSEMBLY", "NONE"),
    ),
    ("probe_edits", STATED.probe_edit, WITHOUT.probe_edit, "PROBE_EDIT", "SUBSTANTIVE", "NONE"),
    (
        *("investigations", STATED.investigation, WITHOUT.investigation),
        *("INVESTIGATION", "ASSESSMENT", "OPEN"),
    ),
    (
        *("charge_statuses", STATED.charge_status, WITHOUT.charge_status),
        *("CHARGE_STATUS", "NOT_SUSPECTED", "CHARGED"),
    ),
    (
        *("instruments", STATED.instrument.kind, WITHOUT.instrument.kind),
        *("INSTRUMENT", "SUBPOENA", "NONE"),
    ),
    ("emergency", True, False, "EMERGENCY", "CLAIMED", "NOT_CLAIMED"),
]


@pytest.fixture(name="index")
def _index(tmp_path: Path) -> Iterator[QueryIndex]:
    index = QueryIndex.create(tmp_path / "index.duckdb", ORIGIN)
    index.add([entry.SerializeToString() for entry in HISTORY])
    yield index
    index.close()


def found(index: QueryIndex, **bounds: Any) -> list[int]:
    return page(index, question_of(pb.EntryFilter(**bounds), len(HISTORY)), 10).indexes


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_searches_and_what_came_of_them_are_found_and_counted_by_each(
    index: QueryIndex, case: tuple[str, Any, Any, str, str, str]
) -> None:
    """Who said nothing is found neither as one who did nor as one who did not."""
    field, stated, without, dimension, word, other = case
    several = field != "emergency"
    assert found(index, **{field: [stated] if several else stated}) == [UNUSUAL, END]
    assert found(index, **{field: [without] if several else without}) == [ORDINARY]
    if several:
        assert found(index, **{field: [stated, without]}) == [ORDINARY, UNUSUAL, END]
    by = dimensions_of([pb.Dimension.Value(f"DIMENSION_{dimension}")])
    counts = count(index, question_of(pb.EntryFilter(), len(HISTORY)), by)
    assert counts.groups is not None
    groups = {text_of(by[0], one.values[0]): one.entries for one in counts.groups}
    assert groups == {"": 1, word: 2, other: 1}


async def test_the_commands_take_circumstances(
    ledger: LedgerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    at = len(await ledger.entries())
    for circumstances in (WITHOUT, STATED):
        one = attempt("lacris/booking", circumstances=circumstances)
        await ledger.append(by_officer(one, "officer-7"))
    terminal = Terminal(ledger.config(COMMISSION), capsys)
    for options in (
        ("--emergency",),
        ("--route", "fusion-center", "--instrument", "subpoena"),
        ("--protected-basis", "lawful-assembly", "--probe-edit", "substantive"),
        ("--investigation", "assessment", "--charge-status", "not-suspected"),
    ):
        document = (await terminal.read("query", *options, "--json")).document
        assert [one["index"] for one in document["entries"]] == [at + 1]
    document = (await terminal.read("query", "--no-emergency", "--json")).document
    assert [one["index"] for one in document["entries"]] == [at]
    document = (await terminal.read("count", "--by", "instrument", "--json")).document
    assert {one["instrument"]: one["entries"] for one in document["groups"]} == {
        "": at,
        "NONE": 1,
        "SUBPOENA": 1,
    }
