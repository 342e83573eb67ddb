"""Tiles and entry bundles on the published vectors of a log of 70,000 entries."""

from hashlib import sha256

import pytest

from tlog.errors import TlogError
from tlog.merkle import TreeAtSize, leaf_hash
from tlog.tiles import (
    Tile,
    TileName,
    TreeEdge,
    decode_bundle,
    decode_tile,
    encode_bundle,
    holding,
    subtree_in,
    tiles_of,
)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "tile/0/000"),
        (TileName(0, 5), "tile/0/005"),
        (TileName(0, 273), "tile/0/273"),
        (TileName(0, 999), "tile/0/999"),
        (TileName(0, 1000), "tile/0/x001/000"),
        (TileName(0, 1234067), "tile/0/x001/x234/067"),
        (TileName(None, 1234067), "tile/entries/x001/x234/067"),
        (TileName(0, 273, 112), "tile/0/273.p/112"),
        (TileName(63, 1), "tile/63/001"),
        (TileName(None, 1000, 255), "tile/entries/x001/000.p/255"),
    ],
)
def test_paths_are_those_of_the_specification(name: TileName, path: str) -> None:
    assert name.path == path
    assert TileName.parse(path) == name


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/5",
        "tile/00/005",
        "tile/64/005",
        "tile/0/x000/005",
        "tile/0/1234067",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/data/000",
        "tile/0/001/000",
        "tile/0/000/",
        "../tile/0/000",
        "tile/0/\N{ARABIC-INDIC DIGIT ZERO}00",
        "tile/0/" + "x001/" * 50 + "000",
    ],
)
def test_path_with_another_spelling_is_refused(path: str) -> None:
    with pytest.raises(TlogError):
        TileName.parse(path)


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/entries/000.p/1", "tile/0/000.p/1"]),
        (256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]),
        (
            257,
            [
                "tile/entries/000",
                "tile/entries/001.p/1",
                "tile/0/000",
                "tile/0/001.p/1",
                "tile/1/000.p/1",
            ],
        ),
    ],
)
def test_a_log_consists_of_these_tiles(size: int, paths: list[str]) -> None:
    assert [name.path for name in tiles_of(size)] == paths


def test_tiles_of_70000_entries_are_those_of_the_specification() -> None:
    entries = [f"entry {i}".encode() for i in range(70_000)]
    edge, full = TreeEdge.empty().extended(leaf_hash(entry) for entry in entries)
    tiles = {TileName(one.level, one.number).path: one.tile for one in full}
    partial = edge.partial_tiles
    tiles |= {
        TileName(level, 70_000 >> 8 * (level + 1), tile.width).path: tile
        for level, tile in enumerate(partial)
    }
    assert len(tiles) == 273 + 1 + 1 + 1 + 1
    wanted = {
        "tile/0/000": "b0f6ca2ff42508faf8c6bb4ea8bb9c74243b19d4174fdc4fd17bdad9099e605e",
        "tile/0/273.p/112": "e31da4e768fc0d0f1f1f0046a1c4b68d71326b04a07951a7d3dcefef0de9b8cd",
        "tile/1/000": "44f879be76da41edaf37c0d67303fbd25f2ea44be93285b320561fbaaaaabbfa",
        "tile/1/001.p/17": "5a8eb2fe63c90ddf7fd813d165c04fa79d6eca48534b61bd312fcd2d1cf0aef3",
    }
    assert {path: sha256(tiles[path].encoded).hexdigest() for path in wanted} == wanted
    assert tiles["tile/2/000.p/1"].encoded.hex() == (
        "07b1a377960a4e12e3348d6e9329ae6316a95b02fb1c22e909231b3aa44861a7"
    )
    bundle = encode_bundle(entries[273 * 256 :])
    assert sha256(bundle).hexdigest() == (
        "2ae1ce51fa31c2573335899beb5220aff9cd57b708ff07f4a04327914567f883"
    )

    def subtree(level: int, index: int) -> bytes:
        found = edge.subtree(level, index)
        if found is not None:
            return found
        tile_level, number = holding(level, index)
        return subtree_in(tiles[TileName(tile_level, number).path], level, index)

    assert TreeAtSize(70_000, subtree).root.hex() == (
        "a3920fba7f239a071a9bd10721f1341addefbaededb41c7e24437a9d16bdf00a"
    )


def test_growing_leaves_the_old_edge_as_it_was() -> None:
    """A writer whose commit fails goes on from the edge it had."""
    leaves = [leaf_hash(bytes([i])) for i in range(256)]
    before, _ = TreeEdge.empty().extended(leaves[:255])
    after, full = before.extended(leaves[255:])
    assert (before.size, before.partial_tiles[0].width) == (255, 255)
    assert (after.size, [one.level for one in full]) == (256, [0])
    assert after.partial_tiles[1].rows[0] == [full[0].tile.root]


def test_edge_of_another_size_is_refused() -> None:
    with pytest.raises(TlogError, match="does not belong to size 2"):
        TreeEdge(2, [Tile.of([bytes(32)])])


def test_bundle_is_that_of_the_specification() -> None:
    bundle = bytes.fromhex("0007656e74727920300007656e74727920310007656e7472792032")
    entries = [b"entry 0", b"entry 1", b"entry 2"]
    assert encode_bundle(entries) == bundle
    assert decode_bundle(bundle) == entries


def test_bundle_carries_the_longest_and_the_shortest_entry() -> None:
    entries = [b"x" * 65_535, b""]
    assert decode_bundle(encode_bundle(entries)) == entries


@pytest.mark.parametrize("entries", [[], [b"x" * 65_536], [b""] * 257])
def test_impossible_bundle_is_not_written(entries: list[bytes]) -> None:
    with pytest.raises(TlogError):
        encode_bundle(entries)


@pytest.mark.parametrize(
    "bundle", [b"", b"\x00", b"\x00\x02x", b"\x00\x01x\x00", b"\x00\x00" * 257]
)
def test_bundle_that_ends_within_an_entry_is_refused(bundle: bytes) -> None:
    with pytest.raises(TlogError):
        decode_bundle(bundle)


@pytest.mark.parametrize("tile", [b"", bytes(31), bytes(33), bytes(257 * 32)])
def test_tile_that_is_not_whole_hashes_is_refused(tile: bytes) -> None:
    with pytest.raises(TlogError):
        decode_tile(tile)
