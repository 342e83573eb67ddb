"""A checkpoint or a receipt judged by a policy: whose lines count, and what sinks it."""

import base64

import pytest

from support.vectors import (
    LOG,
    LOG_VKEY,
    NOTE,
    ORIGIN,
    PQ_WITNESS,
    PROOF,
    ROOT_7,
    TEXT,
    WITNESS,
    WITNESS_LINE,
    WITNESS_TIME,
    WITNESS_VKEY,
    timeless_line,
)
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import CosignatureKind, Cosigner, LogCosigner
from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT
from tlog.note import SIGNATURES_MAX, Signer, sign_note, write_signature
from tlog.policy import Policy
from tlog.proof import TlogProof

CHECKPOINT = Checkpoint(ORIGIN, 7, ROOT_7)


def witness(number: int, kind: CosignatureKind = CosignatureKind.ED25519) -> Cosigner:
    return Cosigner.from_seed(f"witness.example/{number}", bytes([number]) * 32, kind)


def witness_line(number: int) -> str:
    return f"witness w{number} {witness(number).verifier.vkey}\n"


def policy_of(quorum: str) -> Policy:
    return Policy.parse(
        f"log {LOG_VKEY}\nwitness w {WITNESS_VKEY}\nwitness pq {PQ_WITNESS.verifier.vkey}\n"
        f"group both all w pq\nquorum {quorum}\n"
    )


def test_cosigned_checkpoint_is_judged() -> None:
    judged = policy_of("w").judge(NOTE + WITNESS_LINE)
    assert judged.checkpoint == CHECKPOINT
    assert judged.log == LOG.verifier
    assert judged.cosigned == {"w": WITNESS_TIME}
    assert judged.quorum
    assert judged.shortfall == ""


def test_checkpoint_without_quorum_is_told_as_such() -> None:
    judged = policy_of("both").judge((NOTE + WITNESS_LINE).encode())
    assert not judged.quorum
    assert judged.cosigned == {"w": WITNESS_TIME}
    assert judged.shortfall == "group both needs 2 of its 2 members and has 1: without pq"
    both = policy_of("both").judge(NOTE + WITNESS_LINE + PQ_WITNESS.cosign(CHECKPOINT, 5))
    assert both.quorum
    assert both.cosigned == {"w": WITNESS_TIME, "pq": 5}


def test_latest_of_several_cosignatures_counts() -> None:
    lines = WITNESS.cosign(CHECKPOINT, 9) + WITNESS_LINE + WITNESS.cosign(CHECKPOINT, 8)
    assert policy_of("w").judge(NOTE + lines).cosigned == {"w": WITNESS_TIME}


@pytest.mark.promise(4)
def test_one_false_cosignature_of_a_known_witness_sinks_the_note() -> None:
    false = write_signature("witness.example/w1", WITNESS.verifier.key_id, bytes(72))
    for policy in (policy_of("w"), policy_of("none")):
        with pytest.raises(TlogError, match=r"witness\.example/w1\+20324abe does not verify"):
            policy.judge(NOTE + WITNESS_LINE + false)


@pytest.mark.promise(4)
def test_cosignature_of_another_checkpoint_sinks_the_note() -> None:
    other = WITNESS.cosign(Checkpoint(ORIGIN, 0, EMPTY_ROOT), WITNESS_TIME)
    with pytest.raises(TlogError, match="does not verify"):
        policy_of("w").judge(NOTE + other)


def test_unknown_lines_are_ignored_when_name_or_id_is_known() -> None:
    verifier = WITNESS.verifier
    unknown = (
        write_signature("stranger", b"\0\0\0\1", bytes(72))
        + write_signature("stranger", verifier.key_id, bytes(72))
        + write_signature(verifier.name, b"\0\0\0\1", bytes(72))
    )
    assert policy_of("w").judge(NOTE + unknown + WITNESS_LINE + unknown).quorum


def test_line_without_time_does_not_count_as_a_witness() -> None:
    """A subtree signature over the whole tree says nothing of there being no larger one."""
    judged = policy_of("pq").judge(NOTE + timeless_line())
    assert judged.cosigned == {}
    assert not judged.quorum


def test_checkpoint_that_no_trusted_log_signed_is_refused() -> None:
    with pytest.raises(TlogError, match=r"no known key signed .* ledger\.example/exchange"):
        policy_of("w").judge(f"{TEXT}\n{WITNESS_LINE}")
    stranger = Signer.from_seed(ORIGIN, bytes(32))
    with pytest.raises(TlogError, match="no known key"):
        policy_of("w").judge(sign_checkpoint(CHECKPOINT, stranger) + WITNESS_LINE)


def test_witness_key_cannot_stand_in_for_the_logs() -> None:
    named_alike = Cosigner.from_seed(ORIGIN, bytes(32), CosignatureKind.ML_DSA_44)
    policy = Policy.parse(f"log {LOG_VKEY}\nwitness w {named_alike.verifier.vkey}\nquorum w\n")
    with pytest.raises(TlogError, match="no known key"):
        policy.judge(f"{TEXT}\n{named_alike.cosign(CHECKPOINT, 1)}")


def test_one_logs_key_cannot_vouch_for_another_log() -> None:
    other = Signer.from_seed("ledger.example/other", bytes(32))
    policy = Policy.parse(f"log {LOG_VKEY}\nlog {other.vkey}\nquorum none\n")
    with pytest.raises(TlogError, match=r"no known key signed .* ledger\.example/exchange"):
        policy.judge(sign_note(TEXT, [other]))
    assert policy.judge(sign_note(TEXT, [other, LOG])).log == LOG.verifier


def test_checkpoint_of_another_log_than_expected_is_refused() -> None:
    assert policy_of("none").judge(NOTE, ORIGIN).quorum
    with pytest.raises(TlogError, match="not of other"):
        policy_of("none").judge(NOTE, "other")


def test_either_key_of_a_log_that_rotates_is_enough() -> None:
    new = Signer.from_seed(ORIGIN, bytes(32))
    policy = Policy.parse(f"log {LOG_VKEY}\nlog {new.vkey}\nquorum none\n")
    assert policy.judge(sign_checkpoint(CHECKPOINT, LOG)).log == LOG.verifier
    assert policy.judge(sign_checkpoint(CHECKPOINT, new)).log == new.verifier
    assert policy.judge(sign_checkpoint(CHECKPOINT, new, LOG)).log == LOG.verifier


def test_log_may_be_known_by_its_post_quantum_key_only() -> None:
    own = Cosigner.from_seed(ORIGIN, bytes(32), CosignatureKind.ML_DSA_44)
    policy = Policy.parse(f"log {own.verifier.vkey}\nquorum none\n")
    note = sign_checkpoint(CHECKPOINT, LOG, LogCosigner(own, lambda: WITNESS_TIME))
    assert policy.judge(note).log == own.verifier
    with pytest.raises(TlogError, match="no known key"):
        policy.judge(NOTE)


def test_many_signatures_are_read_and_too_many_refused() -> None:
    lines = "".join(witness(number).cosign(CHECKPOINT, 1) for number in range(40))
    policy = Policy.parse(
        f"log {LOG_VKEY}\n" + "".join(witness_line(n) for n in range(40)) + "group g all "
        + " ".join(f"w{n}" for n in range(40)) + "\nquorum g\n"
    )  # fmt: skip
    assert policy.judge(NOTE + lines).quorum
    with pytest.raises(TlogError, match="more than 100 signatures"):
        policy.judge(NOTE + WITNESS_LINE * SIGNATURES_MAX)


def test_thirty_two_post_quantum_cosignatures_fit() -> None:
    """Each line is 3.3 kB: a policy of 32 such witnesses must not meet the bound on a note."""
    pq = [witness(n, CosignatureKind.ML_DSA_44) for n in range(32)]
    policy = Policy.parse(
        f"log {LOG_VKEY}\n"
        + "".join(f"witness w{n} {one.verifier.vkey}\n" for n, one in enumerate(pq))
        + f"group g all {' '.join(f'w{n}' for n in range(32))}\nquorum g\n"
    )
    assert policy.judge(NOTE + "".join(one.cosign(CHECKPOINT, 1) for one in pq)).quorum


@pytest.mark.parametrize("spelling", ["", "\n", " "])
def test_cosignature_in_another_spelling_is_refused(spelling: str) -> None:
    encoded = WITNESS_LINE.split(" ")[2].strip()
    raw = base64.b64decode(encoded)
    other = encoded.replace("==", spelling) if spelling == "" else encoded + spelling
    assert base64.b64decode(other + "==") == raw
    with pytest.raises(TlogError):
        policy_of("w").judge(f"{NOTE}\N{EM DASH} witness.example/w1 {other}\n")


def test_policies_made_of_keys_or_given_other_logs() -> None:
    assert Policy.of_logs([LOG.verifier]).text == f"log {LOG_VKEY}\nquorum none\n"
    assert Policy.of_logs([LOG.verifier]).judge(NOTE).quorum
    without = Policy.parse(f"witness w {WITNESS_VKEY}\nquorum w\n")
    with pytest.raises(TlogError, match="no known key"):
        without.judge(NOTE + WITNESS_LINE)
    assert without.with_logs([LOG.verifier]).judge(NOTE + WITNESS_LINE).quorum


def test_receipt_is_judged_by_policy() -> None:
    proof = TlogProof.parse(PROOF)
    judged = proof.judge(b"entry 4", policy_of("w"))
    assert judged.quorum
    assert judged.checkpoint == CHECKPOINT
    assert not proof.judge(b"entry 4", policy_of("both")).quorum
    with pytest.raises(TlogError, match="does not lead to the root"):
        proof.judge(b"entry 5", policy_of("w"))
    with pytest.raises(TlogError, match="not of other"):
        proof.judge(b"entry 4", policy_of("w"), "other")
