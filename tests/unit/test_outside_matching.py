"""Which rows of an audit export searches on record account for."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.client import outside
from countersign.client.audit_export import AuditRow
from countersign.client.outside import Found, Rows, Searched, TooManyUsers, match

OUT, ID, OFFICER, TIME = Found.OUTSIDE, Found.BY_ID, Found.BY_OFFICER, Found.BY_TIME


def row(at: int, user: str = "x", search: str = "") -> AuditRow:
    return AuditRow(1, at, at, user, "", "", search, "")


def name(number: int) -> str:
    return str(UUID(int=number))


def matched(
    rows: list[AuditRow],
    searches: dict[str, Searched],
    of_user: dict[str, set[str]] | None = None,
    window: int = 0,
) -> list[int]:
    held = Rows()
    for one in rows:
        held.add(one)
    return list(match(held, searches, of_user or {}, window).rows)


ONE, TWO, THREE = (name(number) for number in (1, 2, 3))
EARLY, LATE = Searched(10, 20), Searched(100, 110)


def test_a_row_is_matched_by_its_id_whatever_the_clock_says() -> None:
    assert matched([row(999, search=ONE), row(999, search=ONE)], {ONE: EARLY}) == [ID, ID]


def test_an_id_that_is_not_on_record_is_outside_though_the_time_would_fit() -> None:
    assert matched([row(15, search=TWO)], {ONE: EARLY}) == [OUT]


def test_a_search_accounts_for_one_row_only() -> None:
    assert matched([row(15), row(16)], {ONE: EARLY}) == [TIME, OUT]
    assert matched([row(15, search=ONE), row(16)], {ONE: EARLY}) == [ID, OUT]


def test_a_row_before_the_decision_or_after_the_end_is_outside() -> None:
    rows = [row(4), row(5), row(25), row(26)]
    assert matched(rows, {ONE: EARLY, TWO: EARLY, THREE: EARLY}, window=5) == [OUT, TIME, TIME, OUT]


def test_an_officers_rows_are_accounted_for_by_that_officers_searches() -> None:
    searches = {ONE: EARLY, TWO: EARLY}
    rows = [row(15, "a"), row(16, "a"), row(17, "b")]
    assert matched(rows, searches, {"a": {ONE}}) == [OFFICER, OUT, TIME]
    assert matched([row(15, "b"), row(16, "b")], searches, {"a": {ONE}}) == [TIME, OUT]
    assert matched([row(15, "a")], searches, {"a": set()}) == [OUT]


def test_an_hour_that_is_shown_twice_is_matched_by_either_time() -> None:
    held = Rows()
    held.add(AuditRow(1, 0, 105, "x", "", "", "", ""))
    assert list(match(held, {ONE: LATE}, {}, 0).rows) == [TIME]


def test_searches_without_a_row_are_told() -> None:
    held = Rows()
    held.add(row(15))
    assert match(held, {ONE: EARLY, TWO: LATE}, {}, 0).unused == {TWO}


def test_a_column_that_holds_no_users_is_refused() -> None:
    held = Rows()
    for number in range(outside.USERS_MAX):
        held.add(row(1, str(number)))
    with pytest.raises(TooManyUsers):
        held.add(row(1, "one more"))


SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=6)


@given(st.lists(st.integers(0, 20), max_size=6), SPANS)
def test_as_many_rows_as_possible_are_accounted_for(
    times: list[int], spans: list[tuple[int, int]]
) -> None:
    """Else a row would be called outside by the accident of which search was taken first."""
    searches = {name(n + 1): Searched(a, a + length) for n, (a, length) in enumerate(spans)}
    found = matched([row(time) for time in times], searches)
    assert found.count(TIME) == _most(times, list(searches.values()))


def _most(times: list[int], searches: list[Searched]) -> int:
    """By trying everything (augmenting paths)."""
    taken: dict[int, int] = {}

    def place(time: int, seen: set[int]) -> bool:
        for number, one in enumerate(searches):
            if one.from_us <= times[time] <= one.until_us and number not in seen:
                seen.add(number)
                if number not in taken or place(taken[number], seen):
                    taken[number] = time
                    return True
        return False

    return sum(place(time, set()) for time in range(len(times)))
