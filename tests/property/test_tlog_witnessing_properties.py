"""What holds of every cosignature, policy and request to a witness, and of every change to one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.vectors import (
    LOG_VKEY,
    NOTE,
    ORIGIN,
    PQ_WITNESS,
    PROOF,
    ROOT_7,
    TEXT,
    WITNESS,
    WITNESS_LINE,
    WITNESS_VKEY,
)
from tlog.checkpoint import Checkpoint
from tlog.cosignature import (
    CosignatureKind,
    CosignatureVerifier,
    Cosigner,
    parse_log_vkey,
    parse_witness_vkey,
)
from tlog.errors import TlogError
from tlog.note import UnverifiedNote, parse_signatures
from tlog.policy import Policy
from tlog.proof import TlogProof
from tlog.witness_protocol import AddCheckpoint, monitoring_path, read_cosignature, read_size

COSIGNED = NOTE + WITNESS_LINE
POLICY_TEXT = (
    f"# c\nlog {LOG_VKEY} https://l.example\nwitness w {WITNESS_VKEY}\ngroup g any w\nquorum g\n"
)
POLICY = Policy.parse(POLICY_TEXT)
HASH_LINE = "V8efTzGuApxdS9MLBzwnyU35NDiytGl+Hh7vW8A5SkE=\n"
BODY = f"old 3\n{HASH_LINE * 2}\n{COSIGNED}".encode()

NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="+"), min_size=1, max_size=60
)


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """The same bytes with a few of them replaced, dropped, repeated or inserted."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["replace", "drop", "repeat", "insert"]))
        if kind == "replace" and at < len(content):
            content[at] = draw(st.integers(0, 255))
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 50))]
        elif kind == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 50))]
        else:
            content[at:at] = draw(st.sampled_from([b"\n", b" ", b"\t", b"\r", b"#", b"0", b"\xff"]))
    return bytes(content)


@given(
    NAMES,
    st.sampled_from(CosignatureKind),
    st.binary(min_size=32, max_size=32),
    NAMES,
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 2**63 - 1),
)
def test_cosignatures_verify_and_round_trip(
    name: str,
    kind: CosignatureKind,
    seed: bytes,
    origin: str,
    size: int,
    root: bytes,
    time_s: int,
) -> None:
    cosigner = Cosigner.from_seed(name, seed, kind)
    assert CosignatureVerifier.parse(cosigner.verifier.vkey) == cosigner.verifier
    checkpoint = Checkpoint(origin, size, root)
    line = cosigner.cosign(checkpoint, time_s)
    (parsed,) = parse_signatures(line)
    assert parsed.line == line
    assert cosigner.verifier.verify(checkpoint.text, parsed.signature) == time_s
    with pytest.raises(TlogError):
        cosigner.verifier.verify(Checkpoint("o" + origin, size, root).text, parsed.signature)


@given(changed(COSIGNED.encode()))
def test_changed_checkpoint_never_gains_a_quorum(note: bytes) -> None:
    """Whatever a change leaves valid says the same of the same tree."""
    try:
        judged = POLICY.judge(note)
    except TlogError:
        return
    assert judged.checkpoint == Checkpoint(ORIGIN, 7, ROOT_7)
    assert judged.cosigned in ({}, {"w": 1_750_000_000})


@given(changed(PROOF.encode()))
def test_changed_receipt_proves_nothing_else(proof: bytes) -> None:
    try:
        judged = TlogProof.parse(proof).judge(b"entry 4", POLICY)
    except TlogError:
        return
    assert judged.checkpoint == Checkpoint(ORIGIN, 7, ROOT_7)


@given(changed(POLICY_TEXT.encode()))
def test_changed_policy_is_refused_or_reads_as_it_writes(text: bytes) -> None:
    try:
        policy = Policy.parse(text)
    except TlogError:
        return
    again = Policy.parse(policy.text)
    assert again.text == policy.text
    assert (again.logs, dict(again.witnesses), again.groups, again.quorum) == (
        policy.logs,
        dict(policy.witnesses),
        policy.groups,
        policy.quorum,
    )


WITNESSES = tuple(
    Cosigner.from_seed("w", bytes([number]) * 32, CosignatureKind.ED25519).verifier.vkey
    for number in range(8)
)


@given(st.data())
def test_more_cosignatures_never_break_a_quorum(data: st.DataObject) -> None:
    lines = [f"witness w{number} {vkey}" for number, vkey in enumerate(WITNESSES)]
    free = [f"w{number}" for number in range(len(WITNESSES))]
    for number in range(data.draw(st.integers(1, 5))):
        members = data.draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        how_many = data.draw(
            st.one_of(st.sampled_from(["any", "all"]), st.integers(1, len(members)).map(str))
        )
        lines.append(f"group g{number} {how_many} {' '.join(members)}")
        free = [one for one in free if one not in members] + [f"g{number}"]
    quorum = data.draw(st.sampled_from([line.split()[1] for line in lines]))
    policy = Policy.parse("\n".join([*lines, f"quorum {quorum}", ""]))
    some = data.draw(st.sets(st.sampled_from(sorted(policy.witnesses))))
    more = some | data.draw(st.sets(st.sampled_from(sorted(policy.witnesses))))
    assert policy.satisfied_by(policy.witnesses)
    assert not policy.satisfied_by([])
    assert policy.satisfied_by(more) or not policy.satisfied_by(some)
    assert bool(policy.shortfall(some)) is not policy.satisfied_by(some)


@given(changed(BODY))
def test_changed_request_is_refused_or_reads_as_it_writes(body: bytes) -> None:
    with contextlib.suppress(TlogError):
        assert AddCheckpoint.parse(body).encoded == body


@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode), changed(BODY)))
def test_parsers_raise_nothing_but_their_error(raw: bytes) -> None:
    for read in (Policy.parse, AddCheckpoint.parse, read_size, UnverifiedNote.parse, POLICY.judge):
        with contextlib.suppress(TlogError):
            read(raw)
    with contextlib.suppress(TlogError):
        read_cosignature(raw, TEXT, WITNESS.verifier)
    for verifier in (WITNESS.verifier, PQ_WITNESS.verifier):
        with contextlib.suppress(TlogError):
            verifier.verify(TEXT, raw)
    text = raw.decode("utf-8", "surrogateescape")
    for parse in (parse_log_vkey, parse_witness_vkey, Policy.parse, monitoring_path):
        with contextlib.suppress(TlogError):
            parse(text)
