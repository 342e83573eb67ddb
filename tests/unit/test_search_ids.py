"""Ids of searches are UUIDs of version 7: of their time first, and of nobody's guessing."""

import time
import uuid

from countersign.client import new_search_id


def test_new_id_is_a_uuid_of_its_time_and_no_other_is_the_same() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_search_id()) for _ in range(1_000)]
    after = time.time_ns() // 1_000_000
    assert all((one.version, one.variant) == (7, uuid.RFC_4122) for one in ids)
    assert all(before <= one.int >> 80 <= after for one in ids)
    # Of 74 random bits each takes both values in a thousand draws, and none is ever fixed.
    fixed_one, fixed_none = ids[0].int, ids[0].int
    for one in ids:
        fixed_one &= one.int
        fixed_none |= one.int
    assert bin((fixed_one ^ fixed_none) & ((1 << 76) - 1)).count("1") == 74
