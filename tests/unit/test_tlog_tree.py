"""A tree that grows by whole tiles, against the definition and the published log of 70,000 entries."""

from hashlib import sha256

import pytest

from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT, leaf_hash, root_of_leaves
from tlog.tiles import TileName
from tlog.tree import GrowingTree

LEAVES = [leaf_hash(f"entry {i}".encode()) for i in range(70_000)]
SIZES = [1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 700, 65_535, 65_536, 65_537, 65_792, 70_000]


def grown(size: int) -> tuple[GrowingTree, dict[str, bytes]]:
    """The tree of the first entries, and the tiles that were full on the way."""
    tree, tiles = GrowingTree(), {}
    for start in range(0, size, 256):
        row = b"".join(LEAVES[start : min(start + 256, size)])
        for level, number, hashes in tree.add_tile(row):
            tiles[TileName(level, number).path] = hashes
    return tree, tiles


@pytest.mark.parametrize("size", SIZES)
def test_root_is_that_of_the_definition(size: int) -> None:
    assert grown(size)[0].root() == root_of_leaves(LEAVES[:size])


def test_tree_without_entries_has_the_empty_root() -> None:
    assert GrowingTree().root() == EMPTY_ROOT


def test_tiles_are_those_of_the_published_log() -> None:
    tree, tiles = grown(70_000)
    assert tree.root().hex() == "a3920fba7f239a071a9bd10721f1341addefbaededb41c7e24437a9d16bdf00a"
    assert sorted(tiles) == ["tile/1/000"]
    assert [len(row) // 32 for row in tree.rows] == [112, 17, 1]
    wanted = {
        "44f879be76da41edaf37c0d67303fbd25f2ea44be93285b320561fbaaaaabbfa": tiles["tile/1/000"],
        "e31da4e768fc0d0f1f1f0046a1c4b68d71326b04a07951a7d3dcefef0de9b8cd": tree.rows[0],
        "5a8eb2fe63c90ddf7fd813d165c04fa79d6eca48534b61bd312fcd2d1cf0aef3": tree.rows[1],
    }
    assert {digest: sha256(row).hexdigest() for digest, row in wanted.items()} == {
        digest: digest for digest in wanted
    }
    assert tree.rows[2].hex() == "07b1a377960a4e12e3348d6e9329ae6316a95b02fb1c22e909231b3aa44861a7"


@pytest.mark.parametrize("size", [0, 256, 512, 65_536])
@pytest.mark.parametrize("more", [0, 1, 100, 256])
def test_root_at_a_size_within_the_next_tile(size: int, more: int) -> None:
    tree, _ = grown(size)
    row = b"".join(LEAVES[size : size + more])
    assert tree.root(row) == root_of_leaves(LEAVES[: size + more])
    assert tree.size == size


def test_copy_grows_on_its_own() -> None:
    tree, _ = grown(256)
    copy = tree.copy()
    copy.add_tile(LEAVES[256])
    assert (tree.root(), copy.root()) == (
        root_of_leaves(LEAVES[:256]),
        root_of_leaves(LEAVES[:257]),
    )


@pytest.mark.parametrize("row", [b"", bytes(31), bytes(33), bytes(257 * 32)])
def test_row_that_is_no_tile_is_refused(row: bytes) -> None:
    with pytest.raises(TlogError):
        GrowingTree().add_tile(row)


def test_nothing_follows_a_tile_that_is_not_full() -> None:
    tree, _ = grown(100)
    with pytest.raises(TlogError):
        tree.add_tile(LEAVES[100])
