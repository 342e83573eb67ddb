"""The tree of RFC 6962 on the published vectors."""

import base64

import pytest

from support.exports import tree_of
from tlog.errors import TlogError
from tlog.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    node_hash,
    root_of_leaves,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(f"entry {i}".encode()) for i in range(7)]
LEAF_HASHES = [
    "773885a613489e24ce2cf76199d6a423f042e4bbf12d7eecee912ef276c65701",
    "2dfb36c6f66cac361429cf46df868ab8242d3a6441f1099c8fb3f98ec5d108a4",
    "57c79f4f31ae029c5d4bd30b073c27c94df93438b2b4697e1e1eef5bc0394a41",
    "61ca1139f6815841d5baf2d0d2d9bd9dfee97c898dd6f7ba0c0aa941ee6c01eb",
    "485335db7cfec965f15ff745fc625c41d5ea2646936930165828f73dd4b68854",
    "9ff537b618a257ef82908c45915acbaeb6d9dea035d6d93964fc88c19e98c8b3",
    "be15781b628a28414c1c8a11b86db8422fa1041215fe0d7c4496d23cda1e4142",
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "773885a613489e24ce2cf76199d6a423f042e4bbf12d7eecee912ef276c65701",
    "5a47662fd8a317d96049a3f9f47c55dc67ca66051baa3683dbb19b2fe09a07b0",
    "94fbd0dd836f50301692e6d0eade728ee19ec52bfff1606ed807c8575d5aaa19",
    "9799f307517ef517c2205df9b67762bf34756b20099fb7dfcce76bcebd273b2e",
    "7caa345dbd892a66454d6c6512ea3c3ea3f0d3ec21be3fc2e2375705fd38f672",
    "cbeec99db3e4d67dbaaa60c16b5d4cf737ac2ddc1507b78af375763ebad1c01e",
    "98c97f0ba3175cd08b031dd084b9dc4e649b64d1a28e6ea694646503173ab587",
]
INCLUSION_4_OF_7 = [
    "n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=",
    "vhV4G2KKKEFMHIoRuG24Qi+hBBIV/g18RJbSPNoeQUI=",
    "l5nzB1F+9RfCIF35tndivzR1ayAJn7ffzOdrzr0nOy4=",
]
CONSISTENCY_TO_7 = {
    3: [
        "V8efTzGuApxdS9MLBzwnyU35NDiytGl+Hh7vW8A5SkE=",
        "YcoROfaBWEHVuvLQ0tm9nf7pfImN1ve6DAqpQe5sAes=",
        "WkdmL9ijF9lgSaP59HxV3GfKZgUbqjaD27GbL+CaB7A=",
        "lK+4osoFHAVFjqOdzRmxvWjn4zUp8QtDnSphWlH2NuI=",
    ],
    4: ["lK+4osoFHAVFjqOdzRmxvWjn4zUp8QtDnSphWlH2NuI="],
    6: [
        "3QN52DrH8WTn7qMM3O+1dQglTEj3Zq/M09l2Nl4yjMw=",
        "vhV4G2KKKEFMHIoRuG24Qi+hBBIV/g18RJbSPNoeQUI=",
        "l5nzB1F+9RfCIF35tndivzR1ayAJn7ffzOdrzr0nOy4=",
    ],
}


def test_hashes_of_leaves_are_those_of_the_specification() -> None:
    assert [leaf.hex() for leaf in LEAVES] == LEAF_HASHES
    assert leaf_hash(b"").hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize("size", range(8))
def test_roots_are_those_of_the_specification(size: int) -> None:
    assert root_of_leaves(LEAVES[:size]).hex() == ROOTS[size]
    assert tree_of(LEAVES, size).root.hex() == ROOTS[size]


def test_inclusion_proof_is_that_of_the_specification() -> None:
    proof = tree_of(LEAVES, 7).inclusion_proof(4)
    assert [base64.b64encode(one).decode() for one in proof] == INCLUSION_4_OF_7
    verify_inclusion(LEAVES[4], 4, 7, proof, bytes.fromhex(ROOTS[7]))


@pytest.mark.parametrize("first", [3, 4, 6])
def test_consistency_proofs_are_those_of_the_specification(first: int) -> None:
    proof = tree_of(LEAVES, 7).consistency_proof(first)
    assert [base64.b64encode(one).decode() for one in proof] == CONSISTENCY_TO_7[first]
    verify_consistency(first, 7, bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[7]), proof)


def test_equal_sizes_need_no_proof_but_the_same_root() -> None:
    root = bytes.fromhex(ROOTS[7])
    assert tree_of(LEAVES, 7).consistency_proof(7) == []
    verify_consistency(7, 7, root, root, [])
    with pytest.raises(TlogError, match="two different trees of size 7"):
        verify_consistency(7, 7, root, bytes(32), [])
    with pytest.raises(TlogError, match="two different trees"):
        verify_consistency(7, 7, root, root, [root])


@pytest.mark.parametrize(("index", "size"), [(7, 7), (-1, 7), (0, 0), (0, -1), (0, 2**63)])
def test_inclusion_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(TlogError):
        verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("first", "second"), [(0, 7), (8, 7), (-1, 7), (1, 2**63)])
def test_consistency_of_impossible_sizes_is_refused(first: int, second: int) -> None:
    with pytest.raises(TlogError):
        verify_consistency(first, second, LEAVES[0], LEAVES[1], [])


@pytest.mark.parametrize("index", [-1, 7])
def test_no_proof_is_made_for_an_entry_that_does_not_exist(index: int) -> None:
    with pytest.raises(TlogError, match="there is no entry"):
        tree_of(LEAVES, 7).inclusion_proof(index)


@pytest.mark.parametrize("first", [0, 8])
def test_no_consistency_proof_is_made_for_an_impossible_size(first: int) -> None:
    with pytest.raises(TlogError, match="no consistency proof"):
        tree_of(LEAVES, 7).consistency_proof(first)


def test_proof_of_another_length_is_refused() -> None:
    root = bytes.fromhex(ROOTS[7])
    proof = tree_of(LEAVES, 7).inclusion_proof(4)
    with pytest.raises(TlogError, match="too short"):
        verify_inclusion(LEAVES[4], 4, 7, proof[:-1], root)
    with pytest.raises(TlogError, match="too long"):
        verify_inclusion(LEAVES[4], 4, 7, [*proof, root], root)
    with pytest.raises(TlogError, match="more than 63 hashes"):
        verify_inclusion(LEAVES[4], 4, 7, [root] * 66, root)
    longer = tree_of(LEAVES, 7).consistency_proof(3)
    with pytest.raises(TlogError, match="too short"):
        verify_consistency(3, 7, bytes.fromhex(ROOTS[3]), root, longer[:-1])
    with pytest.raises(TlogError, match="too long"):
        verify_consistency(3, 7, bytes.fromhex(ROOTS[3]), root, [*longer, root])
    with pytest.raises(TlogError, match="empty"):
        verify_consistency(3, 7, bytes.fromhex(ROOTS[3]), root, [])


def test_hash_of_another_length_is_refused() -> None:
    with pytest.raises(TlogError, match="32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, [LEAVES[1][:31]], bytes.fromhex(ROOTS[2]))


def test_inner_node_cannot_pass_for_a_leaf() -> None:
    """The bytes of two child hashes, taken as an entry, do not hash to their parent."""
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])


def test_frontier_counts_what_it_was_given() -> None:
    frontier = Frontier()
    for leaf in LEAVES:
        frontier.append(leaf)
    assert frontier.size == 7
