"""`countersign ledger query`, `count`, `export-table` and what verifies them, against a real ledger."""

import csv
import json
import os
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from countersign.client import VerificationError
from countersign.client.periods import closings_in, verify_periods
from countersign.client.table_verify import verify_table
from countersign.client.tables import COLUMNS, csv_line, row_of
from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.__main__ import running
from ledger.config import LedgerSettings
from ledger.periods import closing_entries
from ledger.questions import SpanCounts
from shared.bus import Bus
from shared.entry_facts import facts_of
from support.exports import export_of, lay_out
from support.histories import HISTORY
from support.ledgers import LAPD, SIGNER, complete, write_settings
from support.nats_servers import NatsUnderTest
from support.terminals import VKEY, Terminal, write_client
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import TreeAtSize, leaf_hash, node_hash, root_of_leaves
from tlog.policy import Policy
from tlog.proof import write_proof

POLICY = Policy.of_logs([SIGNER.verifier])


@pytest.fixture(name="terminal")
async def _terminal(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Terminal]:
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    async with running(settings) as ledger:
        bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        await bus.request(
            "ledger.append", AppendRequest(entries=HISTORY), AppendResponse, timeout_s=20
        )
        await bus.close()
        yield Terminal(write_client(tmp_path, nats_server, ledger.server.port), capsys)


async def test_entries_are_found_by_what_they_say(terminal: Terminal) -> None:
    said = await terminal.read("query", "--agency", LAPD, "--outcome", "refused")
    assert (said.code, "LAPD-4" in said.out) == (0, True)
    assert "VERIFIED: each row" in said.err
    said = await terminal.read("query", "--obligation-state", "open", "--kind", 11, "--json")
    assert [one["index"] for one in said.document["entries"]] == [3]
    said = await terminal.read(
        "query", "--limit", 2, "--purpose", "criminal-investigation", "--json"
    )
    assert (len(said.document["entries"]), said.document["more"]) == (2, True)
    nothing = await terminal.read("query", "--from", "2099-01-01")
    assert "No entries." in nothing.out


async def test_entries_are_counted(terminal: Terminal) -> None:
    said = await terminal.read(
        "count", "--by", "kind", "--by", "end-state", "--kind", "search_decided"
    )
    assert said.code == 0
    assert "ANSWERED" in said.out
    document = (await terminal.read("count", "--by", "month", "--json")).document
    assert document["entries"] == len(HISTORY)
    assert document["groups"][0]["month"] == datetime.now(UTC).strftime("%Y-%m")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--officer", "x"),
        ("--officer", "x", "--case", "y"),
        ("--from", "yesterday"),
        ("--kind", "x"),
    ],
)
async def test_what_is_not_understood_exits_with_2(
    terminal: Terminal, arguments: tuple[str, ...]
) -> None:
    assert (await terminal.read("query", *arguments)).code == 2


def _indexes(table: Path) -> list[int]:
    """As somebody else's program reads them."""
    if table.suffix == ".parquet":
        with duckdb.connect(":memory:") as connection:
            rows = connection.execute("SELECT index FROM read_parquet(?)", [str(table)]).fetchall()
        return [row[0] for row in rows]
    with table.open(newline="") as file:
        if table.suffix == ".csv":
            return [int(row["index"]) for row in csv.DictReader(file)]
        return [json.loads(line)["index"] for line in file]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
async def test_a_table_verifies_offline(terminal: Terminal, tmp_path: Path, form: str) -> None:
    report = tmp_path / "report"
    said = await terminal.read("export-table", report, "--format", form, "--agency", LAPD)
    assert said.code == 0, said.err
    said = await terminal.run("verify-export-table", report, "--key", VKEY)
    assert (said.code, "VERIFIED" in said.out) == (0, True)
    rows = [row_of(i, one.leaf) for i, one in enumerate(complete(*HISTORY))]
    indexes = _indexes(report / f"rows.{form}")
    assert indexes == [row["index"] for row in rows if LAPD in str(row)]
    again = await terminal.read("query", "--kind", "export_made", "--json")
    made = again.document["entries"][0]["entry"]["export_made"]
    assert (made["query"], int(made["rows"])) == ('{"agency":"CA0194200"}', len(indexes))
    assert (await terminal.read("export-table", report)).code == 2


async def test_periods_are_verified_from_the_server(terminal: Terminal) -> None:
    said = await terminal.read("verify-periods", "--server")
    assert (said.code, "no period is closed" in said.out) == (0, True)


# Without a server: a log with closed days.


def _tree(hashes: list[bytes]) -> TreeAtSize:
    def subtree(level: int, index: int) -> bytes:
        if level == 0:
            return hashes[index]
        return node_hash(subtree(level - 1, 2 * index), subtree(level - 1, 2 * index + 1))

    return TreeAtSize(len(hashes), subtree)


def closing(leaves: list[bytes], first: int, day: int, previous: int | None) -> bytes:
    """The entry that closes a day over what has come since `first`, as the ledger would."""
    totals: dict[tuple[str, int], int] = {}
    for leaf in leaves[first:]:
        facts = facts_of(Entry.FromString(leaf))
        key = (facts.origin_agency, facts.kind)
        totals[key] = totals.get(key, 0) + 1
    counted = SpanCounts(len(leaves), [(*key, n) for key, n in sorted(totals.items())], [6])
    (closed,) = closing_entries(first, counted)
    start = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(days=day)
    closed.starts_at.FromDatetime(start)
    closed.ends_at.FromDatetime(start + timedelta(days=1))
    if previous is not None:
        closed.previous_index = previous
    entry = Entry(schema_epoch=1, period_closed=closed)
    entry.recorded_at.FromDatetime(start + timedelta(days=1, seconds=10))
    return entry.SerializeToString(deterministic=True)


def log_with_periods() -> list[bytes]:
    leaves = []
    for one in complete(*HISTORY):
        entry = Entry.FromString(one.leaf)
        entry.recorded_at.FromDatetime(datetime(2026, 11, 20, 9, tzinfo=UTC))
        leaves.append(entry.SerializeToString(deterministic=True))
    leaves.append(closing(leaves, 0, 0, None))
    leaves.append(closing(leaves, len(HISTORY), 1, len(HISTORY)))
    return leaves


@pytest.mark.promise(4)
def test_periods_are_counted_again() -> None:
    leaves = log_with_periods()
    closings = closings_in(enumerate(leaves))
    assert [(one.first_index, one.end_index) for one in closings] == [(0, 8), (8, 9)]
    assert verify_periods(leaves, closings) == len(leaves)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: c.totals[1].__setattr__("count", 9), "it says 9 entries"),
        (lambda c: c.totals.pop(), "there are 1"),
        (lambda c: c.__setattr__("first_index", 1), "does not begin where"),
        (lambda c: c.__setattr__("open_searches_sha256", bytes(32)), "still open"),
        (
            lambda c: c.ends_at.FromDatetime(datetime(2026, 11, 20, 9, tzinfo=UTC)),
            "does not begin when the last one ended",
        ),
        (lambda c: c.__setattr__("part", 2), "a part of the period before it is missing"),
    ],
)
def test_a_wrong_count_is_named(spoil: Callable[[Any], None], says: str) -> None:
    leaves = log_with_periods()
    entry = Entry.FromString(leaves[8])
    spoil(entry.period_closed)
    leaves[8] = entry.SerializeToString(deterministic=True)
    with pytest.raises(VerificationError, match=says):
        verify_periods(leaves, closings_in(enumerate(leaves)))


def test_an_entry_of_the_next_day_is_not_counted_in_this_one() -> None:
    leaves = log_with_periods()
    entry = Entry.FromString(leaves[3])
    entry.recorded_at.FromDatetime(datetime(2026, 11, 21, tzinfo=UTC))
    leaves[3] = entry.SerializeToString(deterministic=True)
    with pytest.raises(VerificationError, match="entry 3 was recorded after its period ended"):
        verify_periods(leaves, closings_in(enumerate(leaves)))


async def test_periods_are_verified_from_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path / "copy", export_of(log_with_periods(), SIGNER))
    terminal = Terminal(tmp_path, capsys)
    said = await terminal.run("verify-periods", tmp_path / "copy", "--key", VKEY)
    assert (said.code, "2 periods count entries 0 to 8" in said.out) == (0, True)
    assert (await terminal.run("verify-periods", "--key", VKEY)).code == 2
    (tmp_path / "copy" / "checkpoint").unlink()
    said = await terminal.run("verify-periods", tmp_path / "copy", "--key", VKEY)
    assert (said.code, "the file is missing" in said.out) == (1, True)


async def test_periods_are_verified_where_a_full_tile_has_replaced_a_partial_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a log may serve it: its files have grown since the checkpoint was signed."""
    leaves = log_with_periods() + [b"later entry"] * 300
    grown = export_of(leaves, SIGNER)
    lay_out(tmp_path, grown | {"checkpoint": export_of(leaves[:200], SIGNER)["checkpoint"]})
    said = await Terminal(tmp_path, capsys).run("verify-periods", tmp_path, "--key", VKEY)
    assert (said.code, "2 periods count entries 0 to 8" in said.out) == (0, True), said.out
    assert "191 later ones" in said.out


def report(
    folder: Path, leaves: list[bytes], shown: list[int], query: dict[str, Any], periods: list[int]
) -> Path:
    """A report made by whoever holds the log's key: nothing in it is wrong but what is left out."""
    folder.mkdir()
    entry = Entry(schema_epoch=1)
    made = entry.export_made
    made.query = json.dumps(query, sort_keys=True, separators=(",", ":"))
    made.tree_size, made.rows = len(leaves), len(shown)
    made.indexes_sha256 = sha256(b"".join(i.to_bytes(8, "big") for i in shown)).digest()
    everything = [*leaves, entry.SerializeToString(deterministic=True)]
    hashes = [leaf_hash(one) for one in everything]
    tree = _tree(hashes)
    note = sign_checkpoint(
        Checkpoint(SIGNER.verifier.name, len(everything), root_of_leaves(hashes)), SIGNER
    )

    def lines(indexes: list[int]) -> str:
        return "".join(
            json.dumps(
                {
                    "index": i,
                    "leaf": b64encode(everything[i]).decode(),
                    "hashes": [b64encode(one).decode() for one in tree.inclusion_proof(i)],
                }
            )
            + "\n"
            for i in indexes
        )

    files = {
        "checkpoint": note.encode(),
        "export-made.leaf": everything[-1],
        "export-made.tlog-proof": write_proof(
            len(leaves), tree.inclusion_proof(len(leaves)), note
        ).encode(),
        "receipts.jsonl": lines(shown).encode(),
        "periods.jsonl": lines(periods).encode(),
        "rows.csv": (",".join(COLUMNS) + "\r\n").encode()
        + b"".join(csv_line(i, everything[i]).encode() for i in shown),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(
        json.dumps(
            {
                "version": 1,
                "query": query,
                "format": "csv",
                "tree_size": len(leaves),
                "rows": len(shown),
                "files": {name: sha256(content).hexdigest() for name, content in files.items()},
            }
        )
    )
    return folder


OF_LAPD = {"agency": LAPD, "agency_role": "AGENCY_ROLE_ORIGIN", "kinds": ["search_decided"]}


@pytest.mark.promise(4)
def test_a_report_that_hides_an_entry_is_caught(tmp_path: Path) -> None:
    leaves = log_with_periods()
    whole = report(tmp_path / "whole", leaves, [0, 1, 3], OF_LAPD, [8, 9])
    assert verify_table(whole, POLICY).complete == "nothing is left out of entries 0 to 8"
    hiding = report(tmp_path / "hiding", leaves, [0, 3], OF_LAPD, [8, 9])
    with pytest.raises(VerificationError, match="it has 2 rows; the ledger counted 3"):
        verify_table(hiding, POLICY)


@pytest.mark.promise(4)
@pytest.mark.parametrize("change", [{"start_index": 1}, {"end_index": 3}, {"agency": "CA0190000"}])
def test_another_entry_does_not_stand_in_for_a_hidden_one(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    leaves = log_with_periods()
    other = next(i for i in range(8) if i not in (0, 1, 3))
    swapped = report(tmp_path / "swapped", leaves, sorted([0, 1, other]), OF_LAPD, [8, 9])
    with pytest.raises(VerificationError, match=f"entry {other} is not one that the query asks"):
        verify_table(swapped, POLICY)
    beside = report(tmp_path / "beside", leaves, [0, 1, 3], OF_LAPD | change, [8, 9])
    with pytest.raises(VerificationError, match="is not one that the query asks"):
        verify_table(beside, POLICY)


def test_what_cannot_be_counted_is_not_called_complete(tmp_path: Path) -> None:
    leaves = log_with_periods()
    refused = report(tmp_path / "refused", leaves, [1], {"outcome": "X"}, [8, 9])
    assert "cannot be told" in verify_table(refused, POLICY).complete
    without = report(tmp_path / "without", leaves, [0, 1, 3], OF_LAPD, [])
    assert verify_table(without, POLICY).complete == "no closed period covers it"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("rows.csv", "the row of entry 1 is not what the entry says"),
        ("receipts.jsonl", "receipts.jsonl: line 2"),
        ("checkpoint", "checkpoint:"),
        ("export-made.leaf", "export-made"),
    ],
)
def test_what_was_changed_is_named_even_if_the_manifest_was_too(
    tmp_path: Path, file: str, says: str
) -> None:
    folder = report(tmp_path / "report", log_with_periods(), [0, 1, 3], OF_LAPD, [8])
    path = folder / file
    content = path.read_bytes()
    changed = {
        "rows.csv": content.replace(b"REFUSED", b"PERMITT"),
        "receipts.jsonl": content.replace(b'"index": 1', b'"index": 2'),
    }.get(file, content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(VerificationError, match=r"SHA-256"):
        verify_table(folder, POLICY)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = sha256(changed).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match=says):
        verify_table(folder, POLICY)
    shutil.rmtree(folder)


@pytest.mark.parametrize("file", ["manifest.json", "rows.csv", "receipts.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, file: str) -> None:
    folder = report(tmp_path / "report", log_with_periods(), [0, 1, 3], OF_LAPD, [8])
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(VerificationError, match=file):
        verify_table(folder, POLICY)


def test_no_cell_is_run_as_a_formula() -> None:
    entry = Entry(schema_epoch=1)
    entry.search_decided.summary.offence.statute = "=HYPERLINK(0)"
    leaf = entry.SerializeToString(deterministic=True)
    assert "'=HYPERLINK(0)" in csv_line(0, leaf)
    entry.search_decided.summary.offence.statute = '@x,"y"\nz'
    (row,) = csv.reader([csv_line(0, entry.SerializeToString(deterministic=True))])
    assert row[COLUMNS.index("statute")].startswith("'@x")
