"""The check finds every kind of damage in a real file, and says where."""

import contextlib

import pytest

from ledger.check import CheckFailed, check
from ledger.log import opened
from ledger.reading import StorageFailed
from support.databases import DatabaseUnderTest, SqliteUnderTest
from support.ledgers import SIGNER, assert_whole, complete, decided, failed, search_id


@pytest.fixture(name="database")
async def _full(database: DatabaseUnderTest) -> DatabaseUnderTest:
    """A log of 300 permitted searches, of which the last has ended."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(*(decided(n) for n in range(300))))
        await log.sequencer.append(complete(failed(299)))
    return database


def test_whole_file_is_found_whole(database: DatabaseUnderTest) -> None:
    checked = assert_whole(database)
    assert (checked.checkpoint.size, checked.tiles) == (301, 1)
    assert (checked.openings, checked.open_searches) == (900, 299)


def test_progress_ends_at_the_size(database: DatabaseUnderTest) -> None:
    told: list[tuple[int, int]] = []
    reading = database.open_for_reading()
    check(reading, [SIGNER.verifier], lambda done, of: told.append((done, of)))
    reading.close()
    assert told == [(256, 301), (301, 301)]


# Another entry in the place of this one, with index columns that fit.
SWAPPED = (
    "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE entry_index = {by}),"
    " search_id = (SELECT search_id FROM entries WHERE entry_index = {by}) WHERE entry_index = {at}"
)


OPENING_SWAPPED = (
    "UPDATE openings SET sealed = (SELECT sealed FROM openings WHERE entry_index = 6 AND"
    " field = 'officer') WHERE entry_index = 5 AND field = 'officer'"
)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE entries SET leaf = zeroblob(9) WHERE entry_index = 5", "entry 5: "),
        (SWAPPED.format(at=5, by=7), "tile 0/0"),
        (SWAPPED.format(at=297, by=298), "entries: they do not come to the root"),
        ("DELETE FROM entries WHERE entry_index = 5", "entry 5: it is missing"),
        ("DELETE FROM entries WHERE entry_index = 300", "300 are stored, 301 were signed for"),
        ("UPDATE entries SET kind = 17 WHERE entry_index = 5", "entry 5: its index columns"),
        ("UPDATE entries SET search_id = NULL WHERE entry_index = 5", "entry 5: its index columns"),
        ("UPDATE entries SET origin_agency = 'X' WHERE entry_index = 5", "entry 5: its index"),
        ("UPDATE tiles SET hashes = zeroblob(8192)", "tile 0/0: it does not hold"),
        ("DELETE FROM tiles", "tile 0/0: it is missing"),
        ("INSERT INTO tiles VALUES (0, 1, zeroblob(8192))", "tiles: 2 are stored, 1 are full"),
        (
            "UPDATE openings SET sealed = zeroblob(60) WHERE entry_index = 5",
            "opening 5/case_number",
        ),
        (
            OPENING_SWAPPED,
            "opening 5/officer: it cannot be decrypted",
        ),
        ("UPDATE openings SET slot = 1000 WHERE entry_index = 5", "opening 5/case_number"),
        ("UPDATE openings SET block = 1 WHERE entry_index = 5", "opening 5/case_number: its key"),
        (
            "UPDATE openings SET holder = 'X' WHERE entry_index = 5",
            "opening 5/case_number: its holder",
        ),
        (
            "UPDATE openings SET lookup_token = NULL WHERE field = 'officer'",
            "opening 0/officer: it",
        ),
        ("DELETE FROM openings WHERE entry_index = 5", "897 are stored, and 900 should be"),
        (
            "INSERT INTO openings VALUES (999, 'officer', 'X', 1, 1, zeroblob(1), NULL)",
            "opening 999/officer",
        ),
        ("INSERT INTO clear_openings VALUES (5, 'x', zeroblob(1), 'x')", "in the clear"),
        ("DELETE FROM open_searches WHERE decided_index = 5", "open searches"),
        ("INSERT INTO open_searches VALUES (1000, 'x')", "open searches"),
        ("UPDATE head SET size = 300", "head: size and root"),
        ("UPDATE head SET root = zeroblob(32)", "head: size and root"),
        ("UPDATE head SET checkpoint = 'x'", "head: "),
    ],
)
def test_damage_is_named_by_its_place(database: DatabaseUnderTest, change: str, found: str) -> None:
    database.change(change)
    with pytest.raises(CheckFailed, match=found):
        assert_whole(database)


@pytest.mark.parametrize("engine", ["sqlite"])
def test_flipped_byte_in_the_file_is_found(database: DatabaseUnderTest) -> None:
    """Not through SQL: one byte of each kind of row as it lies on the disk."""
    assert isinstance(database, SqliteUnderTest)
    path = database.path
    content = path.read_bytes()
    leaf = leaf_of(database, 150)
    places = [
        content.index(leaf) + len(leaf) // 2,
        content.index(b"CA0194200"),
        content.index(sealed_of(database, 150)),
        content.index(b"decided/" + search_id(150).encode()),
    ]
    for at in places:
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises((CheckFailed, StorageFailed)):
            assert_whole(database)


def sealed_of(database: DatabaseUnderTest, index: int) -> bytes:
    with contextlib.closing(database.open_for_reading()) as reading:
        return reading.openings_of(index)[0].sealed


def leaf_of(database: DatabaseUnderTest, index: int) -> bytes:
    reading = database.open_for_reading()
    leaf = reading.leaf(index)
    reading.close()
    assert leaf is not None
    return leaf
