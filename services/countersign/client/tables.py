"""Entries as tables: JSON Lines, CSV and Parquet, each row made from the bytes of its entry alone.

The text forms are made the same way wherever they are made, so a table can be checked by making it again.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1 import decision_pb2, search_pb2
from shared.entry_facts import facts_of, short_name
from shared.entry_json import message_dict
from tlog.merkle import leaf_hash

FORMATS: Final = ("jsonl", "csv", "parquet")
SEPARATOR: Final = "; "
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BATCH: Final = 1000

NUMBERS: Final = frozenset({"index", "decided_index", "candidates"})
COLUMNS: Final = (
    *("index", "recorded_at", "kind", "search_id", "decided_index", "origin_agency"),
    *("beneficiary_agency", "operator_agency", "gallery_owner", "caller_agency", "jurisdictions"),
    *("system", "gallery", "gallery_class", "purpose", "suspicion", "offence", "statute"),
    *("severity", "provenance", "capture_mode", "outcome", "rules", "citations", "obligations"),
    *("reason", "candidates", "leaf_hash"),
)

Row = dict[str, str | int | None]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""A cell that begins so is run as a formula by programs that open tables."""


def row_of(index: int, leaf: bytes) -> Row:
    """One row, from an entry's bytes alone. Of bytes that cannot be read it has index and hash."""
    row: Row = dict.fromkeys(COLUMNS)
    row["index"] = index
    row["leaf_hash"] = leaf_hash(leaf).hex()
    try:
        entry = Entry.FromString(leaf)
    except DecodeError:
        return row
    facts = facts_of(entry)
    row |= {
        "recorded_at": _time_text(facts.recorded_us),
        "kind": facts.kind_name,
        "search_id": facts.search_id,
        "decided_index": facts.decided_index,
        "origin_agency": facts.origin_agency,
        "beneficiary_agency": facts.beneficiary_agency,
        "operator_agency": facts.operator_agency,
        "gallery_owner": facts.gallery_owner,
        "caller_agency": facts.caller_agency,
        "jurisdictions": SEPARATOR.join(facts.jurisdictions),
        "system": facts.system,
        "gallery": facts.gallery,
        "gallery_class": short_name(search_pb2.GalleryClass, facts.gallery_class),
        "purpose": short_name(search_pb2.Purpose, facts.purpose),
        "suspicion": short_name(search_pb2.SuspicionLevel, facts.suspicion),
        "offence": facts.offence,
        "statute": facts.statute,
        "severity": short_name(search_pb2.OffenceSeverity, facts.severity),
        "provenance": short_name(search_pb2.ProbeProvenance, facts.provenance),
        "capture_mode": short_name(search_pb2.CaptureMode, facts.capture_mode),
        "outcome": short_name(decision_pb2.DecisionOutcome, facts.outcome),
        "rules": SEPARATOR.join(facts.rules),
        "citations": SEPARATOR.join(facts.citations),
        "obligations": SEPARATOR.join(f"{one.kind} ({one.rule_id})" for one in facts.duties),
        "reason": facts.reason,
        "candidates": facts.candidates if facts.kind_name == "search_answered" else None,
    }
    return row


def _time_text(time_us: int) -> str:
    """A time as RFC 3339 has it; one that no calendar has stays the number of seconds that it is."""
    try:
        at = EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return str(time_us // 1_000_000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def json_line(index: int, leaf: bytes) -> str:
    """A row as one line of JSON, with the whole entry."""
    document: dict[str, Any] = dict(row_of(index, leaf))
    try:
        entry = Entry.FromString(leaf)
        document["entry"] = message_dict(entry)
    except DecodeError:
        document["entry"] = None
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def csv_header() -> str:
    """The first line of a CSV table."""
    return ",".join(COLUMNS) + "\r\n"


def csv_line(index: int, leaf: bytes) -> str:
    """A row as RFC 4180 has it; text that would be run as a formula has an apostrophe before it."""
    sink = io.StringIO()
    row = row_of(index, leaf)
    csv.writer(sink, lineterminator="\r\n").writerow(
        ["" if row[name] is None else harmless(row[name]) for name in COLUMNS]
    )
    return sink.getvalue()


def harmless(value: str | int | None) -> str | int | None:
    """A cell that no program that opens tables runs as a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


class TextTable:
    """Writes a table line by line."""

    def __init__(self, path: Path, header: str, line: Callable[[int, bytes], str]) -> None:
        self._file = path.open("wb")
        self._file.write(header.encode())
        self._line = line

    def add(self, index: int, leaf: bytes) -> None:
        """Add an entry."""
        self._file.write(self._line(index, leaf).encode())

    def close(self) -> None:
        """End the file."""
        self._file.close()


class ParquetTable:
    """Writes a Parquet file."""

    def __init__(self, path: Path) -> None:
        import duckdb  # read only when it is needed: it is large

        self._path = path
        self._connection = duckdb.connect(":memory:")
        columns = ", ".join(
            f'"{name}" {"BIGINT" if name in NUMBERS else "VARCHAR"}' for name in COLUMNS
        )
        self._connection.execute(f"CREATE TABLE entries ({columns})")
        self._waiting: list[tuple[str | int | None, ...]] = []

    def add(self, index: int, leaf: bytes) -> None:
        """Add an entry."""
        row = row_of(index, leaf)
        self._waiting.append(tuple(row[name] for name in COLUMNS))
        if len(self._waiting) == BATCH:
            self._flush()

    def _flush(self) -> None:
        appender = self._connection.appender("entries")
        appender.append_rows(self._waiting)
        appender.flush()
        self._waiting = []

    def close(self) -> None:
        """Write the file."""
        if self._waiting:
            self._flush()
        path = str(self._path).replace("'", "''")
        self._connection.execute(
            f"COPY (SELECT * FROM entries ORDER BY index) TO '{path}' (FORMAT parquet)"  # noqa: S608
        )
        self._connection.close()


def open_table(form: str, path: Path) -> TextTable | ParquetTable:
    """Begin a table of this form."""
    if form == "jsonl":
        return TextTable(path, "", json_line)
    if form == "csv":
        return TextTable(path, csv_header(), csv_line)
    return ParquetTable(path)


def first_difference(form: str, path: Path, entries: Iterable[tuple[int, bytes]]) -> str | None:
    """Compare a table with what these entries say; names the first place that differs."""
    if form == "parquet":
        return _parquet_difference(path, entries)
    header, line = ("", json_line) if form == "jsonl" else (csv_header(), csv_line)
    with path.open("rb") as file:
        if file.read(len(header.encode())) != header.encode():
            return "its first line does not name the columns"
        for index, leaf in entries:
            expected = line(index, leaf).encode()
            if file.read(len(expected)) != expected:
                return f"the row of entry {index} is not what the entry says"
        return "it has rows that were not proved" if file.read(1) else None


def _parquet_difference(path: Path, entries: Iterable[tuple[int, bytes]]) -> str | None:
    import duckdb

    try:
        rows = _parquet_rows(path)
        for row, entry in zip_longest(rows, entries):
            if entry is None:
                return "it has rows that were not proved"
            index, leaf = entry
            expected = row_of(index, leaf)
            if row != tuple(expected[name] for name in COLUMNS):
                return f"the row of entry {index} is not what the entry says"
    except duckdb.Error:
        return "it cannot be read as such a table"
    return None


def _parquet_rows(path: Path) -> Iterator[tuple[Any, ...]]:
    import duckdb

    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    with duckdb.connect(":memory:") as connection:
        result = connection.execute(
            f"SELECT {columns} FROM read_parquet(?)",  # noqa: S608  # constants
            [str(path)],
        )
        while rows := result.fetchmany(BATCH):
            yield from rows
