"""Every answer of the tlog-witness fact sheet, in its order, and what the witness keeps."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.witnesses import (
    COSIGNER,
    LOG_SIGNER,
    ORIGIN,
    PQ_COSIGNER,
    GrowingLog,
    WitnessesOfOneStore,
    origin_hash,
)
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.note import Signer, UnverifiedNote, parse_signatures, write_signature
from tlog.witness_protocol import AddCheckpoint
from witness.store import EVIDENCE_MAX, Evidence

LOG = GrowingLog()
FORK = GrowingLog(fork_at=3)
STRANGER = Signer.from_seed("stranger.example/log", bytes(32))
IMPOSTOR = Signer.from_seed(ORIGIN, bytes(32))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessesOfOneStore]:
    """A witness that has cosigned nothing yet."""
    one = WitnessesOfOneStore(tmp_path)
    yield one
    one.store.close()


def times(answer_body: str) -> list[int]:
    """The times of the signature lines of an answer."""
    return [int.from_bytes(one.signature[:8]) for one in parse_signatures(answer_body)]


def test_vector_of_the_fact_sheet(witness: WitnessesOfOneStore) -> None:
    witness.clock.time = datetime.fromtimestamp(1_750_000_000, UTC)
    answer = witness.ask(LOG.request(0, 7))
    assert answer.status == 200
    assert answer.body == (
        "— witness.example/w1 IDJKvgAAAABoTuGAMyQ5GFHl8ch/mNJoYNovb/mWZZsFHSeQDDr7WQHuQMxA4N+K6zAx3pp3"
        "XL17B41eGOgGF2w5NgIeWW12/6WoCw==\n"
    )
    assert origin_hash(ORIGIN) == "7c10e67f7a217078a1345e7732eb24b38f3f95c3fefec0adeb265e6c5dcd5a87"
    newest = witness.witness.newest(f"{origin_hash(ORIGIN)}/checkpoint")
    assert newest == LOG.note(7) + answer.body


def test_both_kinds_of_cosignature_verify(tmp_path: Path) -> None:
    witness = WitnessesOfOneStore(tmp_path, COSIGNER, PQ_COSIGNER)
    answer = witness.ask(LOG.request(0, 7))
    lines = parse_signatures(answer.body)
    assert [line.name for line in lines] == ["witness.example/w1", "witness.example/w1-pq"]
    for cosigner, line in zip((COSIGNER, PQ_COSIGNER), lines, strict=True):
        assert line.key_id == cosigner.verifier.key_id
        text = LOG.checkpoint(7).text
        assert cosigner.verifier.verify(text, line.signature) == witness.clock.time.timestamp()
    witness.store.close()


def test_growth_with_proof_is_cosigned(witness: WitnessesOfOneStore) -> None:
    for old, size in ((0, 3), (3, 4), (4, 4), (4, 7)):
        assert witness.ask(LOG.request(old, size)).status == 200


def test_heartbeat_gives_a_fresh_time(witness: WitnessesOfOneStore) -> None:
    first = witness.ask(LOG.request(0, 7))
    witness.clock.advance(seconds=60)
    second = witness.ask(LOG.request(7, 7))
    assert (first.status, second.status) == (200, 200)
    assert times(second.body)[0] - times(first.body)[0] == 60


def test_clock_that_went_back_a_little_repeats_the_last_time(witness: WitnessesOfOneStore) -> None:
    first = witness.ask(LOG.request(0, 3))
    witness.clock.advance(seconds=-30)
    assert times(witness.ask(LOG.request(3, 7)).body) == times(first.body)


def test_clock_that_went_back_far_cosigns_nothing(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 3))
    witness.clock.advance(hours=-1)
    assert witness.ask(LOG.request(3, 7)).status == 503
    witness.clock.advance(hours=1)
    assert witness.ask(LOG.request(3, 7)).status == 200


def a_note(text: str) -> str:
    return f"{text}\n{LOG_SIGNER.sign(text)}"


ROOT = base64.b64encode(LOG.tree(7).root).decode()
SHORT_ROOT = base64.b64encode(bytes(31)).decode()
MALFORMED = {
    "empty": b"",
    "no old line": LOG.note(7).encode(),
    "leading zero": LOG.request(0, 7).replace(b"old 0", b"old 00", 1),
    "negative": LOG.request(0, 7).replace(b"old 0", b"old -1", 1),
    "old line without number": LOG.request(0, 7).replace(b"old 0", b"old ", 1),
    "no empty line": LOG.request(0, 7).replace(b"old 0\n\n", b"old 0\n", 1),
    "64 hashes": b"old 1\n" + b"A" * 43 + b"=\n" + (b"A" * 43 + b"=\n") * 63 + b"\n" + LOG.note(7).encode(),
    "short hash": b"old 1\nAAAA\n\n" + LOG.note(7).encode(),
    "not base64": b"old 1\n????\n\n" + LOG.note(7).encode(),
    "old above size": b"old 8\n\n" + LOG.note(7).encode(),
    "no signature": b"old 0\n\n" + LOG.checkpoint(7).text.encode(),
    "not UTF-8": b"old 0\n\n\xff" + LOG.note(7).encode(),
    "carriage returns": LOG.request(0, 7).replace(b"\n", b"\r\n"),
    "size with leading zero": b"old 0\n\n" + a_note(f"{ORIGIN}\n07\n{ROOT}\n").encode(),
    "root of 31 bytes": b"old 0\n\n" + a_note(f"{ORIGIN}\n7\n{SHORT_ROOT}\n").encode(),
    "no root": b"old 0\n\n" + a_note(f"{ORIGIN}\n7\n").encode(),
    "size 0 with a root of 31 bytes": b"old 0\n\n" + a_note(f"{ORIGIN}\n0\n{SHORT_ROOT}\n").encode(),
    "far too long": b"old 0\n\n" + b"x" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_is_400(witness: WitnessesOfOneStore, body: bytes) -> None:
    assert witness.ask(body).status == 400


def test_unknown_origin_is_404_before_its_signature_is_looked_at(
    witness: WitnessesOfOneStore,
) -> None:
    assert witness.ask(GrowingLog(STRANGER).request(0, 7)).status == 404


def test_signature_by_an_unknown_key_is_403(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(GrowingLog(IMPOSTOR).request(0, 7)).status == 403


def test_false_signature_of_the_trusted_key_is_403(witness: WitnessesOfOneStore) -> None:
    text = LOG.checkpoint(7).text
    false = write_signature(ORIGIN, LOG_SIGNER.verifier.key_id, bytes(64))
    only_false = AddCheckpoint(0, (), f"{text}\n{false}").encoded
    beside_a_true_one = AddCheckpoint(0, (), f"{LOG.note(7)}{false}").encoded
    assert witness.ask(only_false).status == 403
    assert witness.ask(beside_a_true_one).status == 403


def test_403_comes_before_409(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 3))
    assert witness.ask(GrowingLog(IMPOSTOR).request(0, 7)).status == 403


@pytest.mark.parametrize("old", [0, 2, 4, 7])
def test_other_old_size_is_409_with_the_size(witness: WitnessesOfOneStore, old: int) -> None:
    witness.ask(LOG.request(0, 3))
    answer = witness.ask(LOG.request(old, 7))
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", "3\n")


def test_409_when_nothing_was_cosigned_says_0(witness: WitnessesOfOneStore) -> None:
    answer = witness.ask(LOG.request(3, 7))
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", "0\n")


def test_409_comes_before_422(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 3))
    assert witness.ask(FORK.request(4, 7)).status == 409


def test_empty_tree_is_cosigned(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(LOG.request(0, 0)).status == 200
    assert witness.ask(LOG.request(0, 0)).status == 200
    assert witness.ask(LOG.request(0, 3)).status == 200


def empty_with_a_root(signer: Signer, old: int = 0) -> bytes:
    text = f"{signer.name}\n0\n{base64.b64encode(bytes(32)).decode()}\n"
    return f"old {old}\n\n{text}\n{signer.sign(text)}".encode()


def test_size_0_with_another_root_is_422(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(empty_with_a_root(LOG_SIGNER)).status == 422
    assert [one.conclusive for one in witness.store.evidence()] == [True]


def test_size_0_with_another_root_keeps_the_order(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(empty_with_a_root(LOG_SIGNER, old=1)).status == 400
    assert witness.ask(empty_with_a_root(STRANGER)).status == 404
    assert witness.ask(empty_with_a_root(IMPOSTOR)).status == 403
    witness.ask(LOG.request(0, 3))
    assert witness.ask(empty_with_a_root(LOG_SIGNER)).status == 409


def test_proof_with_old_0_is_422(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(AddCheckpoint(0, (bytes(32),), LOG.note(7)).encoded).status == 422


def test_same_size_with_another_root_is_422(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 7))
    assert witness.ask(FORK.request(7, 7)).status == 422


def test_same_size_with_a_proof_is_422(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 7))
    assert witness.ask(AddCheckpoint(7, (bytes(32),), LOG.note(7)).encoded).status == 422


@pytest.mark.parametrize("proof", [(), (bytes(32),), (bytes(32),) * 63])
def test_proof_that_fails_is_422(witness: WitnessesOfOneStore, proof: tuple[bytes, ...]) -> None:
    witness.ask(LOG.request(0, 3))
    assert witness.ask(AddCheckpoint(3, proof, LOG.note(7)).encoded).status == 422


@pytest.mark.promise(4)
def test_fork_is_never_cosigned(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 4))
    for size in (4, 5, 7):
        assert witness.ask(FORK.request(4, size)).status == 422
    assert witness.ask(LOG.request(4, 7)).status == 200


def test_extension_lines_are_covered(witness: WitnessesOfOneStore) -> None:
    checkpoint = Checkpoint(ORIGIN, 7, LOG.tree(7).root, ("an extension",))
    note = sign_checkpoint(checkpoint, LOG_SIGNER)
    answer = witness.ask(AddCheckpoint(0, (), note).encoded)
    assert answer.status == 200
    (line,) = parse_signatures(answer.body)
    assert COSIGNER.verifier.verify(checkpoint.text, line.signature)


def test_lines_of_others_are_not_kept(witness: WitnessesOfOneStore) -> None:
    line = STRANGER.sign(LOG.checkpoint(7).text)
    note = LOG.note(7) + line + LOG_SIGNER.sign(LOG.checkpoint(7).text)
    assert witness.ask(AddCheckpoint(0, (), note).encoded).status == 200
    newest = witness.witness.newest(f"{origin_hash(ORIGIN)}/checkpoint")
    assert newest is not None
    names = [one.name for one in UnverifiedNote.parse(newest).signatures]
    assert names == [ORIGIN, "witness.example/w1"]


def test_nothing_cosigned_is_nothing_to_show(witness: WitnessesOfOneStore) -> None:
    assert witness.witness.newest(f"{origin_hash(ORIGIN)}/checkpoint") is None
    assert witness.witness.newest(f"{origin_hash('stranger')}/checkpoint") is None


def test_restart_keeps_what_was_cosigned(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 4))
    witness.restart()
    assert witness.ask(LOG.request(0, 7)).body == "4\n"
    assert witness.ask(FORK.request(4, 4)).status == 422
    assert witness.ask(LOG.request(4, 7)).status == 200


def test_two_histories_are_kept_as_evidence(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 7))
    witness.ask(FORK.request(7, 7))
    witness.ask(FORK.request(7, 7))
    (found,) = witness.store.evidence()
    assert found.conclusive
    assert found.note == FORK.note(7)
    assert found.held.startswith(LOG.note(7))


def test_other_root_at_the_held_size_is_evidence_with_any_old_size(
    witness: WitnessesOfOneStore,
) -> None:
    witness.ask(LOG.request(0, 7))
    assert witness.ask(FORK.request(0, 7)).status == 409
    assert [one.conclusive for one in witness.store.evidence()] == [True]


def test_wrong_proof_is_kept_but_proves_nothing(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 3))
    witness.ask(AddCheckpoint(3, (), LOG.note(7)).encoded)
    assert [one.conclusive for one in witness.store.evidence()] == [False]


def test_what_nobody_signed_is_no_evidence(witness: WitnessesOfOneStore) -> None:
    witness.ask(LOG.request(0, 3))
    witness.ask(GrowingLog(IMPOSTOR, fork_at=0).request(3, 3))
    witness.ask(LOG.request(0, 7))
    assert list(witness.store.evidence()) == []


def test_evidence_has_a_bound(witness: WitnessesOfOneStore) -> None:
    def found(number: int, *, conclusive: bool) -> Evidence:
        root = number.to_bytes(32)
        return Evidence(ORIGIN, number, root, conclusive, 0, f"note {number}", "held")

    with witness.store.transaction():
        for number in range(EVIDENCE_MAX + 5):
            witness.store.add_evidence(found(number, conclusive=False))
            witness.store.add_evidence(found(number, conclusive=True))
    kept = list(witness.store.evidence())
    weak = [one.size for one in kept if not one.conclusive]
    strong = [one.size for one in kept if one.conclusive]
    assert weak == list(range(5, EVIDENCE_MAX + 5)), "of what proves nothing the last are kept"
    assert strong == list(range(EVIDENCE_MAX)), "of what proves two histories the first are kept"


@pytest.mark.promise(4)
def test_smaller_tree_is_never_cosigned(witness: WitnessesOfOneStore) -> None:
    assert witness.ask(LOG.request(0, 7)).status == 200
    smaller = [LOG.request(old, size) for old, size in ((0, 0), (0, 3), (3, 3), (3, 4))]
    pretended = LOG.request(0, 3).replace(b"old 0", b"old 7", 1)
    for body in (*smaller, pretended):
        assert witness.ask(body).status in (400, 409)
        assert witness.witness.sizes() == {ORIGIN: 7}
