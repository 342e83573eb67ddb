"""What a newer program wrote, an older one proves, lists, shows, checks and exports all the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.__main__ import running
from ledger.config import LedgerSettings
from ledger.entry import CompletedEntry, index_columns
from ledger.from_settings import database_of
from ledger.log import begin_log, opened
from support.ledgers import SIGNER, assert_whole, complete, failed, search_id, write_settings
from support.nats_servers import NatsUnderTest
from support.terminals import VKEY, Terminal, write_client

KIND = 777
# Field 777 of Entry, and field 50 of a SearchFailed: both unknown to us.
NEW_KIND = b"\xca\x30\x04soon"
NEW_DETAIL = b"\x92\x03\x04more"


def from_the_future(epoch: int = 1) -> CompletedEntry:
    entry = Entry(schema_epoch=epoch, recorded_by="tomorrow", search_id=search_id(7))
    leaf = entry.SerializeToString() + NEW_KIND
    columns = index_columns(Entry.FromString(leaf))
    assert columns is not None
    return CompletedEntry(leaf=leaf, idempotency_key=None, columns=columns, openings=())


def with_a_new_detail() -> CompletedEntry:
    (known,) = complete(failed(1))
    entry = Entry.FromString(known.leaf)
    entry.search_failed.MergeFromString(NEW_DETAIL)
    return CompletedEntry(
        entry.SerializeToString(), known.idempotency_key, known.columns, known.openings
    )


@pytest.fixture(name="terminal")
async def _terminal(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Terminal]:
    """A ledger with four entries; a newer program wrote all but the last."""
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    database = database_of(settings)
    begin_log(database, SIGNER)
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append([from_the_future(), from_the_future(epoch=9)])
        await log.sequencer.append([with_a_new_detail(), *complete(failed(2))])
    assert_whole(database)
    async with running(settings) as ledger:
        yield Terminal(write_client(tmp_path, nats_server, ledger.server.port), capsys)


@pytest.mark.promise(4)
async def test_entries_of_the_future_are_listed_by_number(terminal: Terminal) -> None:
    said = await terminal.read("list")
    assert said.code == 0
    assert f"unknown kind {KIND}" in said.out
    found = (await terminal.read("list", "--kind", KIND, "--json")).document["entries"]
    assert [(one["index"], one["kind"]) for one in found] == [
        (0, f"unknown kind {KIND}"),
        (1, f"unknown kind {KIND}"),
    ]
    of_search = (await terminal.read("list", "--search", search_id(7), "--json")).document
    assert [one["index"] for one in of_search["entries"]] == [0]
    assert (await terminal.read("list", "--kind", "nonsense")).code == 2


@pytest.mark.promise(4)
async def test_entries_of_the_future_are_proved(terminal: Terminal, tmp_path: Path) -> None:
    for index in range(4):
        said = await terminal.read("prove", index, "--save", tmp_path / "receipts")
        assert said.code == 0
        receipt = tmp_path / "receipts" / f"entry-{index}.tlog-proof"
        assert (await terminal.run("verify", receipt, "--key", VKEY)).code == 0


async def test_entries_of_the_future_are_shown(terminal: Terminal) -> None:
    shown = await terminal.read("show", 0)
    assert (shown.code, f"unknown kind {KIND}" in shown.out, "tomorrow" in shown.out) == (
        0,
        True,
        True,
    )
    later = await terminal.read("show", 1)
    assert (later.code, "tomorrow" in later.out) == (0, False), "its fields may mean something else"
    assert "written by a newer program" in later.out
    known = await terminal.read("show", 2)
    assert (known.code, "search_failed" in known.out) == (0, True)


@pytest.mark.promise(4)
async def test_entries_of_the_future_are_exported_and_verified(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert (await terminal.read("export", tmp_path / "export")).code == 0
    said = await terminal.run("verify", tmp_path / "export", "--key", VKEY)
    assert (said.code, "all 4 entries" in said.out) == (0, True)
    bundle = next(path for path in (tmp_path / "export/tile/entries").rglob("*") if path.is_file())
    assert (NEW_KIND in bundle.read_bytes(), NEW_DETAIL in bundle.read_bytes()) == (True, True)
