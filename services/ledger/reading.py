"""What is read from the ledger's file. Nothing here writes.

A reader sees what is committed and asks only below a size that it was given, which is that of a
checkpoint already published.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ledger.entry import DECIDED, TERMINAL
from ledger.schema import require_newest, sqlite_version
from ledger.storage import Head, connect


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; None for no bound."""

    start_index: int = 0
    search_id: str | None = None
    kind: int | None = None
    origin_agency: str | None = None


class Reading:
    """A hand on the file that only reads. Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, path: Path) -> "Reading":
        """Open a connection of its own, which sees what is committed; raises NotReady or sqlite3.Error."""
        connection = connect(path, "ro")
        try:
            connection.execute("PRAGMA query_only = ON")
            require_newest(sqlite_version(connection), str(path), "start the ledger with it once")
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def head(self) -> Head:
        """Read the head."""
        row = self.connection.execute("SELECT size, root, checkpoint FROM head").fetchone()
        return Head(*row)

    def last_index(self) -> int:
        """Give the highest index; -1 when there is no entry."""
        (last,) = self.connection.execute("SELECT max(entry_index) FROM entries").fetchone()
        return -1 if last is None else last

    def leaf(self, index: int) -> bytes | None:
        """Read one entry's bytes."""
        row = self.connection.execute(
            "SELECT leaf FROM entries WHERE entry_index = ?", (index,)
        ).fetchone()
        return None if row is None else row[0]

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Read the bytes of entries in order; stops at a gap."""
        rows = self.connection.execute(
            "SELECT entry_index, leaf FROM entries WHERE entry_index >= ? AND entry_index < ?"
            " ORDER BY entry_index",
            (start, start + count),
        )
        leaves: list[bytes] = []
        for index, leaf in rows:
            if index != start + len(leaves):
                break
            leaves.append(leaf)
        return leaves

    def tile(self, level: int, number: int) -> bytes | None:
        """Read a full tile."""
        row = self.connection.execute(
            "SELECT hashes FROM tiles WHERE level = ? AND number = ?", (level, number)
        ).fetchone()
        return None if row is None else row[0]

    def find(
        self, wanted: Filter, size: int, entries_max: int, bytes_max: int
    ) -> tuple[list[tuple[int, bytes]], int | None]:
        """Find entries below `size`, by index, and say where to go on; None at the end.

        Gives at most `entries_max`, and ends early when they come to `bytes_max`.
        """
        conditions = ["entry_index >= :start", "entry_index < :size"]
        values: Mapping[str, object] = {
            "start": wanted.start_index,
            "size": size,
            "count": entries_max + 1,
            "search_id": wanted.search_id,
            "kind": wanted.kind,
            "origin_agency": wanted.origin_agency,
        }
        conditions += [
            f"{column} = :{column}"
            for column in ("search_id", "kind", "origin_agency")
            if values[column] is not None
        ]
        rows = self.connection.execute(
            f"SELECT entry_index, leaf FROM entries WHERE {' AND '.join(conditions)}"  # noqa: S608
            " ORDER BY entry_index LIMIT :count",
            values,
        )
        found: list[tuple[int, bytes]] = []
        found_bytes = 0
        for index, leaf in rows:
            if len(found) == entries_max or found_bytes >= bytes_max:
                rows.close()
                return found, index
            found.append((index, leaf))
            found_bytes += len(leaf)
        return found, None

    def of_search(self, search_id: str, size: int) -> tuple[int | None, int | None]:
        """Find the indexes of a search's decision and of its end."""
        decided = ended = None
        rows = self.connection.execute(
            "SELECT entry_index, kind FROM entries WHERE search_id = ? AND entry_index < ?"
            " ORDER BY entry_index",
            (search_id, size),
        )
        for index, kind in rows:
            if kind == DECIDED and decided is None:
                decided = index
            elif kind in TERMINAL and ended is None:
                ended = index
        return decided, ended

    def open_searches(self, start: int, size: int, count: int) -> list[int]:
        """List the decisions of permitted searches without an end, by index."""
        rows = self.connection.execute(
            "SELECT decided_index FROM open_searches WHERE decided_index >= ?"
            " AND decided_index < ? ORDER BY decided_index LIMIT ?",
            (start, size, count),
        )
        return [index for (index,) in rows]

    def decisions_of(self, origin_agency: str, before: int, count: int) -> list[tuple[int, str]]:
        """List an agency's decisions with their search ids, newest first."""
        rows = self.connection.execute(
            "SELECT entry_index, search_id FROM entries WHERE origin_agency = ?"
            " AND kind = ? AND entry_index < ? AND search_id IS NOT NULL"
            " ORDER BY entry_index DESC LIMIT ?",
            (origin_agency, DECIDED, before, count),
        )
        return rows.fetchall()

    def every_row(self) -> Iterator[tuple[int, bytes, int, str | None, str | None, str | None]]:
        """Read every entry with its index columns, by index."""
        yield from self.connection.execute(
            "SELECT entry_index, leaf, kind, search_id, origin_agency, idempotency_key"
            " FROM entries ORDER BY entry_index"
        )

    def every_open_search(self) -> list[tuple[int, str]]:
        """Read every open search, by index."""
        return self.connection.execute(
            "SELECT decided_index, search_id FROM open_searches ORDER BY decided_index"
        ).fetchall()

    def broken_structure(self) -> str | None:
        """Have SQLite compare its pages and indexes with the rows; give the first fault."""
        (found,) = self.connection.execute("PRAGMA integrity_check(1)").fetchone()
        return None if found == "ok" else str(found)

    def count_tiles(self) -> int:
        """Count the stored tiles."""
        (count,) = self.connection.execute("SELECT count(*) FROM tiles").fetchone()
        return int(count)

    def every_opening(self) -> Iterator[tuple[int, str, bytes, str]]:
        """Read every opening, by index."""
        yield from self.connection.execute(
            "SELECT entry_index, field, salt, value FROM openings ORDER BY entry_index, field"
        )
