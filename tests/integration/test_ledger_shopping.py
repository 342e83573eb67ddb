"""Who asked several routes for like facts until one permitted is found, and who did not is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from countersign.client import ClientSettings
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.query_pb2 import Dimension
from ledger.index import QueryIndex
from ledger.query_filters import shopping_question_of
from ledger.questions import FoundShopping
from ledger.shopping import LISTED_MAX, shopping
from shared.errors import InvalidRequest, NotAllowed
from support.attempts import BEGAN, attempt, by_officer
from support.disclosures import AUTHORITY, COMMISSION, INSPECTOR, LASD, Caller, LedgerUnderTest
from support.ledgers import LAPD, ORIGIN, SIGNER
from support.terminals import Terminal
from tlog.proof import verify_receipt

A, B, C = "lacris/booking", "facefind/web", "dmv/licences"
SHOPPED = [attempt(A), attempt(B, minutes=1), attempt(C, permitted=True, minutes=2)]
HOUR, DAY = 60, 24 * 60


def found(folder: Path, entries: Sequence[Entry], **asked: Any) -> FoundShopping:
    """What an index made of the entries answers."""
    start, size, indexes = (
        asked.pop("start", 0),
        asked.pop("size", len(entries)),
        asked.pop("of", None),
    )
    count_max, within_s = asked.pop("count_max", 20), asked.pop("within_s", None)
    wanted = pb.FindRouteShoppingRequest(**asked)
    if within_s is not None:
        wanted.within.FromSeconds(within_s)
    index = QueryIndex.create(folder / "index.duckdb", ORIGIN)
    try:
        index.add([entry.SerializeToString() for entry in entries])
        question = shopping_question_of(wanted, size, start, indexes)
        return shopping(index, question, count_max)
    finally:
        index.close()


def cases(folder: Path, entries: Sequence[Entry], **asked: Any) -> list[tuple[int, ...]]:
    """Each case as the indexes of its refusals and, last, of its permit."""
    return [(*one.last_refusals, one.permit) for one in found(folder, entries, **asked).cases]


def test_a_permit_after_other_routes_refused_is_shown_with_them(tmp_path: Path) -> None:
    (one,) = found(tmp_path, SHOPPED).cases
    assert (one.permit, one.last_refusals, one.refusals, one.routes) == (2, (0, 1), 2, 2)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([attempt(A), attempt(A, permitted=True)], []),
        ([attempt(A), attempt(A), attempt(B)], []),
        ([attempt(A, permitted=True), attempt(B)], []),
        ([attempt(A, permitted=True), attempt(B, permitted=True)], []),
        ([attempt("lacris/one"), attempt("lacris/two", permitted=True)], [(0, 1)]),
        ([attempt(A, dry=False), attempt(B, permitted=True, dry=False)], [(0, 1)]),
        ([attempt(A), attempt(A), attempt(B, permitted=True)], [(0, 1, 2)]),
        ([attempt(A), attempt(B), attempt(B, permitted=True)], [(0, 1, 2)]),
        ([attempt(A), attempt(B, permitted=True), attempt(B, permitted=True, dry=False)], [(0, 1)]),
        (
            [attempt(A), attempt(B, permitted=True), attempt(A), attempt(C, permitted=True)],
            [(0, 1), (2, 3)],
        ),
        ([attempt(A), attempt(B, permitted=True, agency=LASD)], []),
        ([attempt(A), attempt(B, permitted=True, offence="09A")], []),
        ([attempt(A), attempt(B, permitted=True, statute="PC 187")], []),
        ([attempt(A), attempt(B, permitted=True, beneficiary_agency=LASD)], []),
        ([attempt(A), attempt(B, permitted=True, suspicion=2)], []),
    ],
)
def test_other_routes_for_like_facts_of_one_agency_count_and_nothing_else(
    tmp_path: Path, entries: list[Entry], expected: list[tuple[int, ...]]
) -> None:
    assert cases(tmp_path, entries) == expected


def test_attempts_need_only_be_alike_in_what_is_asked_for(tmp_path: Path) -> None:
    entries = [attempt(A, suspicion=1), attempt(B, permitted=True, suspicion=4)]
    assert cases(tmp_path, entries) == []
    alike = [Dimension.DIMENSION_OFFENCE, Dimension.DIMENSION_PURPOSE]
    assert cases(tmp_path, entries, alike_in=alike) == [(0, 1)]


def test_a_refusal_counts_for_as_long_as_is_asked_for(tmp_path: Path) -> None:
    at_the_edge = [attempt(A), attempt(B, permitted=True, minutes=DAY)]
    too_late = [attempt(A), attempt(B, permitted=True, minutes=DAY + 0.01)]
    assert cases(tmp_path, at_the_edge) == [(0, 1)]
    assert cases(tmp_path, too_late) == []
    assert cases(tmp_path, too_late, within_s=2 * 86_400) == [(0, 1)]
    assert cases(tmp_path, SHOPPED, within_s=61) == [(1, 2)]


def test_the_time_asked_for_is_the_permits(tmp_path: Path) -> None:
    wanted = pb.FindRouteShoppingRequest()
    wanted.recorded_from.FromDatetime(BEGAN.replace(minute=2))
    assert cases(tmp_path, SHOPPED, recorded_from=wanted.recorded_from) == [(0, 1, 2)]
    assert cases(tmp_path, SHOPPED, recorded_until=wanted.recorded_from) == []
    wanted.recorded_from.FromDatetime(BEGAN.replace(minute=3))
    assert cases(tmp_path, SHOPPED, recorded_from=wanted.recorded_from) == []


def test_few_refused_routes_can_be_left_out(tmp_path: Path) -> None:
    assert cases(tmp_path, SHOPPED, refused_routes_min=2) == [(0, 1, 2)]
    assert cases(tmp_path, SHOPPED, refused_routes_min=3) == []


def test_of_many_refusals_the_last_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    many = [attempt(A, minutes=n) for n in range(LISTED_MAX + 5)]
    (one,) = found(tmp_path, [*many, attempt(B, permitted=True, minutes=HOUR)]).cases
    assert one.refusals == len(many)
    assert one.last_refusals == tuple(range(5, len(many)))


def test_a_tree_of_the_past_does_not_know_what_came_later(tmp_path: Path) -> None:
    assert cases(tmp_path, SHOPPED, size=2) == []


def test_attempts_of_one_agency_or_of_one_officer_can_be_asked_for(tmp_path: Path) -> None:
    both = [*SHOPPED, attempt(A, agency=LASD), attempt(B, agency=LASD, permitted=True)]
    assert cases(tmp_path, both) == [(0, 1, 2), (3, 4)]
    assert cases(tmp_path, both, origin_agency=LASD) == [(3, 4)]
    assert cases(tmp_path, SHOPPED, of=[1, 2]) == [(1, 2)]
    assert cases(tmp_path, SHOPPED, of=[]) == []


def test_pages_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    entries = [one for _ in range(3) for one in (attempt(A), attempt(B, permitted=True))]
    first = found(tmp_path, entries, count_max=2)
    assert ([one.permit for one in first.cases], first.next_index) == ([1, 3], 5)
    last = found(tmp_path, entries, count_max=2, start=5)
    assert ([one.last_refusals for one in last.cases], last.next_index) == ([(4,)], None)


async def asks(
    ledger: LedgerUnderTest, who: Caller, **request: Any
) -> pb.FindRouteShoppingResponse:
    settings = ClientSettings.load(ledger.config(who))
    async with LedgerQueryClient.connect(settings) as client:
        return await client.shopping(pb.FindRouteShoppingRequest(**request))


async def shopped(ledger: LedgerUnderTest) -> int:
    """Two officers who go from route to route; the index of the first attempt."""
    before = len(await ledger.entries())
    for officer in ("officer-7", "officer-8"):
        await ledger.append(*(by_officer(one, officer) for one in SHOPPED))
    return before


async def test_any_reader_finds_it_with_receipts(ledger: LedgerUnderTest) -> None:
    at = await shopped(ledger)
    answer = await asks(ledger, INSPECTOR, with_receipts=True, page_size=1)
    (one,) = answer.found
    assert [attempt.record.index for attempt in one.attempts] == [at, at + 1, at + 2]
    assert (one.refusals, one.refused_routes) == (2, 2)
    for each in one.attempts:
        verify_receipt(each.record.leaf, each.tlog_proof, SIGNER.verifier)
        assert each.record.entry == Entry.FromString(each.record.leaf)
    again = await asks(ledger, INSPECTOR, page_token=answer.next_page_token)
    assert [one.attempts[-1].record.index for one in again.found] == [at + 5]
    assert not again.next_page_token
    with pytest.raises(InvalidRequest, match="another question"):
        await asks(ledger, INSPECTOR, page_token=answer.next_page_token, origin_agency=LASD)


async def test_an_answer_that_is_full_keeps_the_permit_and_goes_on_with_the_next_page(
    ledger: LedgerUnderTest,
) -> None:
    at = len(await ledger.entries())
    large = attempt(A)
    large.search_checked.decision.verdicts.add().rules.add(id="LAPD-1", citation="c" * 60_000)
    for _ in range(LISTED_MAX):
        await ledger.append(by_officer(large, "officer-7"))
    await ledger.append(by_officer(SHOPPED[2], "officer-7"))
    await shopped(ledger)
    first = await asks(ledger, INSPECTOR)
    (one,) = first.found
    indexes = [each.record.index for each in one.attempts]
    assert indexes == list(range(indexes[0], at + LISTED_MAX + 1))
    assert (one.refusals, indexes[0] > at) == (LISTED_MAX, True)
    rest = await asks(ledger, INSPECTOR, page_token=first.next_page_token)
    assert [len(one.attempts) for one in rest.found] == [3, 3]


@pytest.mark.promise(7)
async def test_attempts_of_one_officer_are_found_by_right_and_on_record(
    ledger: LedgerUnderTest,
) -> None:
    at = await shopped(ledger)
    sought = pb.OpeningMatch(
        field="officer",
        value="officer-8",
        agency=LAPD,
        authority=AUTHORITY,
        request_id=str(uuid4()),
    )
    for who in (INSPECTOR, ("agency", LASD)):
        with pytest.raises(NotAllowed):
            await asks(ledger, who, opening=sought)
    assert not await ledger.entries("openings_searched")
    (one,) = (await asks(ledger, COMMISSION, opening=sought)).found
    assert [each.record.index for each in one.attempts] == [at + 3, at + 4, at + 5]
    ((_, entry),) = await ledger.entries("openings_searched")
    assert entry.openings_searched.found == 3


@pytest.mark.parametrize(
    "request_",
    [
        {"alike_in": [Dimension.DIMENSION_SYSTEM]},
        {"alike_in": [Dimension.DIMENSION_OFFENCE] * 2},
        {"origin_agency": "LAPD"},
        {"page_size": 51},
        {"within": pb.FindRouteShoppingRequest().within},
        {"page_token": "x"},
    ],
)
async def test_what_cannot_be_asked_is_refused(
    ledger: LedgerUnderTest, request_: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        await asks(ledger, INSPECTOR, **request_)


async def test_the_command_shows_each_permit_with_what_came_before(
    ledger: LedgerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    at = await shopped(ledger)
    terminal = Terminal(ledger.config(COMMISSION), capsys)
    said = await terminal.read("shopping", "--agency", LAPD)
    assert said.code == 0, said.err
    assert f"2 refused, then entry {at + 2}" in " ".join(said.out.split())
    assert "VERIFIED: each row is in the ledger" in said.err
    document = (await terminal.read("shopping", "--refused-routes", 2, "--json")).document
    indexes = [[each["index"] for each in one["attempts"]] for one in document["found"]]
    assert indexes == [[at, at + 1, at + 2], [at + 3, at + 4, at + 5]]
    by = ("--officer", "officer-7", "--authority", AUTHORITY, "--why", "Complaint 26-114")
    document = (await terminal.read("shopping", "--agency", LAPD, *by, "--json")).document
    assert [one["attempts"][-1]["index"] for one in document["found"]] == [at + 2]
    ((searched, _),) = await ledger.entries("openings_searched")
    assert await ledger.disclose(COMMISSION, searched, "reason") == ["Complaint 26-114"]
    assert "No permit" in (await terminal.read("shopping", "--agency", LASD)).out
    assert (await terminal.read("shopping", "--officer", "x")).code == 2
