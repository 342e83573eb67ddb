"""Tiles cut from the database: the bytes that the format asks for, at every size, and nothing unsigned."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.sqlite_reading import SqliteReading
from ledger.tile_files import TileFiles, is_within, parse_path
from ledger.tree import load_published
from shared.errors import NotReady
from support.exports import export_of
from support.filled_logs import entries_of, filled_log, grow
from support.ledgers import SIGNER
from tlog.merkle import leaf_hash, root_of_leaves
from tlog.tiles import TileName, tiles_of


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TileFiles]:
    with contextlib.closing(SqliteReading.open(path)) as reading:
        published = load_published(reading, [SIGNER.verifier])
        yield TileFiles(reading, lambda: published)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 700])
def test_every_file_of_every_earlier_size_is_what_the_format_asks_for(
    tmp_path: Path, size: int
) -> None:
    with opened(filled_log(tmp_path, size)) as files:
        for earlier in {0, 1, 255, 256, 257, size - 1, size}:
            if 0 <= earlier <= size:
                expected = export_of(entries_of(earlier), SIGNER)
                for name in tiles_of(earlier):
                    assert files.content(name) == expected[name.path], (earlier, name.path)
                assert files.root_at(earlier) == root_of_leaves(
                    [leaf_hash(one) for one in entries_of(earlier)]
                )
        assert files.content(TileName(None, size // 256, size % 256 + 1)) is None
        assert files.content(TileName(0, size // 256, size % 256 + 1)) is None


def test_two_levels_of_full_tiles(tmp_path: Path) -> None:
    """65,535, 65,536 and 65,537 entries: where the tile of level 1 fills, and level 2 begins."""
    entries = entries_of(65_537)
    path = filled_log(tmp_path, 65_535)
    for size in (65_535, 65_536, 65_537):
        if size > 65_535:
            grow(path, entries[size - 1 : size])
        expected = export_of(entries[:size], SIGNER)
        with opened(path) as files:
            for name in tiles_of(size):
                assert files.content(name) == expected[name.path], (size, name.path)
            assert (
                files.content(TileName(1, 0, 255))
                == expected["tile/1/000"[:10] + (".p/255" if size == 65_535 else "")][: 255 * 32]
            )


def test_the_vectors_of_the_specification(tmp_path: Path) -> None:
    vectors = {
        "tile/0/000": "b0f6ca2ff42508faf8c6bb4ea8bb9c74243b19d4174fdc4fd17bdad9099e605e",
        "tile/0/273.p/112": "e31da4e768fc0d0f1f1f0046a1c4b68d71326b04a07951a7d3dcefef0de9b8cd",
        "tile/1/000": "44f879be76da41edaf37c0d67303fbd25f2ea44be93285b320561fbaaaaabbfa",
        "tile/1/001.p/17": "5a8eb2fe63c90ddf7fd813d165c04fa79d6eca48534b61bd312fcd2d1cf0aef3",
        "tile/entries/273.p/112": "2ae1ce51fa31c2573335899beb5220aff9cd57b708ff07f4a04327914567f883",
    }
    with opened(filled_log(tmp_path, 70_000)) as files:
        for path, digest in vectors.items():
            name = parse_path(path)
            assert name is not None
            assert hashlib.sha256(files.content(name) or b"").hexdigest() == digest, path
        top = files.content(TileName(2, 0, 1)) or b""
        assert top.hex() == "07b1a377960a4e12e3348d6e9329ae6316a95b02fb1c22e909231b3aa44861a7"


@pytest.mark.parametrize(
    ("path", "size", "within"),
    [
        ("tile/0/000.p/1", 0, False),
        ("tile/0/000.p/1", 1, True),
        ("tile/0/000", 255, False),
        ("tile/0/000", 256, True),
        ("tile/1/000.p/1", 255, False),
        ("tile/1/000.p/1", 256, True),
        ("tile/2/000.p/1", 65_535, False),
        ("tile/2/000.p/1", 65_536, True),
        ("tile/63/000.p/1", 2**63 - 1, False),
        ("tile/entries/001.p/1", 256, False),
        ("tile/entries/001.p/1", 257, True),
    ],
)
def test_what_a_size_has(path: str, size: int, within: bool) -> None:
    name = parse_path(path)
    assert name is not None
    assert is_within(name, size) is within


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("damage", "asked", "said"),
    [
        ("UPDATE entries SET leaf = x'00' WHERE entry_index = 3", "tile/entries/000", "entry 3"),
        ("DELETE FROM entries WHERE entry_index = 3", "tile/entries/000.p/9", "entry 3"),
        (
            "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND number = 1",
            "tile/0/001.p/3",
            "tile 0/1",
        ),
        (
            "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND number = 0",
            "tile/entries/000",
            "tile 0/0",
        ),
        ("DELETE FROM tiles WHERE level = 0 AND number = 1", "tile/0/001", "tile 0/1"),
        ("UPDATE tiles SET hashes = zeroblob(31) WHERE number = 1", "tile/0/001", "tile 0/1"),
    ],
)
def test_what_was_damaged_is_not_given_out(
    tmp_path: Path, damage: str, asked: str, said: str
) -> None:
    path = filled_log(tmp_path, 700)
    name = parse_path(asked)
    assert name is not None
    with opened(path) as files:
        # It happens while the log is open; the right edge was verified before.
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA ignore_check_constraints = ON")
            for trigger in database.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
            ).fetchall():
                database.execute(f"DROP TRIGGER {trigger[0]}")
            database.execute(damage)
        with pytest.raises(NotReady) as refused:
            files.content(name)
    assert refused.value.reason == "LEDGER_DAMAGED"
    assert said in refused.value.message
