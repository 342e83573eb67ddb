"""What a log and a witness send each other: exact bodies, and what is refused in them."""

from base64 import b64decode

import pytest

from support.vectors import (
    LOG_LINE,
    NOTE,
    ORIGIN,
    PQ_WITNESS,
    ROOT_7,
    TEXT,
    WITNESS,
    WITNESS_LINE,
    WITNESS_TIME,
    timeless_line,
)
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.note import write_signature
from tlog.witness_protocol import (
    REQUEST_BYTES_MAX,
    AddCheckpoint,
    monitoring_path,
    read_cosignature,
    read_size,
    write_size,
)

HASH = "V8efTzGuApxdS9MLBzwnyU35NDiytGl+Hh7vW8A5SkE="
HASH_LINE = f"{HASH}\n"
BODY = f"old 3\n{HASH}\n{HASH}\n\n{NOTE}".encode()


def test_monitoring_path_is_that_of_the_specification() -> None:
    assert monitoring_path(ORIGIN) == (
        "7c10e67f7a217078a1345e7732eb24b38f3f95c3fefec0adeb265e6c5dcd5a87/checkpoint"
    )


def test_request_is_read_and_written() -> None:
    request = AddCheckpoint.parse(BODY)
    assert request == AddCheckpoint(3, (b64decode(HASH),) * 2, NOTE)
    assert request.encoded == BODY
    assert request.unverified_checkpoint == Checkpoint(ORIGIN, 7, ROOT_7)


@pytest.mark.parametrize("old_size", [0, 7])
def test_request_without_proof(old_size: int) -> None:
    body = f"old {old_size}\n\n{NOTE}{WITNESS_LINE}".encode()
    request = AddCheckpoint.parse(body)
    assert (request.old_size, request.proof, request.encoded) == (old_size, (), body)


def test_longest_proof_is_read() -> None:
    assert len(AddCheckpoint.parse(f"old 3\n{HASH_LINE * 63}\n{NOTE}".encode()).proof) == 63


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"old 3\n",
        BODY.replace(b"old 3", b"old 03"),
        BODY.replace(b"old 3", b"old  3"),
        BODY.replace(b"old 3", b"old +3"),
        BODY.replace(b"old 3", b"old 3 "),
        BODY.replace(b"old 3", b"Old 3"),
        BODY.replace(b"old 3", b"old -1"),
        BODY.replace(b"old 3", b"old 8"),
        BODY.replace(b"old 3", b"old 9223372036854775808"),
        BODY.replace(b"old 3\n", b"old 3\r\n"),
        BODY.replace(b"old 3\n", b""),
        BODY.replace(b"SkE=\n\n", b"SkE=\n"),
        BODY.replace(b"SkE=\n", b"SkE\n"),
        BODY.replace(b"SkE=\n", b"SkF=\n"),
        BODY.replace(HASH.encode(), b"AAAA"),
        BODY.replace(b"\n\nledger", b"\n\n\nledger"),
        BODY.replace(b"\n7\n", b"\n07\n"),
        BODY.removesuffix(b"\n"),
        BODY.removesuffix(LOG_LINE.encode()),
        BODY.replace(b"exchange\n7", b"exch\xffnge\n7"),
        f"old 3\n{HASH_LINE * 64}\n{NOTE}".encode(),
        BODY + b"\n",
        bytes(REQUEST_BYTES_MAX + 1),
    ],
)
def test_body_that_is_not_exactly_a_request_is_refused(body: bytes) -> None:
    assert body != BODY
    with pytest.raises(TlogError):
        AddCheckpoint.parse(body)


@pytest.mark.parametrize(
    ("old_size", "proof"), [(8, ()), (-1, ()), (3, (bytes(31),)), (3, (bytes(32),) * 64)]
)
def test_impossible_request_cannot_be_made(old_size: int, proof: tuple[bytes, ...]) -> None:
    with pytest.raises(TlogError):
        AddCheckpoint(old_size, proof, NOTE)


def test_size_of_a_conflict_is_written_and_read() -> None:
    assert write_size(20852014) == b"20852014\n"
    for body in (b"20852014\n", b"20852014", b"20852014\r\n"):
        assert read_size(body) == 20852014
    assert read_size(b"0\n") == 0


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"01\n", b"1\n\n", b"-1", b" 1", b"x", b"\xff", b"1" * 33]
)
def test_size_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(TlogError):
        read_size(body)


def test_witness_line_is_found_among_others() -> None:
    stranger = write_signature("stranger", b"1234", bytes(72))
    answer = f"{stranger}{WITNESS_LINE}{stranger}".encode()
    assert read_cosignature(answer, TEXT, WITNESS.verifier) == (WITNESS_LINE, WITNESS_TIME)
    line = PQ_WITNESS.cosign(Checkpoint(ORIGIN, 7, ROOT_7), 5)
    assert read_cosignature(line.encode(), TEXT, PQ_WITNESS.verifier) == (line, 5)


def test_latest_line_is_taken() -> None:
    checkpoint = Checkpoint(ORIGIN, 7, ROOT_7)
    lines = [WITNESS.cosign(checkpoint, time_s) for time_s in (5, 9, 7)]
    answer = "".join(lines).encode()
    assert read_cosignature(answer, TEXT, WITNESS.verifier) == (lines[1], 9)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "line feed"),
        (b"ok\n", "a signature line is"),
        (WITNESS_LINE.removesuffix("\n").encode(), "line feed"),
        (write_signature("stranger", b"1234", bytes(72)).encode(), "no cosignature by"),
        (
            write_signature("witness.example/w1", WITNESS.verifier.key_id, bytes(72)).encode(),
            "does not verify",
        ),
        (WITNESS_LINE.encode() + b"\xff\n", "UTF-8"),
        (WITNESS_LINE.encode() * 101, "more than 100"),
    ],
)
def test_answer_without_a_good_line_is_refused(answer: bytes, says: str) -> None:
    with pytest.raises(TlogError, match=says):
        read_cosignature(answer, TEXT, WITNESS.verifier)


def test_line_without_a_time_is_no_witness_cosignature() -> None:
    with pytest.raises(TlogError, match="no cosignature by"):
        read_cosignature(timeless_line().encode(), TEXT, PQ_WITNESS.verifier)
