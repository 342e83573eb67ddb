"""The reference tree of Certificate Transparency, and its proofs changed in every way that others test.

The eight entries, their roots and the proofs are public test data of several implementations.
"""

from base64 import b64decode
from collections.abc import Callable

import pytest

from support.exports import tree_of
from tlog.errors import TlogError
from tlog.merkle import (
    leaf_hash,
    root_of_leaves,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = [
    bytes.fromhex(one)
    for one in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROOTS = [
    bytes.fromhex(one)
    for one in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
GARBAGE = bytes(32)
CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "preceding garbage": lambda proof: [GARBAGE, *proof],
    "trailing garbage": lambda proof: [*proof, GARBAGE],
    "preceding itself": lambda proof: [*proof[:1], *proof],
    "truncated": lambda proof: proof[:-1],
    "first hash missing": lambda proof: proof[1:],
    "no hash": lambda proof: [],
    "empty hash": lambda proof: [*proof[:-1], b""],
    "short hash": lambda proof: [*proof[:-1], proof[-1][:31]],
    "long hash": lambda proof: [*proof[:-1], proof[-1] + b"\0"],
    "one bit": lambda proof: [bytes([proof[0][0] ^ 8]) + proof[0][1:], *proof[1:]],
    "reversed and doubled": lambda proof: [*reversed(proof), *proof],
}


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert root_of_leaves(LEAVES[:size]) == ROOTS[size - 1]
    assert tree_of(LEAVES, size).root == ROOTS[size - 1]


def test_published_proofs_are_the_ones_made_here() -> None:
    assert tree_of(LEAVES, 5).consistency_proof(2) == [
        b64decode("Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4="),
        b64decode("vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="),
    ]
    assert tree_of(LEAVES, 3).inclusion_proof(2) == [
        b64decode("+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=")
    ]
    assert LEAVES[2] == b64decode("ApjRIpBtz8EIkstTpzmS/FufST6kybrbJ7eRtBJ6f+c=")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("index", "size"), [(0, 8), (5, 8), (2, 3), (1, 5), (4, 7), (6, 7)])
def test_changed_inclusion_proof_is_refused(change: str, index: int, size: int) -> None:
    proof = tree_of(LEAVES, size).inclusion_proof(index)
    verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size - 1])
    with pytest.raises(TlogError):
        verify_inclusion(LEAVES[index], index, size, CHANGES[change](proof), ROOTS[size - 1])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("first", "second"), [(1, 8), (6, 8), (2, 5), (6, 7), (3, 7), (4, 8)])
def test_changed_consistency_proof_is_refused(change: str, first: int, second: int) -> None:
    proof = tree_of(LEAVES, second).consistency_proof(first)
    roots = ROOTS[first - 1], ROOTS[second - 1]
    verify_consistency(first, second, *roots, proof)
    with pytest.raises(TlogError):
        verify_consistency(first, second, *roots, CHANGES[change](proof))


@pytest.mark.parametrize(("first", "second"), [(1, 8), (6, 8), (2, 5), (6, 7), (3, 7)])
def test_consistency_between_other_sizes_or_roots_is_refused(first: int, second: int) -> None:
    proof = tree_of(LEAVES, second).consistency_proof(first)
    old, new = ROOTS[first - 1], ROOTS[second - 1]
    for sizes in (
        (first - 1, second),
        (first + 1, second),
        (0, second),
        (first, second * 2),
        (second, first),
        (-first, second),
    ):
        with pytest.raises(TlogError):
            verify_consistency(*sizes, old, new, proof)
    for roots in ((new, old), (old, old), (GARBAGE, new), (old, GARBAGE), (b"", new), (old, b"")):
        with pytest.raises(TlogError):
            verify_consistency(first, second, *roots, proof)


@pytest.mark.parametrize(("index", "size"), [(0, 8), (5, 8), (2, 3), (1, 5), (0, 1)])
def test_inclusion_elsewhere_is_refused(index: int, size: int) -> None:
    proof, root = tree_of(LEAVES, size).inclusion_proof(index), ROOTS[size - 1]
    for at, of in ((index ^ 1, size), (-1, size), (size, size), (index, 0), (index, size * 4)):
        with pytest.raises(TlogError):
            verify_inclusion(LEAVES[index], at, of, proof, root)
    for leaf in (b"", GARBAGE, root + b"\0"):
        with pytest.raises(TlogError):
            verify_inclusion(leaf, index, size, proof, root)
