"""Re-reads everything that the ledger stores and verifies it: the tests' oracle, the operator's command.

`python -m ledger check CONFIG` may run beside the service. It trusts nothing but the public keys:
1. the stored checkpoint is signed by a key of the log and says the stored size and root;
2. the entries are numbered without a gap, and their hashes come to that root;
3. every full tile is stored, holds the hashes below it, and no other tile is;
4. every entry can be read, its index columns are what its bytes say, and the engine's own indexes hold them;
5. every commitment has its opening, unless an entry says that it was expunged, and each opens it (with
   the keys at hand; without them only that it is there);
6. the open searches are those without an end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.entry import SealedOpening, columns_that_agree, holder_of, index_columns
from ledger.keyring import Keyring
from ledger.reading import Reading
from ledger.vault import LOOKED_UP, OpeningDamaged, commitments_of, lookup_token, unsealed
from shared.entry_facts import ENDS
from shared.errors import NotReady
from tlog.checkpoint import Checkpoint
from tlog.cosignature import LogVerifier, open_by_any
from tlog.errors import TlogError
from tlog.merkle import Frontier, leaf_hash
from tlog.tiles import TILE_WIDTH, TreeEdge

Progress = Callable[[int, int], None]


class CheckFailed(Exception):
    """What is stored is not what was signed; the message names the first place."""


@dataclass(frozen=True)
class Checked:
    """What was found to be whole."""

    checkpoint: Checkpoint
    tiles: int
    openings: int
    open_searches: int


@dataclass
class _Walk:
    reading: Reading
    frontier: Frontier = field(default_factory=Frontier)
    edge: TreeEdge = field(default_factory=TreeEdge.empty)
    open_searches: dict[str, int] = field(default_factory=dict)
    commitments: int = 0
    expunged: set[int] = field(default_factory=set)
    tiles: int = 0


def check(
    reading: Reading,
    verifiers: Sequence[LogVerifier],
    progress: Progress | None = None,
    keyring: Keyring | None = None,
) -> Checked:
    """Verify everything stored; raises CheckFailed. Reads one state of the file throughout."""
    with reading.one_state():
        head = reading.head()
        try:
            checkpoint, _ = open_by_any(head.checkpoint, verifiers)
        except TlogError as error:
            raise CheckFailed(f"head: {error}") from None
        if (checkpoint.size, checkpoint.root) != (head.size, head.root):
            raise CheckFailed("head: size and root are not what the checkpoint says")
        walk = _Walk(reading)
        _check_entries(walk, head.size, progress)
        if walk.frontier.root() != head.root:
            raise CheckFailed("entries: they do not come to the root that was signed")
        if (stored := reading.count_tiles()) != walk.tiles:
            raise CheckFailed(f"tiles: {stored} are stored, {walk.tiles} are full")
        if (broken := reading.broken_structure()) is not None:
            raise CheckFailed(f"database: {broken}")
        openings = _check_openings(walk, keyring)
        if reading.every_open_search() != sorted((i, s) for s, i in walk.open_searches.items()):
            raise CheckFailed("open searches: not those that were permitted and have no end")
        return Checked(checkpoint, walk.tiles, openings, len(walk.open_searches))


def _check_entries(walk: _Walk, size: int, progress: Progress | None) -> None:
    leaves: list[bytes] = []
    for index, leaf, *columns in walk.reading.every_row():
        if index != walk.frontier.size:
            raise CheckFailed(f"entry {walk.frontier.size}: it is missing")
        found = leaf_hash(leaf)
        walk.frontier.append(found)
        leaves.append(found)
        _check_entry(walk, index, leaf, tuple(columns))
        if len(leaves) == TILE_WIDTH:
            _check_tiles(walk, leaves)
            leaves = []
            if progress is not None:
                progress(index + 1, size)
    if walk.frontier.size != size:
        raise CheckFailed(f"entries: {walk.frontier.size} are stored, {size} were signed for")
    if progress is not None:
        progress(size, size)


def _check_entry(walk: _Walk, index: int, leaf: bytes, columns: tuple[object, ...]) -> None:
    try:
        entry = Entry.FromString(leaf)
    except DecodeError:
        raise CheckFailed(f"entry {index}: its bytes cannot be read") from None
    expected = index_columns(entry)
    if expected is None:
        raise CheckFailed(f"entry {index}: it has no event")
    if not columns_that_agree(entry, columns):
        raise CheckFailed(f"entry {index}: its index columns are not what its bytes say")
    walk.commitments += len(entry.commitments)
    walk.expunged.update(entry.openings_expunged.entry_indexes)
    if expected.search_id and expected.permitted:
        walk.open_searches.setdefault(expected.search_id, index)
    elif expected.search_id and expected.kind in ENDS:
        walk.open_searches.pop(expected.search_id, None)


def _check_tiles(walk: _Walk, leaves: list[bytes]) -> None:
    walk.edge, full = walk.edge.extended(leaves)
    for one in full:
        walk.tiles += 1
        stored = walk.reading.tile(one.level, one.number)
        if stored is None:
            raise CheckFailed(f"tile {one.level}/{one.number}: it is missing")
        if stored != one.tile.encoded:
            raise CheckFailed(
                f"tile {one.level}/{one.number}: it does not hold the hashes of what is below it"
            )


def _check_openings(walk: _Walk, keyring: Keyring | None) -> int:
    """Compare openings with commitments: each has one, but for those that were expunged.

    What should be destroyed and is not (the process ended in the middle) the next start destroys.
    """
    reading, count = walk.reading, 0
    if reading.clear_openings(1):
        raise CheckFailed(
            "openings: some are in the clear; start the ledger once, to have them sealed"
        )
    for index, one in reading.every_opening():
        leaf = reading.leaf(index)
        commitment = {} if leaf is None else commitments_of(leaf)
        place = f"opening {index}/{one.field}"
        if one.field not in commitment:
            raise CheckFailed(f"{place}: it opens no commitment of the entry")
        if one.holder != holder_of(Entry.FromString(leaf or b"")):
            raise CheckFailed(f"{place}: its holder is not what the entry says")
        if index in walk.expunged:
            continue
        count += 1
        if keyring is not None:
            _check_opening(keyring, one, commitment[one.field], place)
    for index in walk.expunged:
        leaf = reading.leaf(index)
        walk.commitments -= 0 if leaf is None else len(commitments_of(leaf))
    if count != walk.commitments:
        raise CheckFailed(f"openings: {count} are stored, and {walk.commitments} should be")
    return count


def _check_opening(keyring: Keyring, one: SealedOpening, commitment: bytes, place: str) -> None:
    try:
        opening = unsealed(keyring, one, commitment)
    except OpeningDamaged as error:
        raise CheckFailed(f"{place}: {error}") from None
    except NotReady as error:
        raise CheckFailed(f"{place}: its key is lost: {error.message}") from None
    if opening is None:
        raise CheckFailed(f"{place}: its key was destroyed, and no entry says why")
    if one.field in LOOKED_UP and opening.value:
        block = keyring.block(one.block)
        expected = lookup_token(block.lookup_key if block else b"", one.field, opening.value)
        if one.lookup_token != expected:
            raise CheckFailed(f"{place}: it cannot be found by its value")
