"""What is read of a vendor's audit export, and what is said when it cannot be."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from countersign.client import audit_export
from countersign.client.audit_export import AuditExport, AuditMapping, AuditRow, BadExport
from shared.settings import SettingsError

DATA = Path(__file__).resolve().parents[1] / "data" / "audit"
HEADING = "When,Who,Id\n"
ISO = '[time]\nformat = "iso"\nzone = "America/Los_Angeles"\n'
PLAIN = 'system = "lacris"\n[columns]\ntime = "When"\nuser = "Who"\nsearch_id = "Id"\n' + ISO


def rows(folder: Path, text: str | bytes, mapping: str = PLAIN) -> list[AuditRow]:
    export, toml = folder / "export.csv", folder / "mapping.toml"
    export.write_bytes(text if isinstance(text, bytes) else text.encode())
    toml.write_text(mapping)
    return list(AuditExport(export, AuditMapping.load(toml)).rows())


def at(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


def test_the_example_of_the_documentation_is_read() -> None:
    mapping = AuditMapping.load(DATA / "mapping.toml")
    first, second, third = AuditExport(DATA / "export.csv", mapping).rows()
    assert (first.line, first.user, first.case) == (3, "jmartinez", "26-0001")
    assert at(first.earliest_us) == "2026-11-19T16:15:41+00:00"
    assert first.search_id == "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10"
    assert (second.user, second.system_search_id) == ("Okafor, D.", "T-000404")
    assert at(third.earliest_us) == "2026-11-20T07:58:59+00:00"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 is not there"),
        ("When,Who\n", "line 1 has 0 columns named 'Id'"),
        ("When,Who,Id,Who\n", "line 1 has 2 columns named 'Who'"),
        (HEADING + "2026-11-20,x\n", "line 2 has 2 cells; the heading has 3"),
        (HEADING + "2026-11-20,x,,\n", "line 2 has 4 cells; the heading has 3"),
        (HEADING + "2026-11-20,x,\n20/11/2026,x,\n", "line 3 has no time as 'iso'"),
        (HEADING + "1000-11-20,x,\n", "line 2 is of the year 1000"),
        (HEADING + "2026-11-20, ,\n", "line 2 names no user"),
        (HEADING + "2026-11-20,x,T-1\n", "line 2 'Id' is no search id"),
        (HEADING + '2026-11-20,"x,\n', "line 2 is not CSV"),
        (HEADING + '2026-11-20,"a\nb",\n2026-11-20,"a"b,\n', "line 4 is not CSV"),
        (HEADING + "2026-11-20,x\0,\n", "line 2 has a zero byte"),
        (HEADING + "2026-03-08T02:30:00,x,\n", "that America/Los_Angeles never showed"),
        (HEADING.encode() + b"2026-11-20,\xff,\n", "is not utf-8"),
        (HEADING + "x" * 300_000, "line 2 is not CSV: a line has more than"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    with pytest.raises(BadExport) as refused:
        rows(tmp_path, text)
    assert said in str(refused.value)


def test_a_mapping_by_which_no_row_is_a_search_is_said_to_be_wrong(tmp_path: Path) -> None:
    only = PLAIN + '[only]\ncolumn = "Who"\nvalues = ["Face search"]\n'
    text = HEADING + "2026-11-20,Login,\n2026-11-20,Face Search,\n"
    with pytest.raises(BadExport) as refused:
        rows(tmp_path, text, only)
    assert "never says 'Face search', and says 'Login', 'Face Search'" in str(refused.value)
    assert rows(tmp_path, HEADING, only) == []
    assert len(rows(tmp_path, text, only.replace("Face search", "Face Search"))) == 1


def test_a_mapping_with_a_wrong_key_is_refused_in_words_for_its_writer(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        rows(tmp_path, HEADING, PLAIN.replace("search_id", "searchid"))
    assert str(refused.value).endswith("mapping.toml: columns.searchid: there is no such key")
    with pytest.raises(SettingsError, match=r"^cannot read the mapping /none\.toml: No such file"):
        AuditMapping.load(Path("/none.toml"))


def test_an_hour_that_clocks_show_twice_has_two_times(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, HEADING + "2026-11-01T01:30:00,x,\n")
    assert at(row.earliest_us) == "2026-11-01T08:30:00+00:00"
    assert at(row.latest_us) == "2026-11-01T09:30:00+00:00"


def test_forms_that_programs_write_are_read(tmp_path: Path) -> None:
    text = '﻿"When";"Who";"Id"\r\n2026-11-20T10:00:00Z;Müller;\r\n\r\n'
    mapping = PLAIN + '[file]\ndelimiter = ";"\n'
    (row,) = rows(tmp_path, text, mapping)
    assert (row.line, row.user, at(row.earliest_us)) == (2, "Müller", "2026-11-20T10:00:00+00:00")


@pytest.mark.parametrize(
    "mapping",
    [
        "",
        PLAIN.replace("Los_Angeles", "Nowhere"),
        PLAIN.replace("Who", ""),
        PLAIN + "[else]\n",
        'system = "lacris"\n[columns]\ntime = "When"\nuser = "Who"\n[time]\nformat = "%H:%M"\n',
        'system = "lacris"\n[columns',
    ],
)
def test_a_mapping_that_means_nothing_is_refused(tmp_path: Path, mapping: str) -> None:
    with pytest.raises(SettingsError):
        rows(tmp_path, HEADING, mapping)


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    export, toml = tmp_path / "export.csv", tmp_path / "mapping.toml"
    export.write_text(HEADING + "2026-11-20,x,\n")
    toml.write_text(PLAIN)
    source = AuditExport(export, AuditMapping.load(toml))
    assert len(list(source.rows())) == 1
    export.write_text(HEADING + "2026-11-20,x,\n2026-11-20,y,\n")
    with pytest.raises(BadExport):
        list(source.rows())


def test_rows_are_not_held(tmp_path: Path) -> None:
    """A fault far down is met only when it is come to, so what is before it was given out."""
    export, toml = tmp_path / "export.csv", tmp_path / "mapping.toml"
    export.write_text(HEADING + "2026-11-20,x,\n" * 50_000 + "nonsense\n")
    toml.write_text(PLAIN)
    given = AuditExport(export, AuditMapping.load(toml)).rows()
    assert sum(1 for _ in zip(range(50_000), given, strict=False)) == 50_000
    with pytest.raises(BadExport):
        next(given)
    assert audit_export.ROWS_MAX >= 1_000_000
