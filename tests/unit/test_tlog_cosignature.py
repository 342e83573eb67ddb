"""Cosignatures of both types on the published vectors, and what they refuse."""

import hashlib

import pytest

from support.vectors import (
    LOG,
    LOG_VKEY,
    NOTE,
    ORIGIN,
    PQ_WITNESS,
    ROOT_7,
    TEXT,
    WITNESS,
    WITNESS_LINE,
    WITNESS_TIME,
    WITNESS_VKEY,
)
from tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog.cosignature import (
    CosignatureKind,
    CosignatureVerifier,
    Cosigner,
    LogCosigner,
    LogVerifier,
    ed25519_message,
    parse_log_vkey,
    parse_witness_vkey,
    subtree_message,
)
from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT
from tlog.note import NoteSigner, UnverifiedNote, Verifier, parse_signatures, write_vkey

CHECKPOINT = Checkpoint(ORIGIN, 7, ROOT_7)
COSIGNERS = [WITNESS, PQ_WITNESS]


def raw(line: str) -> bytes:
    (signature,) = parse_signatures(line)
    return signature.signature


def test_keys_are_those_of_the_specification() -> None:
    assert WITNESS.verifier.vkey == WITNESS_VKEY
    assert WITNESS.verifier.key_id.hex() == "20324abe"
    assert PQ_WITNESS.verifier.key_id.hex() == "b2f42ddc"
    assert hashlib.sha256(PQ_WITNESS.verifier.public_key).hexdigest() == (
        "6c1c65071979225a139b3ec84688e2688ec30fabe8cc510cb688bc435f2d3cb9"
    )


@pytest.mark.parametrize("cosigner", COSIGNERS)
def test_verifier_key_text_round_trips(cosigner: Cosigner) -> None:
    assert CosignatureVerifier.parse(cosigner.verifier.vkey) == cosigner.verifier
    assert parse_witness_vkey(cosigner.verifier.vkey) == cosigner.verifier


def test_ed25519_message_is_that_of_the_specification() -> None:
    assert ed25519_message(TEXT, WITNESS_TIME).hex() == (
        "636f7369676e61747572652f76310a74696d6520313735303030303030300a6c65646765722e6578616d706c652f"
        "65786368616e67650a370a6d4d6c2f43364d58584e434c41783351684c6e63546d53625a4e47696a6d366d6c4752"
        "6c417863367459633d0a"
    )


def test_ed25519_line_is_that_of_the_specification() -> None:
    assert WITNESS.cosign(CHECKPOINT, WITNESS_TIME) == WITNESS_LINE
    assert WITNESS.verifier.verify(TEXT, raw(WITNESS_LINE)) == WITNESS_TIME


def test_ml_dsa_message_is_that_of_the_specification() -> None:
    message = subtree_message("witness.example/w1-pq", WITNESS_TIME, ORIGIN, 0, 7, ROOT_7)
    assert message.hex() == (
        "737562747265652f76310a00157769746e6573732e6578616d706c652f77312d707100000000684ee180176c6564"
        "6765722e6578616d706c652f65786368616e67650000000000000000000000000000000798c97f0ba3175cd08b03"
        "1dd084b9dc4e649b64d1a28e6ea694646503173ab587"
    )
    assert hashlib.sha256(message).hexdigest() == (
        "037665daf03c6e9e5f8039759066519489ab68b2ef4ce19ac0347daf6b51c010"
    )


def test_ml_dsa_line_has_the_specified_length_and_verifies() -> None:
    line = PQ_WITNESS.cosign(CHECKPOINT, WITNESS_TIME)
    # 3,271 bytes without the line feed for a name of 22 bytes; this one has 21.
    assert len(line.removesuffix("\n").encode()) == 3270
    assert PQ_WITNESS.verifier.verify(TEXT, raw(line)) == WITNESS_TIME


@pytest.mark.parametrize("cosigner", COSIGNERS)
@pytest.mark.parametrize(("old", "new"), [("\n7\n", "\n8\n"), ("mMl", "nMl"), ("exch", "exsh")])
def test_cosignature_of_another_checkpoint_is_refused(
    cosigner: Cosigner, old: str, new: str
) -> None:
    line = cosigner.cosign(CHECKPOINT, WITNESS_TIME)
    with pytest.raises(TlogError, match="does not verify"):
        cosigner.verifier.verify(TEXT.replace(old, new), raw(line))


@pytest.mark.parametrize("cosigner", COSIGNERS)
def test_every_changed_byte_of_a_cosignature_is_found(cosigner: Cosigner) -> None:
    signature = raw(cosigner.cosign(CHECKPOINT, WITNESS_TIME))
    for at in range(0, len(signature), 7):
        changed = bytearray(signature)
        changed[at] ^= 1
        with pytest.raises(TlogError, match="does not verify"):
            cosigner.verifier.verify(TEXT, bytes(changed))


@pytest.mark.parametrize("cosigner", COSIGNERS)
def test_cosignature_of_another_length_is_refused(cosigner: Cosigner) -> None:
    signature = raw(cosigner.cosign(CHECKPOINT, WITNESS_TIME))
    for other in (b"", signature[:8], signature[:-1], signature + b"\0"):
        with pytest.raises(TlogError, match="wrong length"):
            cosigner.verifier.verify(TEXT, other)


@pytest.mark.parametrize("cosigner", COSIGNERS)
def test_time_outside_63_bits_is_refused(cosigner: Cosigner) -> None:
    signature = bytes([0x80]) + raw(cosigner.cosign(CHECKPOINT, WITNESS_TIME))[1:]
    with pytest.raises(TlogError, match="63 bits"):
        cosigner.verifier.verify(TEXT, signature)
    for time_s in (-1, 2**63):
        with pytest.raises(TlogError, match="63 bits"):
            cosigner.cosign(CHECKPOINT, time_s)
    assert cosigner.verifier.verify(TEXT, raw(cosigner.cosign(CHECKPOINT, 2**63 - 1))) == 2**63 - 1


@pytest.mark.parametrize("cosigner", COSIGNERS)
def test_nothing_is_cosigned_without_a_time(cosigner: Cosigner) -> None:
    with pytest.raises(TlogError, match="has a time"):
        cosigner.cosign(CHECKPOINT, 0)


def test_extension_lines_are_covered_by_one_type_only() -> None:
    extended = Checkpoint(ORIGIN, 7, ROOT_7, ("extension",))
    ed25519 = raw(WITNESS.cosign(extended, WITNESS_TIME))
    with pytest.raises(TlogError):
        WITNESS.verifier.verify(TEXT, ed25519)
    assert PQ_WITNESS.verifier.verify(TEXT, raw(PQ_WITNESS.cosign(extended, 1))) == 1


def test_ml_dsa_covers_the_cosigners_name_and_ed25519_does_not() -> None:
    renamed = CosignatureVerifier("x", CosignatureKind.ML_DSA_44, PQ_WITNESS.verifier.public_key)
    with pytest.raises(TlogError, match="does not verify"):
        renamed.verify(TEXT, raw(PQ_WITNESS.cosign(CHECKPOINT, 1)))
    renamed = CosignatureVerifier("x", CosignatureKind.ED25519, WITNESS.verifier.public_key)
    assert renamed.verify(TEXT, raw(WITNESS_LINE)) == WITNESS_TIME


def test_empty_tree_can_be_cosigned() -> None:
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    for cosigner in COSIGNERS:
        assert cosigner.verifier.verify(empty.text, raw(cosigner.cosign(empty, 1))) == 1


@pytest.mark.parametrize(
    ("time_s", "start", "end", "root"),
    [
        (1, 1, 2, ROOT_7),
        (0, 2, 2, ROOT_7),
        (0, -1, 2, ROOT_7),
        (0, 3, 2, ROOT_7),
        (0, 0, 2**63, ROOT_7),
        (0, 0, 1, ROOT_7[1:]),
        (-1, 0, 1, ROOT_7),
    ],
)
def test_subtree_that_cannot_be_is_refused(time_s: int, start: int, end: int, root: bytes) -> None:
    with pytest.raises(TlogError):
        subtree_message("witness", time_s, "log", start, end, root)


def test_subtree_that_is_not_the_whole_tree_has_a_message() -> None:
    assert subtree_message("w", 0, "log", 256, 512, ROOT_7)[12:].hex() == (
        "0177" + "00" * 8 + "036c6f67" + "0000000000000100" + "0000000000000200" + ROOT_7.hex()
    )


def test_text_that_is_no_checkpoint_is_not_cosigned_by_ml_dsa() -> None:
    with pytest.raises(TlogError):
        PQ_WITNESS.verifier.verify("text\n", bytes(8 + 2420))


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        LOG_VKEY,
        WITNESS_VKEY.replace("20324abe", "20324abf"),
        WITNESS_VKEY.replace("w1", "w2"),
        write_vkey("w", 0x04, bytes(31)),
        write_vkey("w", 0x06, bytes(32)),
        write_vkey("w", 0x05, bytes(32)),
        write_vkey("w", 0xFF, b""),
        "\ud800+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
    ],
)
def test_text_that_is_not_exactly_a_cosigners_key_is_refused(vkey: str) -> None:
    for parse in (CosignatureVerifier.parse, parse_witness_vkey):
        with pytest.raises(TlogError):
            parse(vkey)


def test_log_key_is_of_one_of_two_types() -> None:
    assert parse_log_vkey(LOG_VKEY) == LOG.verifier
    own = CosignatureVerifier(ORIGIN, CosignatureKind.ML_DSA_44, PQ_WITNESS.verifier.public_key)
    assert parse_log_vkey(own.vkey) == own
    with pytest.raises(TlogError, match="type 4"):
        parse_log_vkey(WITNESS_VKEY)
    with pytest.raises(TlogError, match="not an Ed25519"):
        Verifier.parse(own.vkey)


@pytest.mark.parametrize("kind", list(CosignatureKind))
def test_seed_of_another_length_is_refused(kind: CosignatureKind) -> None:
    with pytest.raises(TlogError, match="32 bytes"):
        Cosigner.from_seed("w", bytes(31), kind)


def test_log_signs_with_both_of_its_keys() -> None:
    own = Cosigner.from_seed(ORIGIN, bytes(32), CosignatureKind.ML_DSA_44)
    signers: list[NoteSigner] = [LOG, LogCosigner(own, lambda: WITNESS_TIME)]
    note = sign_checkpoint(CHECKPOINT, *signers)
    assert note.startswith(NOTE)
    assert open_checkpoint(note, LOG.verifier) == CHECKPOINT
    assert open_checkpoint(note, own.verifier) == CHECKPOINT
    keys: list[LogVerifier] = [LOG.verifier, own.verifier]
    assert UnverifiedNote.parse(note).verify(keys) == tuple(keys)
    assert signers[1].vkey == own.verifier.vkey
    assert signers[1].name == ORIGIN


def test_log_does_not_cosign_its_checkpoints_as_a_witness_does() -> None:
    with pytest.raises(TlogError, match="with ML-DSA-44"):
        LogCosigner(WITNESS, lambda: 1)


def test_checkpoint_has_at_least_one_signature() -> None:
    with pytest.raises(TlogError, match="at least one"):
        sign_checkpoint(CHECKPOINT)
