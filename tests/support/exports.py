"""Exports of small logs, held in memory so that a test can change any byte."""

from collections.abc import Sequence
from pathlib import Path

from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import TreeAtSize, leaf_hash, root_of_leaves
from tlog.note import Signer
from tlog.tiles import TreeEdge, encode_bundle, tiles_of


def export_of(entries: list[bytes], signer: Signer) -> dict[str, bytes]:
    """Lay out a log of these entries as tlog-tiles serves it: path to content."""
    leaves = [leaf_hash(entry) for entry in entries]
    edge, full = TreeEdge.empty().extended(leaves)
    tiles = {(one.level, one.number): one.tile for one in full}
    for level, tile in enumerate(edge.partial_tiles):
        tiles[level, len(entries) >> 8 * (level + 1)] = tile
    files = {}
    for name in tiles_of(len(entries)):
        if name.level is None:
            start = name.number * 256
            files[name.path] = encode_bundle(entries[start : start + name.width])
        else:
            files[name.path] = tiles[name.level, name.number].encoded
    checkpoint = Checkpoint(signer.verifier.name, len(entries), root_of_leaves(leaves))
    files["checkpoint"] = sign_checkpoint(checkpoint, signer).encode()
    return files


def lay_out(folder: Path, export: dict[str, bytes]) -> None:
    """Write an export as files."""
    for path, content in export.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def tree_of(leaves: Sequence[bytes], size: int) -> TreeAtSize:
    """The tree of the first of these leaf hashes."""
    edge, _ = TreeEdge.empty().extended(leaves[:size])

    def subtree(level: int, index: int) -> bytes:
        found = edge.subtree(level, index)
        assert found is not None
        return found

    return TreeAtSize(size, subtree)
