"""`countersign ledger`: what it says and how it ends, against a real ledger and on files alone."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse, PendingEntry
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from support.exports import export_of
from support.ledgers import LAPD, ORIGIN, SIGNER, complete, decided, failed, rejected, search_id
from support.ledgers import write_settings as write_ledger_settings
from support.nats_servers import NatsUnderTest
from support.terminals import VKEY, Terminal, write_client
from tlog.note import Signer

STRANGER = Signer.from_seed(ORIGIN, bytes(32))


@dataclass
class Broker:
    """Appends over the bus."""

    bus: Bus

    async def append(self, *pending: PendingEntry) -> None:
        await self.bus.request(
            "ledger.append", AppendRequest(entries=pending), AppendResponse, timeout_s=20
        )


def lay_out(folder: Path, leaves: list[bytes]) -> None:
    """An export of these entries as files."""
    for path, content in export_of(leaves, SIGNER).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@pytest.fixture(name="broker")
async def _broker(nats_server: NatsUnderTest) -> AsyncIterator[Broker]:
    bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    yield Broker(bus)
    await bus.close()


@pytest.fixture(name="terminal")
async def _terminal(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Terminal]:
    settings = LedgerSettings.load(write_ledger_settings(tmp_path, nats_server))
    async with running(settings) as ledger:
        yield Terminal(write_client(tmp_path, nats_server, ledger.server.port), capsys)


async def test_entries_are_listed(terminal: Terminal, broker: Broker) -> None:
    await broker.append(decided(1), decided(2, permitted=False), failed(1), rejected())
    said = await terminal.read("list")
    assert said.code == 0
    for words in ("search_decided", "PERMITTED", "REFUSED", "NO_FACE", "OFFICER_TOKEN_EXPIRED"):
        assert words in said.out
    listed = (await terminal.read("list", "--json", "--kind", "search_decided")).document
    assert [one["index"] for one in listed["entries"]] == [0, 1]
    assert listed["entries"][0]["entry"]["search_id"] == search_id(1)
    assert not listed["more"]
    first = await terminal.read("list", "--limit", 1, "--search", search_id(1), "--json")
    assert [one["index"] for one in first.document["entries"]] == [0]
    assert first.document["more"]
    of_agency = await terminal.read("list", "--agency", LAPD, "--start", 1, "--json")
    assert [one["index"] for one in of_agency.document["entries"]] == [1, 2]


async def test_long_list_says_how_to_go_on(terminal: Terminal, broker: Broker) -> None:
    await broker.append(decided(1), decided(2))
    said = await terminal.read("list", "--limit", 1)
    assert "--start 1" in said.err


async def test_entry_is_shown_after_it_verified(terminal: Terminal, broker: Broker) -> None:
    await broker.append(decided(1))
    said = await terminal.read("show", 0)
    assert said.code == 0
    assert "summary.origin_agency" in said.out
    assert "VERIFIED: entry 0 is in the tree of size 1" in said.out
    assert "case-1" not in said.out
    document = (await terminal.read("show", 0, "--json")).document
    assert document["verified"]["origin"] == ORIGIN
    assert document["entry"]["schema_epoch"] == 1


async def test_unknown_entry_is_said_to_be_unknown(terminal: Terminal) -> None:
    assert (await terminal.read("list")).out == "No entries.\n"
    said = await terminal.read("show", 7)
    assert (said.code, "ENTRY_UNKNOWN" in said.err) == (3, True)


async def test_checkpoint_is_shown_and_verified(terminal: Terminal, broker: Broker) -> None:
    await broker.append(decided(1), decided(2))
    said = await terminal.read("checkpoint")
    assert said.code == 0
    assert "VERIFIED: 2 entries" in said.err
    document = (await terminal.read("checkpoint", "--json")).document
    assert said.out == document["checkpoint"], "redirected to a file, it is the checkpoint"
    assert (document["size"], document["checkpoint"][: len(ORIGIN)]) == (2, ORIGIN)


async def test_proof_is_saved_and_verifies_offline(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    await broker.append(decided(1), decided(2), decided(3))
    said = await terminal.read("prove", 1, "--save", tmp_path / "receipts")
    assert said.code == 0
    assert said.out.startswith("c2sp.org/tlog-proof@v1\nindex 1\n")
    assert "VERIFIED: entry 1 is in the tree of size 3" in said.err
    receipt = tmp_path / "receipts" / "entry-1.tlog-proof"
    offline = await terminal.run("verify", receipt, "--key", VKEY)
    assert (offline.code, "VERIFIED" in offline.out) == (0, True)
    assert "number 1 (from 0 on) of the 3" in offline.out
    redirected = tmp_path / "f.tlog-proof"
    redirected.write_text(said.out)
    leaf = receipt.with_suffix(".leaf")
    assert (await terminal.run("verify", redirected, "--leaf", leaf, "--key", VKEY)).code == 0
    alone = await terminal.read("prove", 0, "--tree-size", 1)
    assert (alone.code, alone.out, "this entry only" in alone.err) == (0, "", True)
    older = (await terminal.read("prove", 1, "--tree-size", 2, "--json")).document
    assert (older["tree_size"], len(older["hashes"]), "verified" in older) == (2, 1, False)
    assert (await terminal.read("prove", 1, "--tree-size", 2)).out.strip() == older["hashes"][0]
    unsavable = await terminal.read("prove", 1, "--tree-size", 2, "--save", tmp_path / "x")
    assert unsavable.code == 2
    assert (await terminal.read("prove", 3)).code == 3


async def test_ledger_with_another_key_is_not_believed(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    await broker.append(decided(1))
    (tmp_path / "trust.json").write_text(
        json.dumps(
            {
                "log_verifier_keys": [STRANGER.verifier.vkey],
                "broker_verify_keys": ["A" * 43 + "="],
            }
        )
    )
    for command in (("show", 0), ("checkpoint",), ("prove", 0), ("export", tmp_path / "export")):
        said = await terminal.read(*command)
        assert (said.code, "no known key signed" in said.err) == (1, True), command
    assert not (tmp_path / "export").exists()


async def test_export_verifies_and_a_changed_byte_is_named(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    for start in range(0, 600, 150):
        await broker.append(*(decided(n) for n in range(start, start + 150)))
    folder, key = tmp_path / "export", tmp_path / "ledger.vkey"
    key.write_text(VKEY + "\n")
    exported = (await terminal.read("export", folder, "--json")).document
    assert (exported["size"], exported["files"]) == (600, 1 + 3 + 3 + 1)
    said = await terminal.run("verify", folder, "--key", key)
    assert (said.code, "VERIFIED" in said.out, "all 600 entries" in said.out) == (0, True, True)
    bundle = folder / "tile" / "entries" / "001"
    content = bytearray(bundle.read_bytes())
    content[20_000] ^= 1
    bundle.write_bytes(content)
    said = await terminal.run("verify", folder, "--key", key)
    assert said.code == 1
    assert said.out.startswith("FAILED: entry ")
    assert said.out.endswith(f"({folder}/tile/entries/001)\n")
    document = (await terminal.run("verify", folder, "--key", key, "--json")).document
    assert document["results"][0]["verified"] is False


async def test_export_is_brought_up_to_date(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    for size in (0, 200, 400, 512):
        if size:
            start = {200: 0, 400: 200, 512: 400}[size]
            await broker.append(*(decided(n) for n in range(start, size)))
        assert (await terminal.read("export", folder)).code == 0
        assert f"all {size} entries" in (await terminal.read("verify", folder)).out


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_damaged_export_is_left_as_it_is_unless_it_is_replaced(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    for start in (0, 150):
        await broker.append(*(decided(n) for n in range(start, start + 150)))
    assert (await terminal.read("export", folder)).code == 0
    bundle = folder / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"!")
    await broker.append(decided(300))
    damaged = files_in(folder)
    said = await terminal.read("export", folder)
    assert (said.code, "entry 255 was changed" in said.err) == (1, True)
    assert "--replace" in said.err
    assert files_in(folder) == damaged
    assert (await terminal.read("export", folder, "--replace")).code == 0
    assert "all 301 entries" in (await terminal.read("verify", folder)).out
    (folder / "checkpoint").write_text("torn")
    assert (await terminal.read("export", folder)).code == 1
    assert (await terminal.read("export", folder, "--replace")).code == 0


async def test_rewritten_history_changes_nothing_of_the_earlier_export(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    leaves = [one.leaf for one in complete(*(decided(n) for n in range(1000, 1300)))]
    lay_out(tmp_path / "export", leaves)
    evidence = files_in(tmp_path / "export")
    for start in (0, 200):
        await broker.append(*(decided(n) for n in range(start, start + 200)))
    said = await terminal.read("export", tmp_path / "export")
    assert (said.code, "another history" in said.err) == (1, True)
    assert files_in(tmp_path / "export") == evidence


@pytest.mark.promise(4)
@pytest.mark.parametrize("kept", [0, 1, 200, 256, 300, 600])
async def test_export_extends_a_checkpoint_that_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int
) -> None:
    terminal, old = Terminal(tmp_path / "none.toml", capsys), tmp_path / "old.checkpoint"
    leaves = [f"entry {n}".encode() for n in range(600)]
    lay_out(tmp_path / "export", leaves)
    old.write_bytes(export_of(leaves[:kept], SIGNER)["checkpoint"])
    verify = ("verify", tmp_path / "export", "--extends", old, "--key", VKEY)
    said = await terminal.run(*verify)
    assert (said.code, f"extend the {kept} of" in said.out) == (0, True)
    if kept:
        old.write_bytes(export_of([b"x", *leaves[1:kept]], SIGNER)["checkpoint"])
        said = await terminal.run(*verify)
        assert (said.code, "another history" in said.out) == (1, True)
    old.write_bytes(export_of([*leaves, b"more"], SIGNER)["checkpoint"])
    said = await terminal.run(*verify)
    assert (said.code, "there were 601" in said.out) == (1, True)
    old.write_bytes(export_of(leaves[:kept], STRANGER)["checkpoint"])
    said = await terminal.run(*verify)
    assert (said.code, "no known key signed" in said.out) == (1, True)


@pytest.mark.promise(4)
async def test_ledger_that_shows_another_history_than_before_is_found(
    terminal: Terminal, broker: Broker, tmp_path: Path
) -> None:
    """A split view: the same key signed other entries for an earlier reader."""
    leaves = [one.leaf for one in complete(decided(100), decided(101))]
    lay_out(tmp_path / "export", leaves)
    shrunk = await terminal.read("export", tmp_path / "export")
    assert (shrunk.code, "the export here has 2" in shrunk.err) == (1, True)
    await broker.append(decided(1), decided(2), decided(3))
    rewritten = await terminal.read("export", tmp_path / "export")
    assert (rewritten.code, "another history" in rewritten.err) == (1, True)


async def test_export_does_not_write_into_something_else(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert (await terminal.read("export", tmp_path)).code == 2


async def test_unreachable_ledger_is_told_from_a_false_one(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(write_client(tmp_path, nats_server, port=1), capsys)
    said = await terminal.read("checkpoint")
    assert (said.code, said.err.startswith("Error: 127.0.0.1:1: connection refused [")) == (3, True)


@pytest.fixture(name="offline")
def _offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """No configuration, no server."""
    lay_out(tmp_path / "export", [b"entry 0", b"entry 1"])
    return Terminal(tmp_path / "none.toml", capsys)


async def test_export_of_another_log_fails(offline: Terminal, tmp_path: Path) -> None:
    said = await offline.run("verify", tmp_path / "export", "--key", STRANGER.verifier.vkey)
    assert (said.code, "FAILED: no known key signed" in said.out) == (1, True)


async def test_any_of_several_keys_will_do(offline: Terminal, tmp_path: Path) -> None:
    keys = ("--key", STRANGER.verifier.vkey, "--key", VKEY)
    assert (await offline.run("verify", tmp_path / "export", *keys)).code == 0
    (tmp_path / "export" / "tile" / "0" / "000.p" / "2").unlink()
    said = await offline.run("verify", tmp_path / "export", *keys)
    assert (said.code, "FAILED: the file is missing" in said.out) == (1, True)


async def test_one_failure_among_several_paths_is_enough(offline: Terminal, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    said = await offline.run(
        "verify", tmp_path / "export", tmp_path / "other", "--key", VKEY, "--json"
    )
    assert said.code == 1
    assert [one["verified"] for one in said.document["results"]] == [True, False]


async def test_receipt_with_another_leaf_fails(
    offline: Terminal, tmp_path: Path, terminal: Terminal, broker: Broker
) -> None:
    await broker.append(decided(1), decided(2))
    for index in (0, 1):
        await terminal.read("prove", index, "--save", tmp_path)
    proof, leaf = tmp_path / "entry-0.tlog-proof", tmp_path / "entry-1.leaf"
    said = await offline.run("verify", proof, "--leaf", leaf, "--key", VKEY)
    assert (said.code, "does not lead to the root" in said.out) == (1, True)
    (tmp_path / "entry-0.leaf").unlink()
    said = await offline.run("verify", proof, "--key", VKEY)
    assert (said.code, "entry-0.leaf" in said.out) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("verify", "export"),
        ("verify", "export", "--key", "not+a+key"),
        ("verify", "export", "--key", "x" * 5000),
        ("verify", "no-such-path", "--key", VKEY),
        ("verify", "export/checkpoint", "--key", VKEY),
        ("show", "-1"),
        ("list", "--kind", "gossip"),
        ("list", "--search", "1"),
        ("list", "--agency", "LAPD"),
        ("verify", "export", "--key", VKEY, "--extends", "no-such-file"),
    ],
)
async def test_command_that_makes_no_sense_is_a_usage_error(
    offline: Terminal,
    tmp_path: Path,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COUNTERSIGN_CONFIG", raising=False)
    assert (await offline.run(*arguments)).code == 2
