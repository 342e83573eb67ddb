"""A table in parts is a table, and never changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.parted import Parted

NAMES = st.sampled_from([f"officer-{number}" for number in range(40)])


@given(st.lists(st.tuples(st.sets(NAMES), st.dictionaries(NAMES, st.integers())), max_size=8))
def test_it_is_what_a_dictionary_would_be(changes: list[tuple[set[str], dict[str, int]]]) -> None:
    table: Parted[int] = Parted()
    plain: dict[str, int] = {}
    seen = []
    for removed, added in changes:
        there = removed & plain.keys()
        seen.append((table, dict(plain)))
        table = table.changed(there, added)
        plain = {name: value for name, value in plain.items() if name not in there} | added
        assert (len(table), dict(table)) == (len(plain), plain)
        assert all(name in table for name in plain)
    assert all(dict(before) == was for before, was in seen)


def test_what_is_not_there_is_not_taken_out() -> None:
    with pytest.raises(KeyError):
        Parted[int]().changed(["officer"], {})
    assert "officer" not in Parted[int]()
    assert Parted[int]().get("officer") is None
