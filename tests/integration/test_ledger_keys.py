"""Keys of the log that change, and keys in a hardware module: real files, a real token, real processes."""

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from countersign.installation.files import write_secret
from countersign.ledger.v1.append_pb2 import Appended, AppendRequest, AppendResponse
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import KEY_ROLE_LOG, KeyRotated
from ledger.announcing import announcing
from ledger.check import check
from ledger.keys import FileKey, LogKeys
from ledger.log import opened
from ledger.restored_notes import FileNotes
from ledger.rotation import CONTEXT
from ledger.sequencer import Placed
from ledger.sqlite_storage import SqliteDatabase
from shared.bus import Bus
from shared.errors import NotReady, Unavailable
from shared.settings import SettingsError
from support.ledgers import (
    ORIGIN,
    SIGNER,
    LedgerProcess,
    complete,
    decided,
    new_log,
    run_program,
    write_settings,
)
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.soft_hsm import PIN, SoftHsm
from support.waiting import until
from tlog.cosignature import open_by_any
from tlog.note import Verifier
from tlog.proof import verify_receipt

NEW = FileKey.from_seed(ORIGIN, b"n" * 32)


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> SqliteDatabase:
    return new_log(tmp_path)


async def run_with(keys: LogKeys, database: SqliteDatabase, number: int) -> Placed:
    """Starts the log with these keys, as the service does, and appends an entry."""
    none = database.path.with_name("restored")
    async with (
        opened(database.open_for_writing(), keys) as log,
        announcing(log, keys, FileNotes(none), TRUST_DOMAIN),
    ):
        (placed,) = await log.sequencer.append(complete(decided(number)))
        return placed


def entry(database: SqliteDatabase, index: int) -> Entry:
    reading = database.open_for_reading()
    leaf = reading.leaf(index)
    reading.close()
    assert leaf is not None
    return Entry.FromString(leaf)


@pytest.mark.promise(4)
async def test_rotation_with_an_overlap_breaks_no_receipt(database: SqliteDatabase) -> None:
    old_only, both, new_only = LogKeys(SIGNER), LogKeys(SIGNER, NEW), LogKeys(NEW)
    receipts = [
        await run_with(keys, database, n) for n, keys in enumerate((old_only, both, new_only))
    ]
    trusts_old, trusts_new = SIGNER.verifier, NEW.verifier
    verify_receipt(receipts[0].leaf, receipts[0].tlog_proof, trusts_old)
    for trusted in (trusts_old, trusts_new):
        verify_receipt(receipts[1].leaf, receipts[1].tlog_proof, trusted)
    verify_receipt(receipts[2].leaf, receipts[2].tlog_proof, trusts_new)
    assert [receipt.index for receipt in receipts] == [0, 2, 4]
    begun, ended = entry(database, 1).key_rotated, entry(database, 3).key_rotated
    assert (begun.role, begun.holder) == (KEY_ROLE_LOG, ORIGIN)
    assert (list(begun.old_keys), list(begun.new_keys)) == (
        [SIGNER.vkey],
        [SIGNER.vkey, NEW.vkey],
    )
    assert (list(ended.old_keys), list(ended.new_keys)) == ([SIGNER.vkey, NEW.vkey], [NEW.vkey])
    assert_endorsed(begun, SIGNER.vkey, NEW.vkey)
    assert_endorsed(ended, NEW.vkey)
    reading = database.open_for_reading()
    assert check(reading, new_only.verifiers).checkpoint.size == 5
    reading.close()


def assert_endorsed(rotated: KeyRotated, *vkeys: str) -> None:
    assert tuple(one.key for one in rotated.endorsements) == vkeys
    bare = KeyRotated.FromString(rotated.SerializeToString())
    bare.ClearField("endorsements")
    signed = CONTEXT + bare.SerializeToString(deterministic=True)
    for one in rotated.endorsements:
        key = Ed25519PublicKey.from_public_bytes(Verifier.parse(one.key).public_key)
        key.verify(one.signature, signed)


async def test_same_keys_are_not_announced(database: SqliteDatabase) -> None:
    for number in range(3):
        assert (await run_with(LogKeys(SIGNER), database, number)).index == number


async def test_keys_that_signed_unannounced_are_announced_by_the_next_start(
    database: SqliteDatabase,
) -> None:
    """Others were quicker to append than who announces, and the process ended right after them."""
    both = LogKeys(SIGNER, NEW)
    await run_with(LogKeys(SIGNER), database, 0)
    async with opened(database.open_for_writing(), both) as log:
        await log.sequencer.append(complete(decided(1)))
    assert [(await run_with(both, database, number)).index for number in (2, 3)] == [3, 4]
    assert list(entry(database, 2).key_rotated.new_keys) == [SIGNER.vkey, NEW.vkey]


async def test_key_without_an_overlap_does_not_open_the_log(database: SqliteDatabase) -> None:
    await run_with(LogKeys(SIGNER), database, 1)
    with pytest.raises(NotReady, match="both stand in signing_keys") as refused:
        await run_with(LogKeys(NEW), database, 2)
    assert refused.value.reason == "LEDGER_KEY_OR_CHECKPOINT"


def test_keys_of_a_log_are_few_and_bear_one_name() -> None:
    with pytest.raises(SettingsError, match="one key is named twice"):
        LogKeys(SIGNER, SIGNER)
    with pytest.raises(SettingsError, match="bear its name"):
        LogKeys(SIGNER, FileKey.from_seed("ledger.example/other", bytes(32)))
    with pytest.raises(SettingsError, match="1 to 4 keys"):
        LogKeys()


async def test_rotation_from_a_file_to_a_module_through_the_program(
    tmp_path: Path, nats_server: NatsUnderTest, soft_hsm: SoftHsm
) -> None:
    config = write_settings(tmp_path, nats_server)
    in_module = Verifier(ORIGIN, soft_hsm.make_key("note-2027"))
    settings = config.read_text()
    process = LedgerProcess(config)
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    receipts: list[Appended] = []
    try:
        for keys in (
            '"note.pem"',
            f'"note.pem", {soft_hsm.key("note-2027")}',
            soft_hsm.key("note-2027"),
        ):
            changed = settings.replace('["note.pem"]', f"[{keys}]")
            await asyncio.to_thread(config.write_text, changed)
            await process.start()
            receipts += await until(functools.partial(appended, broker, len(receipts)))
            checked = await asyncio.to_thread(run_program, "check", config)
            assert checked.stdout.startswith("WHOLE: "), checked.stderr
            assert process.stop() == 0
    finally:
        process.kill()
        await broker.close()
    trusted = {"old": SIGNER.verifier, "new": in_module}
    for receipt, names in zip(receipts, (("old",), ("old", "new"), ("new",)), strict=True):
        for name in names:
            verify_receipt(receipt.receipt.leaf, receipt.receipt.tlog_proof, trusted[name])
    assert entry(process.database, 3).key_rotated.new_keys == [in_module.vkey]
    reading = process.database.open_for_reading()
    _, signed = open_by_any(reading.head().checkpoint, trusted.values())
    reading.close()
    assert signed == [in_module.vkey]


async def appended(broker: Bus, number: int) -> list[Appended] | None:
    """Appends, once the ledger is on the bus."""
    request = AppendRequest(entries=[decided(number)])
    with contextlib.suppress(Unavailable):
        return list((await broker.request("ledger.append", request, AppendResponse, 10)).appended)
    return None


WRONG = (
    ({"token": "other"}, "there is no such token"),
    ({"label": "other"}, "the token has no such key pair of type Ed25519"),
    ({"label": "of-another-kind"}, "the token has no such key pair of type Ed25519"),
    ({"label": "twice"}, "several keys of the token bear this label"),
    ({"module": "nowhere.so"}, "there is no module"),
    ({"pin_file": "nowhere"}, "No such file"),
    ({"pin_file": "open-pin"}, "can be read by others"),
    ({"pin_file": "empty-pin"}, "has no PIN in its first line"),
    ({"pin_file": "wrong-pin"}, "the PIN is wrong"),
)
LOAD_EACH = """
import json, sys
from ledger.pkcs11 import Pkcs11KeySettings, load_pkcs11_key
from shared.signing import BadKey
for settings in json.load(sys.stdin):
    try:
        load_pkcs11_key(Pkcs11KeySettings(**settings), "ledger.example/countersign")
        print("found")
    except BadKey as error:
        print(error)
"""


def test_key_that_is_not_there_is_said_clearly(tmp_path: Path, soft_hsm: SoftHsm) -> None:
    for label in ("twice", "twice", "note"):
        soft_hsm.make_key(label)
    soft_hsm.make_key("of-another-kind", "secp256r1")
    for name, pin in (("open-pin", PIN), ("empty-pin", ""), ("wrong-pin", "0000")):
        write_secret(tmp_path / name, f"{pin}\n".encode())
    (tmp_path / "open-pin").chmod(0o644)
    cases = [soft_hsm.settings("note") | changed for changed, _ in WRONG]
    cases.append(soft_hsm.settings("note"))
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_EACH],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    *messages, last = loaded.stdout.splitlines()
    assert last == "found"
    for message, (_, said) in zip(messages, WRONG, strict=True):
        assert said in message
        assert "docs/key-rotation.md" in message
        assert PIN not in message


async def test_program_without_its_key_does_not_start(
    tmp_path: Path, nats_server: NatsUnderTest, soft_hsm: SoftHsm
) -> None:
    config = write_settings(tmp_path, nats_server)
    settings = config.read_text().replace('["note.pem"]', f"[{soft_hsm.key('note')}]")
    await asyncio.to_thread(config.write_text, settings)
    started = await asyncio.to_thread(run_program, config)
    assert started.returncode == 2
    assert "key 'note' of token 'ledger': the token has no such key pair" in started.stderr
    assert "Traceback" not in started.stderr
