"""Answers questions about what is on record, each from one published tree.

Reads block, so they run on a thread of their own, one after the other; a page is bounded in
entries and in bytes, so that none holds up the others for long.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from countersign.ledger.v1.entry_pb2 import Entry
from ledger import taken_back
from ledger.reading import Filter, Reading, StorageFailed
from ledger.taken_back import TakenBack
from ledger.tree import Published, Receipts, Tiles, damaged, unreadable
from shared.errors import InvalidRequest, NotFound
from shared.kinds import DOCUMENTS, kind_number
from tlog.checkpoint import Checkpoint
from tlog.merkle import TreeAtSize, leaf_hash
from tlog.proof import write_proof

PAGE_BYTES_MAX: Final = 512 * 1024
"""A page with its proofs stays below the bus's and gRPC's bounds on a message."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry with its proof against the newest checkpoint."""

    index: int
    leaf: bytes
    tlog_proof: str


@dataclass(frozen=True, slots=True)
class FoundRecords:
    """Entries that a query found: the tree that it was asked of, and proofs against the newest note."""

    root: bytes
    note: str
    records: list[Receipt]


@dataclass(frozen=True, slots=True)
class SearchOnRecord:
    """What is on record of a search."""

    decided: Receipt | None
    ended: Receipt | None

    @property
    def bytes(self) -> int:
        """What it takes in a page."""
        there = [one for one in (self.decided, self.ended) if one is not None]
        return sum(len(one.leaf) + len(one.tlog_proof) for one in there)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries by index, and where to go on; None at the end."""

    entries: list[tuple[int, bytes]]
    next_index: int | None


class Archive:
    """Reads entries and makes proofs. `published` gives the newest tree."""

    def __init__(self, reading: Reading, tiles: Tiles, published: Callable[[], Published]) -> None:
        self._reading = reading
        self._tiles = tiles
        self._published = published
        self._thread = ThreadPoolExecutor(1, "ledger-reader")

    def close(self) -> None:
        """Finish what is being read and close."""
        self._thread.shutdown(cancel_futures=True)
        self._reading.close()

    async def entry(self, index: int) -> bytes:
        """Read one entry; raises NotFound, or NotReady when it is not what was appended."""
        published = self._published()
        if index >= published.size:
            raise _unknown(index, published.size)

        def read() -> bytes:
            return Receipts(published, self._tiles, self._reading).leaf_and_proof(index)[0]

        return await self._ask(read)

    async def page(self, wanted: Filter, entries_max: int) -> Page:
        """Read entries by index, bounded in number and bytes."""
        size = self._published().size
        return Page(
            *await self._ask(lambda: self._reading.find(wanted, size, entries_max, PAGE_BYTES_MAX))
        )

    async def newest(self, kind: int, before: int, count: int) -> list[tuple[int, bytes]]:
        """Read the last entries of a kind below an index, newest first. `before` 0 is no bound."""
        size = self._published().size
        bound = min(before or size, size)
        return await self._ask(lambda: self._reading.newest(kind, bound, count))

    async def bearing_keys(self, idempotency_keys: Sequence[str]) -> list[tuple[int, bytes]]:
        """Read the entries that bear one of these idempotency keys, by index."""
        size = self._published().size
        return await self._ask(lambda: self._reading.bearing_keys(idempotency_keys, size))

    async def document(self, index: int) -> None:
        """Raise NotFound unless this entry is a document, which another may follow."""
        if kind_number(Entry.FromString(await self.entry(index))) not in DOCUMENTS:
            raise NotFound("DOCUMENT_UNKNOWN", f"entry {index} is no document")

    async def chain(
        self, key_after: Callable[[int | None], str], after: int | None, count_max: int
    ) -> list[Receipt]:
        """Read the entries that follow one another by their idempotency keys; ends early as a page does."""
        published = self._published()

        def read() -> list[Receipt]:
            receipts = Receipts(published, self._tiles, self._reading)
            found: list[Receipt] = []
            last, page_bytes = after, 0
            while len(found) < count_max and page_bytes <= PAGE_BYTES_MAX:
                following = self._reading.bearing_keys([key_after(last)], published.size)
                if not following:
                    break
                last = following[0][0]
                found.append(_receipt(last, receipts))
                page_bytes += len(found[-1].leaf) + len(found[-1].tlog_proof)
            return found

        return await self._ask(read)

    async def found(self, size: int, indexes: Sequence[int], *, with_proofs: bool) -> FoundRecords:
        """Read these entries of the tree of a size, in order; ends early at the bound of a page."""
        published = self._published()

        def read() -> FoundRecords:
            receipts = Receipts(published, self._tiles, self._reading)
            records: list[Receipt] = []
            page_bytes = 0
            for index in indexes:
                if page_bytes > PAGE_BYTES_MAX:
                    break
                if with_proofs:
                    record = _receipt(index, receipts)
                elif (leaf := self._reading.leaf(index)) is not None:
                    record = Receipt(index, leaf, "")
                else:
                    raise damaged(f"entry {index} is missing")
                records.append(record)
                page_bytes += len(record.leaf) + len(record.tlog_proof)
            return FoundRecords(self._tree(published, size).root, published.note, records)

        return await self._ask(read)

    async def proved(
        self, published: Published, indexes: Sequence[int]
    ) -> list[tuple[int, bytes, list[bytes]]]:
        """Read these entries with their inclusion proofs in one tree."""

        def read() -> list[tuple[int, bytes, list[bytes]]]:
            tree = self._tree(published, published.size)
            rows = []
            for index in indexes:
                leaf = self._reading.leaf(index)
                if leaf is None or leaf_hash(leaf) != tree.leaf(index):
                    raise damaged(f"entry {index} is not what was appended")
                rows.append((index, leaf, tree.inclusion_proof(index)))
            return rows

        return await self._ask(read)

    async def inclusion_proof(self, index: int, tree_size: int) -> tuple[int, list[bytes], str]:
        """Give tree size, hashes, and the tlog-proof if the size is the newest; 0 asks for that.

        Raises InvalidRequest or NotFound.
        """
        published = self._published()
        size = _known_size(tree_size or published.size, published)
        if index >= size:
            raise _unknown(index, size)

        def prove() -> tuple[int, list[bytes], str]:
            hashes = self._tree(published, size).inclusion_proof(index)
            newest = size == published.size
            proof = Receipts(published, self._tiles, self._reading).proof(index) if newest else ""
            return size, hashes, proof

        return await self._ask(prove)

    async def consistency_proof(self, first: int, second: int) -> tuple[int, list[bytes]]:
        """Give the newer size and the hashes; 0 asks for the newest. Raises InvalidRequest."""
        published = self._published()
        size = _known_size(second or published.size, published)
        if not 1 <= first <= size:
            raise InvalidRequest(
                "TREE_SIZES_INVALID", f"no proof leads from size {first} to size {size}"
            )
        hashes = await self._ask(lambda: self._tree(published, size).consistency_proof(first))
        return size, hashes

    async def root(self, size: int) -> bytes:
        """Give the root of the tree as it was at a size. Raises NotFound."""
        published = self._published()
        _known_size(size, published)
        return await self._ask(lambda: self._tree(published, size).root)

    async def receipts_under(
        self, indexes: Sequence[int], checkpoint: Checkpoint, note: str
    ) -> list[Receipt]:
        """Give entries with their proofs against a signed checkpoint of ours, which may not be the newest.

        Raises NotFound for what is not in it, and NotReady if the tree is not the one it was signed for.
        """
        published = self._published()
        size = _known_size(checkpoint.size, published)
        beyond = [index for index in indexes if index >= size]
        if beyond:
            raise _unknown(beyond[0], size)

        def read() -> list[Receipt]:
            tree = self._tree(published, size)
            if tree.root != checkpoint.root:
                raise damaged(f"the tree of size {size} is not the one that was signed")
            found: list[Receipt] = []
            for index in indexes:
                leaf = self._reading.leaf(index)
                if leaf is None or leaf_hash(leaf) != tree.leaf(index):
                    raise damaged(f"entry {index} is not what was appended")
                proof = write_proof(index, tree.inclusion_proof(index), note)
                found.append(Receipt(index, leaf, proof))
            return found

        return await self._ask(read)

    async def search(self, search_id: str) -> SearchOnRecord:
        """Look a search up."""
        published = self._published()

        def look_up() -> SearchOnRecord:
            receipts = Receipts(published, self._tiles, self._reading)
            return self._on_record(search_id, published, receipts)

        return await self._ask(look_up)

    async def open_searches(self, start: int, count_max: int) -> tuple[list[Receipt], int | None]:
        """List permitted searches without an end, and where to go on; None at the end."""
        published = self._published()

        def look_up() -> tuple[list[Receipt], int | None]:
            receipts = Receipts(published, self._tiles, self._reading)
            indexes = self._reading.open_searches(start, published.size, count_max + 1)
            found: list[Receipt] = []
            page_bytes = 0
            for index in indexes:
                if len(found) == count_max or page_bytes > PAGE_BYTES_MAX:
                    return found, index
                found.append(_receipt(index, receipts))
                page_bytes += len(found[-1].leaf) + len(found[-1].tlog_proof)
            return found, None

        return await self._ask(look_up)

    async def taken_back(self, wanted: TakenBack) -> tuple[list[SearchOnRecord], int | None, int]:
        """List referred searches that ended here without the peer, where to go on, and the size of the tree.

        `before` 0 is no bound.
        """
        published = self._published()

        def look_up() -> tuple[list[SearchOnRecord], int | None, int]:
            receipts = Receipts(published, self._tiles, self._reading)
            bounded = replace(wanted, before=min(wanted.before or published.size, published.size))
            found, following = taken_back.find(self._reading, bounded)
            searches: list[SearchOnRecord] = []
            page_bytes = 0
            for decided, ended in found:
                if page_bytes > PAGE_BYTES_MAX:
                    return searches, ended + 1, published.size
                one = SearchOnRecord(_receipt(decided, receipts), _receipt(ended, receipts))
                searches.append(one)
                page_bytes += one.bytes
            return searches, following, published.size

        return await self._ask(look_up)

    async def searches_of(
        self, origin_agency: str, before: int, count_max: int
    ) -> list[SearchOnRecord]:
        """List an agency's searches, newest first. `before` 0 is no bound."""
        published = self._published()

        def look_up() -> list[SearchOnRecord]:
            receipts = Receipts(published, self._tiles, self._reading)
            bound = min(before or published.size, published.size)
            return [
                self._on_record(search_id, published, receipts)
                for _, search_id in self._reading.decisions_of(origin_agency, bound, count_max)
            ]

        return await self._ask(look_up)

    def _on_record(
        self, search_id: str, published: Published, receipts: Receipts
    ) -> SearchOnRecord:
        decided, ended = self._reading.of_search(search_id, published.size)
        return SearchOnRecord(
            None if decided is None else _receipt(decided, receipts),
            None if ended is None else _receipt(ended, receipts),
        )

    def _tree(self, published: Published, size: int) -> TreeAtSize:
        return published.at(size, self._tiles, self._reading)

    async def first(self, check: Callable[[Reading], None]) -> None:
        """Have something looked at in the store before a question is put."""
        await self._ask(lambda: check(self._reading))

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except StorageFailed as error:
            raise unreadable() from error


def _receipt(index: int, receipts: Receipts) -> Receipt:
    return Receipt(index, *receipts.leaf_and_proof(index))


def _known_size(size: int, published: Published) -> int:
    if size > published.size:
        raise NotFound(
            "TREE_SIZE_UNKNOWN",
            f"there is no tree of size {size}; the newest checkpoint is of size {published.size}",
            metadata={"size": str(published.size)},
        )
    return size


def _unknown(index: int, size: int) -> NotFound:
    return NotFound(
        "ENTRY_UNKNOWN",
        f"there is no entry {index} in a tree of size {size}",
        metadata={"size": str(size)},
    )
