"""An ML-DSA-44 key of the log beside its Ed25519 key: through the real program, and who can verify by it."""

import asyncio
import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from countersign.ledger.v1.append_pb2 import Appended, AppendRequest, AppendResponse
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.announcing import announcing
from ledger.keys import LogKeys, load_file_key, new_post_quantum_key
from ledger.last_signed import SLOT_BYTES, Signed, beside
from ledger.log import opened
from ledger.restored_notes import FileNotes
from ledger.rotation import CONTEXT
from ledger.sequencer import Placed
from ledger.sqlite_storage import SqliteDatabase
from shared.bus import Bus
from shared.errors import Unavailable
from shared.settings import SettingsError
from shared.signing import BadKey
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
from support.waiting import until
from tlog.cosignature import CosignatureKind, CosignatureVerifier, LogVerifier, open_by_any
from tlog.cosigner_key import write_cosigner_key
from tlog.errors import UnknownSigner
from tlog.note import UnverifiedNote
from tlog.policy import Policy
from tlog.proof import TlogProof, verify_receipt

LONGEST_NAME = "l" * 255


@pytest.mark.promise(4)
async def test_key_is_added_through_the_program(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config = write_settings(tmp_path, nats_server)
    made = await asyncio.to_thread(run_program, "new-key", config, tmp_path / "a")
    assert made.returncode == 0
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    added = CosignatureVerifier.parse(made.stdout.strip())
    settings = config.read_text()
    process = LedgerProcess(config)
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    receipts: list[Appended] = []
    try:
        for names in ('"note.pem"', '"note.pem", "a"'):
            await asyncio.to_thread(config.write_text, settings.replace('"note.pem"', names))
            await process.start()
            receipts += await until(functools.partial(appended, broker, len(receipts)))
            assert process.stop() == 0
    finally:
        process.kill()
        await broker.close()
    checked = await asyncio.to_thread(run_program, "check", config)
    assert checked.stdout.startswith("WHOLE: 3 entries"), checked.stderr
    before, after = (Placed(0, one.receipt.leaf, one.receipt.tlog_proof, False) for one in receipts)
    assert_signed(before, {}, {"a": added})
    assert_signed(after, {"a": added}, {})
    assert_announced(process.database, [SIGNER.vkey], [SIGNER.vkey, added.vkey])


@pytest.mark.promise(4)
async def test_key_is_changed_and_retired_and_breaks_no_receipt(tmp_path: Path) -> None:
    database = new_log(tmp_path)
    made = {name: new_post_quantum_key(tmp_path / name, ORIGIN) for name in "ab"}
    steps = "", "a", "ab", "b", ""
    receipts = []
    for number, names in enumerate(steps):
        files = [load_file_key(tmp_path / name, ORIGIN) for name in names]
        keys = LogKeys(SIGNER, *files)
        async with (
            opened(database.open_for_writing(), keys) as log,
            announcing(log, keys, FileNotes(tmp_path / "restored"), TRUST_DOMAIN),
        ):
            receipts += await log.sequencer.append(complete(decided(number)))
    assert [one.index for one in receipts] == [0, 2, 4, 6, 8]
    for receipt, names in zip(receipts, steps, strict=True):
        signed = {name: one for name, one in made.items() if name in names}
        others = {name: one for name, one in made.items() if name not in names}
        assert_signed(receipt, signed, others)


def assert_signed(
    receipt: Placed, by: Mapping[str, LogVerifier], not_by: Mapping[str, LogVerifier]
) -> None:
    """By the Ed25519 key always: who knows that one alone passes over the other lines."""
    verify_receipt(receipt.leaf, receipt.tlog_proof, SIGNER.verifier)
    proof = TlogProof.parse(receipt.tlog_proof)
    for verifier in by.values():
        assert proof.judge(receipt.leaf, Policy.of_logs([verifier])).log == verifier
    for verifier in not_by.values():
        with pytest.raises(UnknownSigner):
            proof.judge(receipt.leaf, Policy.of_logs([verifier]))


def assert_announced(database: SqliteDatabase, old: list[str], new: list[str]) -> None:
    """The second entry says so, and both keys endorse it."""
    with contextlib.closing(database.open_for_reading()) as reading:
        rotated = Entry.FromString(reading.leaf(1) or b"").key_rotated
    assert (list(rotated.old_keys), list(rotated.new_keys)) == (old, new)
    signatures = {one.key: one.signature for one in rotated.endorsements}
    assert list(signatures) == new
    rotated.ClearField("endorsements")
    signed = CONTEXT + rotated.SerializeToString(deterministic=True)
    key = MLDSA44PublicKey.from_public_bytes(CosignatureVerifier.parse(new[1]).public_key)
    key.verify(signatures[new[1]], signed)


async def appended(broker: Bus, number: int) -> list[Appended] | None:
    """Appends, once the ledger is on the bus."""
    request = AppendRequest(entries=[decided(number)])
    with contextlib.suppress(Unavailable):
        return list((await broker.request("ledger.append", request, AppendResponse, 10)).appended)
    return None


async def test_either_line_opens_the_log(tmp_path: Path) -> None:
    """The checkpoint of the head bears both, and a false one of a known key sinks it."""
    verifier = new_post_quantum_key(tmp_path / "key", ORIGIN)
    keys = LogKeys(SIGNER, load_file_key(tmp_path / "key", ORIGIN))
    async with opened(new_log(tmp_path).open_for_writing(), keys) as log:
        await log.sequencer.append(complete(decided(1)))
        note = log.sequencer.published.note
    assert [len(one.signature) for one in UnverifiedNote.parse(note).signatures] == [64, 2428]
    for one in (SIGNER.verifier, verifier):
        checkpoint, signed = open_by_any(note, [one])
        assert (checkpoint.size, signed) == (1, [one.vkey])


def test_key_stands_beside_an_ed25519_key_and_is_of_this_log(tmp_path: Path) -> None:
    new_post_quantum_key(tmp_path / "own", ORIGIN)
    with pytest.raises(SettingsError, match="the first key is Ed25519"):
        LogKeys(load_file_key(tmp_path / "own", ORIGIN))
    with pytest.raises(SettingsError, match="the first key is Ed25519"):
        LogKeys(load_file_key(tmp_path / "own", ORIGIN), SIGNER)
    new_post_quantum_key(tmp_path / "other", "ledger.example/other")
    with pytest.raises(SettingsError, match="is a key of ledger"):
        load_file_key(tmp_path / "other", ORIGIN)
    with pytest.raises(BadKey, match="cannot write"):
        new_post_quantum_key(tmp_path / "own", ORIGIN)
    witness = write_cosigner_key(ORIGIN, os.urandom(32), CosignatureKind.ED25519)
    (tmp_path / "witness").write_text(witness)
    with pytest.raises(BadKey, match="is a witness's"):
        load_file_key(tmp_path / "witness", ORIGIN)
    damaged = (tmp_path / "own").read_text()[:-9]
    (tmp_path / "damaged").write_text(damaged)
    with pytest.raises(BadKey) as refused:
        load_file_key(tmp_path / "damaged", ORIGIN)
    assert damaged[-40:] not in str(refused.value)


async def test_record_holds_as_many_keys_as_a_log_may_have(tmp_path: Path) -> None:
    """Two of each type while both are changed, on one page beside the largest tree."""
    for name in ("a", "b"):
        new_post_quantum_key(tmp_path / name, ORIGIN)
    keys = LogKeys(SIGNER, *(load_file_key(tmp_path / name, ORIGIN) for name in ("a", "b")))
    database = new_log(tmp_path)
    async with opened(database.open_for_writing(), keys) as log:
        await log.sequencer.append(complete(decided(1)))
        last = log.guard.last
    assert beside(database.path).stat().st_size == 2 * SLOT_BYTES
    largest = Signed(
        LONGEST_NAME,
        size=2**40 - 1,
        peaks=(bytes(32),) * 40,
        vkeys=tuple(one.replace(ORIGIN, LONGEST_NAME) for one in (last.vkeys[0], *last.vkeys)),
    )
    assert len(largest.encoded) < SLOT_BYTES - 100
