"""A vendor system's own audit export: a CSV file, and a mapping (TOML) that says what its columns mean.

The file is read row by row, as often as needed, and never held. Whatever is wrong with it is said with the
line, and nothing is guessed: a row that is skipped by mistake is a search that nobody looks at.
"""

import csv
import io
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, ValidationError

from shared.model_errors import problems_of
from shared.registry import Name, OfficerId
from shared.settings import Section, SettingsError

FILE_BYTES_MAX: Final = 1024**3
ROWS_MAX: Final = 2_000_000
"""Some 40 bytes each are held while rows are matched."""
YEARS: Final = range(1990, 2100)
"""A time of another year was read wrongly."""
OTHERS_NAMED: Final = 5
"""So many of the values of a column are said, when none is what was looked for."""
LINE_CHARACTERS_MAX: Final = 256 * 1024
"""A longer line is no audit export's, and would be held whole."""
_SEARCH_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _LineTooLong(Exception):
    """There is no line feed for a long while."""


class _Lines:
    """The lines of a file, each bounded, and where one is."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self.number = 0
        self.begun = 1
        """The line on which the row that is read began."""

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LINE_CHARACTERS_MAX + 1):
            if len(line) > LINE_CHARACTERS_MAX:
                raise _LineTooLong(f"a line has more than {LINE_CHARACTERS_MAX} characters")
            self.number += 1
            yield line

    def rows_of(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """The reader's rows, with `begun` told before each."""
        while True:
            self.begun = self.number + 1
            row = next(reader, None)
            if row is None:
                return
            yield row


class BadExport(Exception):
    """The export is not what the mapping says; the message names file and line."""


class Columns(Section):
    """Headings of the columns."""

    time: Column
    user: Column
    case: Column | None = None
    system_search_id: Column | None = None
    """The system's own number of the search."""
    search_id: Column | None = None
    """Countersign's id of the search, where the system keeps it; rows may leave it empty."""
    probe_sha256: Column | None = None


class Times(Section):
    """How times are written."""

    format: str = Field(min_length=2, max_length=100)
    """As `strptime` reads it ("%m/%d/%Y %I:%M:%S %p"), or "iso"."""
    zone: str | None = None
    """IANA time zone ("America/Los_Angeles") of times that say none."""


class Only(Section):
    """Which rows are searches, where the export has others."""

    column: Column
    values: tuple[str, ...] = Field(min_length=1)


class FileForm(Section):
    """How the file is written."""

    encoding: Literal["utf-8", "utf-16", "cp1252", "iso-8859-1"] = "utf-8"
    delimiter: Annotated[str, StringConstraints(pattern=r"^[,;\t|]$")] = ","


class AuditMapping(Section):
    """What the export's columns mean."""

    system: Name
    columns: Columns
    time: Times
    only: Only | None = None
    file: FileForm = FileForm()
    window_s: int = Field(default=120, ge=0, le=86_400)
    """How far the system's clock may be from the ledger's."""
    officers: Mapping[str, OfficerId] = Field(default_factory=dict)
    """User of the export to the officer in the registry."""

    @classmethod
    def load(cls, path: Path) -> "AuditMapping":
        """Read the file; raises SettingsError."""
        try:
            mapping = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
            if mapping.time.zone is not None:
                ZoneInfo(mapping.time.zone)
        except ValidationError as error:
            raise SettingsError(f"cannot use the mapping {path}: {problems_of(error)}") from error
        except OSError as error:
            raise SettingsError(f"cannot read the mapping {path}: {error.strerror}") from error
        except (ValueError, KeyError) as error:
            raise SettingsError(f"cannot use the mapping {path}: {error}") from error
        if mapping.time.zone is None and not {"%z", "iso"} & {
            mapping.time.format,
            mapping.time.format[-2:],
        }:
            raise SettingsError(f"{path}: time: give the zone, or a format that ends with %z")
        return mapping


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A search that the export tells of. An hour that a clock shows twice has two times."""

    line: int
    earliest_us: int
    latest_us: int
    user: str
    case: str
    system_search_id: str
    search_id: str
    probe_sha256: str


class AuditExport:
    """Reads one export, any number of times."""

    def __init__(self, path: Path, mapping: AuditMapping) -> None:
        self._path = path
        self._mapping = mapping
        self._seen: tuple[int, int, int] | None = None
        self._zone = None if mapping.time.zone is None else ZoneInfo(mapping.time.zone)

    def rows(self) -> Iterator[AuditRow]:
        """Every search, in the order of the file; raises BadExport."""
        with self._opened() as file:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter=self._mapping.file.delimiter, strict=True)
            try:
                # Where a cell has line feeds, the number is that of the row's first line.
                numbered = ((lines.begun, cells) for cells in lines.rows_of(reader))
                yield from self._rows(numbered)
            except (csv.Error, _LineTooLong) as error:
                raise self._bad(lines.begun, f"is not CSV: {error}") from error
            except UnicodeError as error:
                encoding = self._mapping.file.encoding
                raise self._bad(lines.number + 1, f"is not {encoding}") from error

    def _rows(self, numbered: Iterator[tuple[int, list[str]]]) -> Iterator[AuditRow]:
        _, heading = next(numbered, (1, None))
        if heading is None:
            raise self._bad(1, "is not there: the file is empty")
        places, only = self._places(heading), self._mapping.only
        count = 0
        others: list[str] = []
        for line, cells in numbered:
            if not cells:
                continue  # an empty line, as many programs leave one at the end
            if len(cells) != len(heading):
                raise self._bad(line, f"has {len(cells)} cells; the heading has {len(heading)}")
            if any("\0" in cell for cell in cells):
                raise self._bad(line, "has a zero byte")
            if only is not None and (said := cells[places["only"]].strip()) not in only.values:
                if len(others) < OTHERS_NAMED and said not in others:
                    others.append(said)
                continue
            count += 1
            if count > ROWS_MAX:
                raise self._bad(line, f"is past {ROWS_MAX} searches: split the file")
            yield self._row(line, cells, places)
        if only is not None and others and not count:
            # Otherwise a value that is misspelt in the mapping would say that nothing is outside.
            raise BadExport(
                f"{self._path} has no search by the mapping: its column {only.column!r} never says "
                f"{_listed(only.values)}, and says {_listed(others)}; correct `values` below `[only]`"
            )

    def _places(self, heading: Sequence[str]) -> dict[str, int]:
        names = [name.strip() for name in heading]
        wanted = dict(self._mapping.columns.model_dump(exclude_none=True))
        if self._mapping.only is not None:
            wanted["only"] = self._mapping.only.column
        places = {}
        for meaning, name in wanted.items():
            if names.count(name) != 1:
                raise self._bad(1, f"has {names.count(name)} columns named {name!r}, not one")
            places[meaning] = names.index(name)
        return places

    def _row(self, line: int, cells: Sequence[str], places: Mapping[str, int]) -> AuditRow:
        said = {meaning: cells[place].strip() for meaning, place in places.items()}
        if not said["user"]:
            raise self._bad(line, "names no user")
        search_id = said.get("search_id", "").lower()
        if search_id and _SEARCH_ID.fullmatch(search_id) is None:
            raise self._bad(line, f"{self._mapping.columns.search_id!r} is no search id")
        earliest, latest = self._times(line, said["time"])
        return AuditRow(
            line=line,
            earliest_us=(earliest - _EPOCH) // _MICROSECOND,
            latest_us=(latest - _EPOCH) // _MICROSECOND,
            user=said["user"],
            case=said.get("case", ""),
            system_search_id=said.get("system_search_id", ""),
            search_id=search_id,
            probe_sha256=said.get("probe_sha256", ""),
        )

    def _times(self, line: int, text: str) -> tuple[datetime, datetime]:
        form = self._mapping.time.format
        try:
            # The zone comes below.
            at = datetime.fromisoformat(text) if form == "iso" else datetime.strptime(text, form)  # noqa: DTZ007
        except ValueError:
            raise self._bad(line, f"has no time as {form!r}: {text[:40]!r}") from None
        if at.year not in YEARS:
            raise self._bad(line, f"is of the year {at.year}: what does the format say?")
        if at.tzinfo is not None:
            return at, at
        zone = self._zone
        if zone is None:
            raise self._bad(line, "has a time that says no zone, and the mapping names none")
        offset = zone.utcoffset(at)
        if offset is not None and offset == zone.utcoffset(at.replace(fold=1)):
            # Neither shown twice nor never, as nearly all are: this spares two conversions.
            plain = at.replace(tzinfo=UTC) - offset
            return plain, plain
        first, second = (_in_utc(at, zone, fold) for fold in (0, 1))
        if first.astimezone(zone).replace(tzinfo=None) != at:
            raise self._bad(line, f"has a time that {zone} never showed: {text[:40]!r}")
        return min(first, second), max(first, second)

    @contextmanager
    def _opened(self) -> Iterator[io.TextIOWrapper]:
        encoding = self._mapping.file.encoding
        try:
            with self._path.open("rb") as raw:
                status = self._path.stat()
                seen = (status.st_ino, status.st_size, status.st_mtime_ns)
                if status.st_size > FILE_BYTES_MAX:
                    raise BadExport(f"{self._path} has more than {FILE_BYTES_MAX} bytes")
                if self._seen not in (None, seen):
                    raise BadExport(f"{self._path} changed while it was read")
                self._seen = seen
                # A mark of the byte order is not part of the first heading.
                codec = "utf-8-sig" if encoding == "utf-8" else encoding
                with io.TextIOWrapper(raw, encoding=codec, newline="") as file:
                    yield file
        except OSError as error:
            raise BadExport(f"cannot read {self._path}: {error.strerror}") from error

    def _bad(self, line: int, what: str) -> BadExport:
        return BadExport(f"{self._path}: line {line} {what}")


def _listed(values: Sequence[str]) -> str:
    return ", ".join(repr(value[:40]) for value in values[:OTHERS_NAMED])


def _in_utc(at: datetime, zone: tzinfo, fold: int) -> datetime:
    return at.replace(tzinfo=zone, fold=fold).astimezone(UTC)
