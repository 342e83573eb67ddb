"""Exports and receipts judged by a policy, against a checkpoint that was kept, and by programs."""

import pytest

from support.exports import export_of
from support.vectors import LOG, LOG_VKEY, NOTE, ORIGIN, PROOF, WITNESS, WITNESS_LINE, WITNESS_VKEY
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.note import Signer, write_signature
from tlog.policy import Policy
from tlog.tiles import decode_bundle, encode_bundle
from tlog.verify import Failure, NotVerified, verify_export, verify_proof

ENTRIES = [f"entry {i}".encode() for i in range(700)]
POLICY = Policy.parse(f"log {LOG_VKEY}\nwitness paper {WITNESS_VKEY}\nquorum paper\n")
LOG_ALONE = Policy.of_logs([LOG.verifier])
KEPT_SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 600, 699, 700]


def cosigned(entries: list[bytes], time_s: int = 1_750_000_000) -> dict[str, bytes]:
    export = export_of(entries, LOG)
    checkpoint = Checkpoint.parse(export["checkpoint"].decode().partition("\n\n")[0] + "\n")
    export["checkpoint"] += WITNESS.cosign(checkpoint, time_s).encode()
    return export


def failure(
    export: dict[str, bytes], policy: Policy = POLICY, since: bytes | None = None
) -> NotVerified:
    with pytest.raises(NotVerified) as raised:
        verify_export(export.get, policy, since=since)
    return raised.value


def test_export_with_its_quorum_verifies() -> None:
    found = verify_export(cosigned(ENTRIES).get, POLICY)
    assert (found.checkpoint.size, found.since) == (700, None)
    assert found.judged.cosigned == {"paper": 1_750_000_000}
    assert found.judged.log == LOG.verifier


@pytest.mark.promise(4)
def test_export_without_quorum_is_refused_and_says_what_is_missing() -> None:
    error = failure(export_of(ENTRIES, LOG))
    assert error.failure is Failure.QUORUM_MISSING
    assert str(error) == (
        "checkpoint: the quorum of witnesses is missing: witness paper has not cosigned"
    )
    assert verify_export(export_of(ENTRIES, LOG).get, LOG_ALONE).checkpoint.size == 700


def test_false_cosignature_is_named_by_its_key() -> None:
    export = cosigned(ENTRIES)
    line = write_signature("witness.example/w1", WITNESS.verifier.key_id, bytes(72))
    export["checkpoint"] += line.encode()
    error = failure(export)
    assert (error.failure, error.key) == (Failure.SIGNATURE_FALSE, "witness.example/w1+20324abe")
    assert error.file == "checkpoint"


def test_log_that_is_not_trusted_is_told_from_one_that_lies() -> None:
    stranger = Policy.of_logs([Signer.from_seed(ORIGIN, bytes(32)).verifier])
    assert failure(cosigned(ENTRIES), stranger).failure is Failure.SIGNATURE_UNKNOWN
    torn = cosigned(ENTRIES) | {"checkpoint": b"torn"}
    assert failure(torn).failure is Failure.FILE_MALFORMED
    del torn["checkpoint"]
    assert failure(torn).failure is Failure.FILE_MISSING


def test_changed_entry_is_told_to_programs() -> None:
    export = cosigned(ENTRIES)
    export["tile/entries/001"] = export["tile/entries/001"].replace(b"entry 300", b"entry 3OO")
    error = failure(export)
    assert (error.failure, error.file, error.entry) == (
        Failure.ENTRY_CHANGED,
        "tile/entries/001",
        300,
    )


def test_changed_hash_and_tile_are_told_to_programs() -> None:
    export = cosigned(ENTRIES)
    tile = export["tile/0/001"]
    error = failure(export | {"tile/0/001": tile[:-1] + bytes([tile[-1] ^ 1])})
    assert (error.failure, error.file, error.entry) == (Failure.HASH_CHANGED, "tile/0/001", 511)
    upper = export["tile/1/000.p/2"]
    error = failure(export | {"tile/1/000.p/2": bytes([upper[0] ^ 1]) + upper[1:]})
    assert (error.failure, error.file) == (Failure.TILE_CHANGED, "tile/1/000.p/2")


@pytest.mark.promise(4)
@pytest.mark.parametrize("kept", KEPT_SIZES)
def test_export_begins_with_the_entries_of_a_checkpoint_that_was_kept(kept: int) -> None:
    since = export_of(ENTRIES[:kept], LOG)["checkpoint"]
    found = verify_export(cosigned(ENTRIES).get, POLICY, since=since)
    assert found.since is not None
    assert found.since.size == kept


@pytest.mark.promise(4)
@pytest.mark.parametrize("kept", KEPT_SIZES[1:])
def test_export_of_another_history_than_was_kept_is_refused(kept: int) -> None:
    """A split view: the log signed both, and the later one leaves an entry of the earlier one out."""
    other = [*ENTRIES[: kept - 1], b"left out since"]
    error = failure(cosigned(ENTRIES), since=export_of(other, LOG)["checkpoint"])
    assert (error.failure, error.file) == (Failure.HISTORY_REWRITTEN, "since")
    assert f"the first {kept} entries" in error.what


def test_export_shorter_than_what_was_kept_is_refused() -> None:
    error = failure(cosigned(ENTRIES[:699]), since=export_of(ENTRIES, LOG)["checkpoint"])
    assert error.failure is Failure.HISTORY_SHRANK
    assert error.what == "the export has 699 entries; there were 700 when this was signed"


def test_checkpoint_kept_of_another_log_is_refused() -> None:
    other = Signer.from_seed("ledger.example/other", bytes(32))
    policy = Policy.parse(f"log {other.vkey}\n{POLICY.text}")
    kept = export_of(ENTRIES[:5], other)["checkpoint"]
    assert failure(cosigned(ENTRIES), policy, kept).failure is Failure.OTHER_LOG
    assert failure(cosigned(ENTRIES), since=kept).failure is Failure.SIGNATURE_UNKNOWN


def test_what_failed_in_the_export_is_told_before_what_was_kept() -> None:
    export = cosigned(ENTRIES)
    export["tile/entries/001"] = export["tile/entries/001"].replace(b"entry 300", b"entry 3OO")
    other = export_of([b"x", *ENTRIES[1:600]], LOG)["checkpoint"]
    assert failure(export, since=other).failure is Failure.ENTRY_CHANGED


def test_entries_that_nobody_understands_verify_like_others() -> None:
    """Kinds of entries are added as time goes by, and an old verifier must prove them all the same."""
    strange = [b"", b"\0", b"\xff" * 65_535, bytes(range(256)) * 3, *ENTRIES[:300]]
    assert verify_export(cosigned(strange).get, POLICY).checkpoint.size == 304


def test_entry_moved_between_two_places_is_found() -> None:
    export = cosigned(ENTRIES)
    entries = decode_bundle(export["tile/entries/001"])
    entries[3], entries[4] = entries[4], entries[3]
    export["tile/entries/001"] = encode_bundle(entries)
    assert failure(export).entry == 259


@pytest.mark.promise(4)
def test_receipt_needs_the_quorum() -> None:
    index, judged = verify_proof(b"entry 4", PROOF, POLICY)
    assert (index, judged.checkpoint.size, judged.cosigned) == (4, 7, {"paper": 1_750_000_000})
    unwitnessed = PROOF.removesuffix(WITNESS_LINE)
    with pytest.raises(NotVerified, match="witness paper has not cosigned") as raised:
        verify_proof(b"entry 4", unwitnessed, POLICY)
    assert raised.value.failure is Failure.QUORUM_MISSING
    assert verify_proof(b"entry 4", unwitnessed, LOG_ALONE)[0] == 4


@pytest.mark.parametrize(
    ("leaf", "proof", "wanted"),
    [
        (b"entry 5", PROOF, Failure.NOT_INCLUDED),
        (b"entry 4", PROOF.replace("index 4", "index 5"), Failure.NOT_INCLUDED),
        (b"entry 4", PROOF.replace("index 4", "index x"), Failure.FILE_MALFORMED),
        (b"entry 4", NOTE, Failure.FILE_MALFORMED),
        (b"entry 4", PROOF.replace("\n7\n", "\n8\n"), Failure.SIGNATURE_FALSE),
        (b"entry 4", PROOF.replace("HfNr", "HfNs"), Failure.SIGNATURE_UNKNOWN),
    ],
)
def test_receipt_that_fails_says_how(leaf: bytes, proof: str, wanted: Failure) -> None:
    with pytest.raises(NotVerified) as raised:
        verify_proof(leaf, proof, POLICY)
    assert raised.value.failure is wanted
    assert isinstance(raised.value, TlogError)
