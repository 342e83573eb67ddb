"""What is asked of either engine in the same words of SQL; the engines differ in how they are asked."""

import abc
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from ledger.entry import SealedOpening
from ledger.reading import Filter, Head, Reading, Row
from shared.entry_facts import DECIDED, ENDS

STEP_ROWS: Final = 256
"""Rows fetched at a time where there may be many: entries of 64 kB come to 16 MB."""

_SEALED: Final = "field, holder, block, slot, sealed, lookup_token"


class SqlReading(Reading):
    """The questions; an engine's class answers them by `_rows`."""

    OF_SEARCH: ClassVar = "search_id = :search_id"
    """What is true of the entries of a search."""
    BEARING: ClassVar = "idempotency_key = :idempotency_key"
    """What is true of the entry that bears a key."""

    @abc.abstractmethod
    def _rows(self, question: str, **values: object) -> Sequence[Any]:
        """Give all rows of an answer. Values are named in the question as `:name`."""

    def _row(self, question: str, **values: object) -> Any | None:
        rows = self._rows(question, **values)
        return rows[0] if rows else None

    def head(self) -> Head:
        """Read the head."""
        ((size, root, checkpoint),) = self._rows("SELECT size, root, checkpoint FROM head")
        return Head(size, root, checkpoint)

    def last_index(self) -> int:
        """Give the highest index; -1 when there is no entry."""
        ((last,),) = self._rows("SELECT max(entry_index) FROM entries")
        return -1 if last is None else int(last)

    def leaf(self, index: int) -> bytes | None:
        """Read one entry's bytes."""
        row = self._row("SELECT leaf FROM entries WHERE entry_index = :wanted", wanted=index)
        return None if row is None else row[0]

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Read the bytes of entries in order; stops at a gap."""
        rows = self._rows(
            "SELECT entry_index, leaf FROM entries WHERE entry_index >= :start"
            " AND entry_index < :past ORDER BY entry_index",
            start=start,
            past=start + count,
        )
        leaves: list[bytes] = []
        for index, leaf in rows:
            if index != start + len(leaves):
                break
            leaves.append(leaf)
        return leaves

    def tile(self, level: int, number: int) -> bytes | None:
        """Read a full tile."""
        row = self._row(
            "SELECT hashes FROM tiles WHERE level = :level AND number = :number",
            level=level,
            number=number,
        )
        return None if row is None else row[0]

    def find(
        self, wanted: Filter, size: int, entries_max: int, bytes_max: int
    ) -> tuple[list[tuple[int, bytes]], int | None]:
        """Find entries below `size`, by index, and say where to go on; None at the end."""
        found: list[tuple[int, bytes]] = []
        found_bytes = 0
        for index, leaf in self._matching(wanted, size, entries_max + 1):
            if len(found) == entries_max or found_bytes >= bytes_max:
                return found, index
            found.append((index, leaf))
            found_bytes += len(leaf)
        return found, None

    def _matching(self, wanted: Filter, size: int, count: int) -> Iterator[tuple[int, bytes]]:
        given = {
            "search_id": wanted.search_id,
            "kind": wanted.kind,
            "origin_agency": wanted.origin_agency,
        }
        values = {name: value for name, value in given.items() if value is not None}
        conditions = ["entry_index >= :start", "entry_index < :size"]
        conditions += [
            self.OF_SEARCH if column == "search_id" else f"{column} = :{column}"
            for column in values
        ]
        question = (
            f"SELECT entry_index, leaf FROM entries WHERE {' AND '.join(conditions)}"  # noqa: S608
            " ORDER BY entry_index LIMIT :count"
        )
        start = wanted.start_index
        while count > 0:
            step = min(count, STEP_ROWS)
            rows = self._rows(question, start=start, size=size, count=step, **values)
            yield from rows
            if len(rows) < step:
                return
            count -= step
            start = rows[-1][0] + 1

    def newest(self, kind: int, before: int, count: int) -> list[tuple[int, bytes]]:
        """Read the last entries of a kind below an index, newest first."""
        rows = self._rows(
            "SELECT entry_index, leaf FROM entries WHERE kind = :kind AND entry_index < :before"
            " ORDER BY entry_index DESC LIMIT :count",
            kind=kind,
            before=before,
            count=count,
        )
        return [(index, bytes(leaf)) for index, leaf in rows]

    def bearing_keys(self, idempotency_keys: Sequence[str], size: int) -> list[tuple[int, bytes]]:
        """Read the entries below `size` that bear one of these idempotency keys, by index."""
        found: list[tuple[int, bytes]] = []
        for key in idempotency_keys:
            row = self._row(
                f"SELECT entry_index, leaf FROM entries WHERE {self.BEARING}"  # noqa: S608
                " AND entry_index < :size",
                idempotency_key=key,
                size=size,
            )
            if row is not None:
                found.append((row[0], bytes(row[1])))
        return sorted(found)

    def of_search(self, search_id: str, size: int) -> tuple[int | None, int | None]:
        """Find the indexes of a search's decision and of its end."""
        decided = ended = None
        rows = self._rows(
            f"SELECT entry_index, kind FROM entries WHERE {self.OF_SEARCH}"  # noqa: S608
            " AND entry_index < :size ORDER BY entry_index",
            search_id=search_id,
            size=size,
        )
        for index, kind in rows:
            if kind == DECIDED and decided is None:
                decided = index
            elif kind in ENDS and ended is None:
                ended = index
        return decided, ended

    def open_searches(self, start: int, size: int, count: int) -> list[int]:
        """List the decisions of permitted searches without an end, by index."""
        rows = self._rows(
            "SELECT decided_index FROM open_searches WHERE decided_index >= :start"
            " AND decided_index < :size ORDER BY decided_index LIMIT :count",
            start=start,
            size=size,
            count=count,
        )
        return [index for (index,) in rows]

    def decisions_of(self, origin_agency: str, before: int, count: int) -> list[tuple[int, str]]:
        """List an agency's decisions with their search ids, newest first."""
        rows = self._rows(
            "SELECT entry_index, search_id FROM entries WHERE origin_agency = :agency"
            " AND kind = :kind AND entry_index < :before AND search_id IS NOT NULL"
            " ORDER BY entry_index DESC LIMIT :count",
            agency=origin_agency,
            kind=DECIDED,
            before=before,
            count=count,
        )
        return [(index, search_id) for index, search_id in rows]

    def every_row(self) -> Iterator[Row]:
        """Read every entry with its index columns, by index."""
        after = -1
        while True:
            rows = self._rows(
                "SELECT entry_index, leaf, kind, search_id, origin_agency, idempotency_key"
                " FROM entries WHERE entry_index > :after ORDER BY entry_index LIMIT :count",
                after=after,
                count=STEP_ROWS,
            )
            yield from rows
            if len(rows) < STEP_ROWS:
                return
            after = rows[-1][0]

    def every_open_search(self) -> list[tuple[int, str]]:
        """Read every open search, by index."""
        rows = self._rows("SELECT decided_index, search_id FROM open_searches ORDER BY 1")
        return [(index, search_id) for index, search_id in rows]

    def every_opening(self) -> Iterator[tuple[int, SealedOpening]]:
        """Read every opening with the index of its entry, by index."""
        after: tuple[int, str] = (-1, "")
        while True:
            rows = self._rows(
                f"SELECT entry_index, {_SEALED} FROM openings"  # noqa: S608
                " WHERE (entry_index, field) > (:entry_index, :field)"
                " ORDER BY entry_index, field LIMIT :count",
                entry_index=after[0],
                field=after[1],
                count=STEP_ROWS,
            )
            yield from ((row[0], _sealed(row[1:])) for row in rows)
            if len(rows) < STEP_ROWS:
                return
            after = rows[-1][:2]

    def openings_of(self, index: int) -> list[SealedOpening]:
        """Read the openings of an entry, by field."""
        rows = self._rows(
            f"SELECT {_SEALED} FROM openings WHERE entry_index = :wanted ORDER BY field",  # noqa: S608
            wanted=index,
        )
        return [_sealed(row) for row in rows]

    def openings_in(self, block: int) -> list[tuple[int, SealedOpening]]:
        """Read the openings that can be looked up and whose keys are in a block, by index."""
        rows = self._rows(
            f"SELECT entry_index, {_SEALED} FROM openings"  # noqa: S608
            " WHERE block = :block AND lookup_token IS NOT NULL ORDER BY entry_index, field",
            block=block,
        )
        return [(row[0], _sealed(row[1:])) for row in rows]

    def bearing(self, block: int, lookup_token: bytes) -> list[int]:
        """Find the entries with an opening that bears a token of a block, by index."""
        rows = self._rows(
            "SELECT entry_index FROM openings WHERE block = :block AND lookup_token = :wanted"
            " ORDER BY entry_index",
            block=block,
            wanted=lookup_token,
        )
        return [index for (index,) in rows]

    def clear_openings(self, count: int) -> list[tuple[int, str, bytes, str]]:
        """Read openings of release 0.1 that are not sealed yet."""
        rows = self._rows(
            "SELECT entry_index, field, salt, value FROM clear_openings"
            " ORDER BY entry_index, field LIMIT :count",
            count=count,
        )
        return [(index, field, bytes(salt), value) for index, field, salt, value in rows]

    def of_kind(self, kind: int) -> Iterator[tuple[int, bytes]]:
        """Read every entry of a kind, by index."""
        after = -1
        while True:
            rows = self._rows(
                "SELECT entry_index, leaf FROM entries WHERE kind = :kind AND entry_index > :after"
                " ORDER BY entry_index LIMIT :count",
                kind=kind,
                after=after,
                count=STEP_ROWS,
            )
            yield from ((index, bytes(leaf)) for index, leaf in rows)
            if len(rows) < STEP_ROWS:
                return
            after = rows[-1][0]

    def every_tile(self) -> Iterator[tuple[int, int, bytes]]:
        """Read every stored tile: level, number and hashes."""
        after = (-1, -1)
        while True:
            rows = self._rows(
                "SELECT level, number, hashes FROM tiles WHERE (level, number) > (:level, :number)"
                " ORDER BY level, number LIMIT :count",
                level=after[0],
                number=after[1],
                count=STEP_ROWS,
            )
            yield from ((level, number, bytes(hashes)) for level, number, hashes in rows)
            if len(rows) < STEP_ROWS:
                return
            after = rows[-1][0], rows[-1][1]

    def count_tiles(self) -> int:
        """Count the stored tiles."""
        ((count,),) = self._rows("SELECT count(*) FROM tiles")
        return int(count)


def _sealed(row: Sequence[Any]) -> SealedOpening:
    field, holder, block, slot, sealed, token = row
    return SealedOpening(
        *(field, holder, block, slot, bytes(sealed)), None if token is None else bytes(token)
    )
