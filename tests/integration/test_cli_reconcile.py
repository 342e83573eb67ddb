"""`countersign reconcile import` as an auditor runs it, against a real ledger with searches on record."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from countersign.client import tables
from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse, PendingEntry
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from support.disclosures import COMMISSION, REGISTRY
from support.histories import answered
from support.ledgers import LAPD, decided, search_id, write_settings
from support.nats_servers import NatsUnderTest
from support.terminals import Said, write_client

HEADING = ("Id", "When", "Who", "Case", "Reference")
MAPPING = """
system = "lacris"
[columns]
time = "When"
user = "Who"
case = "Case"
system_search_id = "Id"
search_id = "Reference"
[time]
format = "iso"
[officers]
smith = "officer-1"
jones = "officer-2"
"""


@dataclass
class Auditor:
    """An oversight body with a vendor's export in a folder."""

    folder: Path
    config: Path
    capsys: pytest.CaptureFixture[str]
    began: datetime

    async def reconcile(self, *rows: tuple[str, ...], arguments: tuple[object, ...] = ()) -> Said:
        """Import these rows: minutes after the beginning, user, case, id."""
        export, mapping = self.folder / "export.csv", self.folder / "mapping.toml"
        mapping.write_text(MAPPING)
        with export.open("w", newline="") as file:
            write = csv.writer(file).writerow
            write(HEADING)
            for number, (minutes, *said) in enumerate(rows):
                at = self.began + timedelta(minutes=float(minutes))
                write([f"T-{number}", at.isoformat(), *said])
        return await self.run(export, "--mapping", mapping, *arguments)

    async def run(self, *arguments: object) -> Said:
        self.capsys.readouterr()
        given = ["reconcile", "import", *map(str, arguments), "--config", str(self.config)]
        code = await asyncio.to_thread(exit_code, given)
        return Said(code, *self.capsys.readouterr())


def searches() -> list[PendingEntry]:
    """Two that were answered, one that was refused."""
    begun = [decided(1), decided(2), decided(3, permitted=False)]
    for pending in begun[:2]:
        pending.entry.search_decided.deadline.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    return [*begun, answered(1, 0), answered(2, 1)]


@pytest.fixture(name="auditor")
async def _auditor(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Auditor]:
    config = write_settings(tmp_path, nats_server)
    (tmp_path / "registry.toml").write_text(REGISTRY)
    config.write_text('registry = "registry.toml"\n' + config.read_text())
    began = datetime.now(UTC)
    async with running(LedgerSettings.load(config)) as ledger:
        bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        appended = AppendRequest(entries=searches())
        await bus.request("ledger.append", appended, AppendResponse, timeout_s=20)
        await bus.close()
        client = write_client(tmp_path, nats_server, ledger.server.port, holder=COMMISSION)
        yield Auditor(tmp_path, client, capsys, began)


async def test_an_export_of_what_is_on_record_has_nothing_outside(auditor: Auditor) -> None:
    said = await auditor.reconcile(("0", "smith", "26-1", search_id(1)), ("0", "jones", "26-2", ""))
    assert (said.code, "NOTHING OUTSIDE" in said.out) == (0, True), said
    assert "1 by id, 0 by officer and time, 1 by time alone" in said.err


@pytest.mark.promise(1)
async def test_a_search_outside_the_broker_is_told_by_whom_when_and_on_what(
    auditor: Auditor,
) -> None:
    rows = (
        ("0", "smith", "26-1", search_id(1)),
        ("0", "jones", "26-2", ""),
        ("0", "doe", "26-3", ""),
        ("-600", "doe", "26-4", ""),
        ("0", "smith", "26-5", search_id(3)),
        ("0", "smith", "26-6", search_id(9)),
    )
    said = await auditor.reconcile(*rows, arguments=("--json",))
    assert said.code == 1, said
    outside = said.document["searches"]
    assert [one["case"] for one in outside] == ["26-3", "26-4", "26-5", "26-6"]
    assert (outside[1]["user"], outside[1]["system_search_id"]) == ("doe", "T-3")
    assert outside[1]["time"].startswith(f"{auditor.began - timedelta(hours=10):%Y-%m-%dT%H:%M}")
    assert [(one["user"], one["searches"]) for one in said.document["users"]] == [
        ("doe", 2),
        ("smith", 2),
    ]
    said = await auditor.reconcile(*rows)
    assert "OUTSIDE: 4 searches of lacris are not on record, by 2 users" in said.out
    later = await auditor.reconcile(
        *rows, arguments=("--json", "--since", (auditor.began - timedelta(hours=1)).isoformat())
    )
    assert (later.document["outside"], later.document["rows_skipped"]) == (3, 1)


async def test_an_entitled_reader_sees_that_a_search_was_another_officers(auditor: Auditor) -> None:
    rows = (("0", "smith", "", ""), ("0", "smith", "", ""))
    said = await auditor.reconcile(*rows, arguments=("--json",))
    assert (said.code, said.document["accounted"]["by_time"]) == (0, 2)
    authority = ("--agency", LAPD, "--authority", "Los Angeles City Charter s. 573", "--json")
    said = await auditor.reconcile(*rows, arguments=authority)
    assert (said.code, said.document["accounted"]["by_officer"]) == (1, 1), said.err
    assert said.document["outside"] == 1


async def test_what_an_export_says_is_not_run_by_terminal_or_spreadsheet(auditor: Auditor) -> None:
    outside = auditor.folder / "outside.csv"
    rows = (("-600", "=cmd|' /C calc'!A0", "\x1b[2J", ""),)
    said = await auditor.reconcile(*rows, arguments=("--csv", outside))
    assert said.code == 1
    assert "\x1b" not in said.out
    assert "'=cmd|" in said.out
    with outside.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["user"] == "'=cmd|' /C calc'!A0"
    assert tables.harmless(row["user"]) == row["user"]
    again = await auditor.reconcile(*rows, arguments=("--csv", outside))
    assert again.code == 2, "what is there is not written over"


async def test_bad_input_exits_with_2_and_names_the_line(auditor: Auditor) -> None:
    export, mapping = auditor.folder / "bad.csv", auditor.folder / "mapping.toml"
    mapping.write_text(MAPPING)
    export.write_text(",".join(HEADING) + "\nT-1,yesterday,smith,,\n")
    said = await auditor.run(export, "--mapping", mapping)
    assert (said.code, "line 2 has no time" in said.err) == (2, True)
    assert (await auditor.run(auditor.folder / "none.csv", "--mapping", mapping)).code == 2
    mapping.write_text("system = 3")
    assert (await auditor.run(export, "--mapping", mapping)).code == 2


async def test_an_empty_export_has_nothing_outside(auditor: Auditor) -> None:
    said = await auditor.reconcile(arguments=("--json",))
    assert (said.code, said.document["rows"]) == (0, 0)
    assert json.loads(said.out)["basis"] is None


async def test_what_compared_nothing_does_not_say_that_all_is_on_record(auditor: Auditor) -> None:
    row = ("0", "smith", "26-1", search_id(1))
    past = (auditor.began - timedelta(days=2)).isoformat()
    said = await auditor.reconcile(row, arguments=("--until", past))
    assert (said.code, "NOTHING COMPARED" in said.out) == (0, True), said
    said = await auditor.reconcile(row, arguments=("--until", past, "--since", past))
    assert (said.code, "--since is not before --until" in said.err) == (2, True), said


async def test_rows_of_a_system_that_has_nothing_on_record_ask_for_its_name(
    auditor: Auditor,
) -> None:
    said = await auditor.reconcile(("0", "smith", "26-1", ""))
    assert "as the registry does?" not in said.err
    mapping = auditor.folder / "mapping.toml"
    mapping.write_text(MAPPING.replace("lacris", "lacrs"))
    said = await auditor.run(auditor.folder / "export.csv", "--mapping", mapping)
    assert (said.code, "as the registry does?" in said.err) == (1, True), said
