"""What holds of every tree, every proof and every string of bytes."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog.errors import TlogError
from tlog.merkle import (
    EMPTY_ROOT,
    TreeAtSize,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from tlog.note import Signer, UnverifiedNote, Verifier
from tlog.proof import ProofWriter, TlogProof, verify_receipt, write_proof
from tlog.tiles import (
    Tile,
    TileName,
    TreeEdge,
    decode_bundle,
    decode_tile,
    encode_bundle,
    holding,
    subtree_in,
)

SIGNER = Signer.from_seed("ledger.example/exchange", bytes(range(32)))
LEAVES = [leaf_hash(i.to_bytes(4)) for i in range(700)]
EDGE, FULL = TreeEdge.empty().extended(LEAVES)
TILES: dict[tuple[int, int], Tile] = {(one.level, one.number): one.tile for one in FULL}
SIZES = st.one_of(st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513, 700]), st.integers(1, 700))


def subtree(level: int, index: int) -> bytes:
    """Look a subtree up as the ledger does: in the edge, or in a full tile."""
    return EDGE.subtree(level, index) or subtree_in(TILES[holding(level, index)], level, index)


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(root_by_definition(leaves[:split]), root_by_definition(leaves[split:]))


def flipped(hashes: list[bytes], bit: int) -> list[bytes]:
    whole = bytearray(b"".join(hashes))
    whole[bit // 8] ^= 1 << bit % 8
    return [bytes(whole[at : at + 32]) for at in range(0, len(whole), 32)]


@given(SIZES)
def test_root_is_that_of_the_definition(size: int) -> None:
    assert TreeAtSize(size, subtree).root == root_by_definition(LEAVES[:size])


@given(SIZES, st.data())
def test_inclusion_proofs_verify_at_every_size(size: int, data: st.DataObject) -> None:
    tree = TreeAtSize(size, subtree)
    index = data.draw(st.integers(0, size - 1))
    verify_inclusion(LEAVES[index], index, size, tree.inclusion_proof(index), tree.root)


@given(SIZES, SIZES)
def test_consistency_proofs_verify_between_any_two_sizes(one: int, other: int) -> None:
    first, second = sorted((one, other))
    old, new = TreeAtSize(first, subtree), TreeAtSize(second, subtree)
    verify_consistency(first, second, old.root, new.root, new.consistency_proof(first))


@given(SIZES, st.data())
def test_changed_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    tree = TreeAtSize(size, subtree)
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(index)
    kind = data.draw(st.sampled_from(["flip", "drop", "add", "index", "size", "leaf"]))
    leaf, at = LEAVES[index], index
    if kind == "flip" and proof:
        proof = flipped(proof, data.draw(st.integers(0, len(proof) * 256 - 1)))
    elif kind == "drop" and proof:
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif kind == "add":
        proof.insert(data.draw(st.integers(0, len(proof))), tree.root)
    elif kind == "index" and size > 1:
        at = (index + data.draw(st.integers(1, size - 1))) % size
    elif kind == "size":
        # A path of the same shape also fits some other sizes; the checkpoint signs the size.
        size, at = index, index
    else:
        leaf = LEAVES[(index + 1) % 700]
    with pytest.raises(TlogError):
        verify_inclusion(leaf, at, size, proof, tree.root)


@given(SIZES, SIZES, st.data())
def test_changed_consistency_proof_fails(one: int, other: int, data: st.DataObject) -> None:
    first, second = sorted((one, other))
    old, new = TreeAtSize(first, subtree), TreeAtSize(second, subtree)
    proof = new.consistency_proof(first)
    kind = data.draw(st.sampled_from(["flip", "drop", "add", "old", "new"]))
    old_root, new_root = old.root, new.root
    if kind == "flip" and proof:
        proof = flipped(proof, data.draw(st.integers(0, len(proof) * 256 - 1)))
    elif kind == "drop" and proof:
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif kind == "add":
        proof.insert(data.draw(st.integers(0, len(proof))), new.root)
    elif kind == "old":
        (old_root,) = flipped([old_root], data.draw(st.integers(0, 255)))
    else:
        (new_root,) = flipped([new_root], data.draw(st.integers(0, 255)))
    with pytest.raises(TlogError):
        verify_consistency(first, second, old_root, new_root, proof)


@given(st.lists(st.integers(0, 600), max_size=6))
def test_growing_in_any_steps_gives_the_same_edge(steps: list[int]) -> None:
    edge, size = TreeEdge.empty(), 0
    for step in steps:
        edge, _ = edge.extended(LEAVES[size : min(size + step, 700)])
        size = min(size + step, 700)
    whole, _ = TreeEdge.empty().extended(LEAVES[:size])
    assert [tile.rows for tile in edge.partial_tiles] == [tile.rows for tile in whole.partial_tiles]


@given(SIZES, st.data())
def test_receipts_verify_and_round_trip(size: int, data: st.DataObject) -> None:
    tree = TreeAtSize(size, subtree)
    index = data.draw(st.integers(0, size - 1))
    checkpoint = sign_checkpoint(Checkpoint(SIGNER.verifier.name, size, tree.root), SIGNER)
    proof = write_proof(index, tree.inclusion_proof(index), checkpoint)
    assert TlogProof.parse(proof).text == proof
    assert verify_receipt(index.to_bytes(4), proof, SIGNER.verifier)[0] == index


@given(SIZES, st.lists(st.integers(0, 699), max_size=20))
def test_proofs_written_together_are_those_written_alone(size: int, indexes: list[int]) -> None:
    tree = TreeAtSize(size, subtree)
    writer = ProofWriter(tree, "checkpoint\n")
    for index in indexes:
        if index < size:
            alone = write_proof(index, tree.inclusion_proof(index), "checkpoint\n")
            assert writer.write(index) == alone
        else:
            with pytest.raises(TlogError):
                writer.write(index)


@given(st.data())
def test_changed_byte_of_a_receipt_fails(data: st.DataObject) -> None:
    tree = TreeAtSize(300, subtree)
    checkpoint = sign_checkpoint(Checkpoint(SIGNER.verifier.name, 300, tree.root), SIGNER)
    receipt = bytearray(write_proof(7, tree.inclusion_proof(7), checkpoint).encode())
    at = data.draw(st.integers(0, len(receipt) - 1))
    receipt[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TlogError):
        verify_receipt((7).to_bytes(4), bytes(receipt), SIGNER.verifier)


TEXTS = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            [
                b"c2sp.org/tlog-proof@v1\n",
                b"index 4\n",
                b"extra aGVsbG8=\n",
                b"n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=\n",
                b"\n",
                b"log\n",
                b"7\n",
                b"\xe2\x80\x94 log AAAAAAA=\n",
            ]
        ),
        max_size=12,
    ).map(b"".join),
)


@given(TEXTS)
@example(b"\xe2\x80\x94 \n\n\xe2\x80\x94  \n")
def test_parsers_of_text_raise_nothing_but_their_error(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogatepass") if _is_text(raw) else "\udcff"
    for parse in (UnverifiedNote.parse, TlogProof.parse):
        for whole in (raw, text):
            with contextlib.suppress(TlogError):
                parse(whole)
    with contextlib.suppress(TlogError):
        open_checkpoint(raw, SIGNER.verifier)
    for read in (Checkpoint.parse, Verifier.parse, TileName.parse):
        with contextlib.suppress(TlogError):
            read(text)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=600))
def test_parsers_of_bytes_raise_nothing_but_their_error(raw: bytes) -> None:
    with contextlib.suppress(TlogError):
        decode_tile(raw)
    with contextlib.suppress(TlogError):
        assert encode_bundle(decode_bundle(raw)) == raw


@given(st.integers(0, 2**63 - 1), st.integers(1, 256), st.one_of(st.none(), st.integers(0, 63)))
def test_paths_round_trip(number: int, width: int, level: int | None) -> None:
    name = TileName(level, number, width)
    assert TileName.parse(name.path) == name
