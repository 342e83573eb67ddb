"""Ledgers of any size in a moment: entries without meaning, written past the sequencer."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ledger.entry import CompletedEntry, IndexColumns
from ledger.sqlite_storage import SqliteStorage
from ledger.storage import Head
from ledger.tree import Tiles, load_published
from support.ledgers import ORIGIN, SIGNER, new_log
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import leaf_hash

COLUMNS = IndexColumns(kind=17, search_id=None, origin_agency=None, permitted=False)


def entries_of(count: int) -> list[bytes]:
    """The byte strings of the specification's own vectors."""
    return [f"entry {number}".encode() for number in range(count)]


def grow(path: Path, leaves: Sequence[bytes]) -> None:
    """Appends in one transaction, as the sequencer does."""
    with contextlib.closing(SqliteStorage.open(path)) as storage:
        reading = storage.reading()
        before = load_published(reading, [SIGNER.verifier])
        edge, full = before.edge.extended(leaf_hash(leaf) for leaf in leaves)
        tiles = Tiles()
        storage.begin()
        storage.add_entries(
            before.size, [CompletedEntry(leaf, None, COLUMNS, ()) for leaf in leaves]
        )
        storage.add_tiles(full)
        grown = type(before)(edge, Checkpoint(ORIGIN, edge.size, bytes(32)), "")
        root = grown.at(edge.size, tiles, reading).root
        note = sign_checkpoint(Checkpoint(ORIGIN, edge.size, root), SIGNER)
        storage.set_head(before.size, Head(edge.size, root, note))
        storage.commit()


def filled_log(folder: Path, count: int) -> Path:
    """A ledger of this many entries."""
    path = new_log(folder).path
    if count:
        grow(path, entries_of(count))
    return path
