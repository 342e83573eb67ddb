"""Signed notes, checkpoints and offline proofs on the published vectors, and what they refuse."""

import base64

import pytest

from tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT
from tlog.note import Signer, UnverifiedNote, Verifier, sign_note
from tlog.proof import TlogProof, verify_receipt

SIGNER = Signer.from_seed("ledger.example/exchange", bytes(range(32)))
VKEY = "ledger.example/exchange+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
ROOT_7 = bytes.fromhex("98c97f0ba3175cd08b031dd084b9dc4e649b64d1a28e6ea694646503173ab587")
CHECKPOINT = (
    "ledger.example/exchange\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n\n"
    "\N{EM DASH} ledger.example/exchange HfNrtPvuxeUX7ixN6ktcjemG97Yi3snt2sNzVCZVp6joghi8iZGxbASm9xYr"
    "5sqHynUWIjVPIwtYZJiSKUFl67trOwI=\n"
)
WITNESS_LINE = (
    "\N{EM DASH} witness.example/w1 IDJKvgAAAABoTuGAMyQ5GFHl8ch/mNJoYNovb/mWZZsFHSeQDDr7WQHuQMxA4N+K6zA"
    "x3pp3XL17B41eGOgGF2w5NgIeWW12/6WoCw==\n"
)
PROOF = f"""\
c2sp.org/tlog-proof@v1
index 4
n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=
vhV4G2KKKEFMHIoRuG24Qi+hBBIV/g18RJbSPNoeQUI=
l5nzB1F+9RfCIF35tndivzR1ayAJn7ffzOdrzr0nOy4=

{CHECKPOINT}{WITNESS_LINE}"""


def test_verifier_key_is_that_of_the_specification() -> None:
    assert SIGNER.verifier.vkey == VKEY
    assert Verifier.parse(VKEY) == SIGNER.verifier
    assert SIGNER.verifier.key_id.hex() == "1df36bb4"


def test_the_specifications_own_note_verifies() -> None:
    verifier = Verifier.parse(
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    )
    note = UnverifiedNote.parse(
        "This is an example message.\n\n\N{EM DASH} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6Tf"
        "Xppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    )
    assert note.verify([verifier]) == (verifier,)
    assert note.text == "This is an example message.\n"


def test_checkpoint_is_signed_as_in_the_specification() -> None:
    checkpoint = Checkpoint("ledger.example/exchange", 7, ROOT_7)
    assert sign_checkpoint(checkpoint, SIGNER) == CHECKPOINT
    assert open_checkpoint(CHECKPOINT, SIGNER.verifier) == checkpoint
    assert open_checkpoint(CHECKPOINT.encode(), SIGNER.verifier) == checkpoint


def test_signatures_of_unknown_keys_are_ignored() -> None:
    assert open_checkpoint(CHECKPOINT + WITNESS_LINE, SIGNER.verifier).size == 7


def test_note_that_no_known_key_signed_is_refused() -> None:
    stranger = Signer.from_seed("ledger.example/exchange", bytes(32)).verifier
    with pytest.raises(TlogError, match="no known key"):
        open_checkpoint(CHECKPOINT, stranger)


def test_one_false_signature_of_a_known_key_sinks_the_note() -> None:
    """A second line with the log's name and key id, but a wrong signature, after the right one."""
    false = base64.b64encode(SIGNER.verifier.key_id + bytes(64)).decode()
    with pytest.raises(TlogError, match="does not verify"):
        open_checkpoint(
            f"{CHECKPOINT}\N{EM DASH} ledger.example/exchange {false}\n", SIGNER.verifier
        )


def test_signature_of_another_length_is_refused() -> None:
    short = base64.b64encode(SIGNER.verifier.key_id + bytes(63)).decode()
    note = f"{CHECKPOINT}\N{EM DASH} ledger.example/exchange {short}\n"
    with pytest.raises(TlogError, match="wrong length"):
        open_checkpoint(note, SIGNER.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7\n", "\n8\n"),
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n7 \n"),
        ("ledger.example/exchange\n7", "ledger.example/other\n7"),
        ("mMl/", "nMl/"),
        ("tYc=\n\n", "tYc=\nextension\n\n"),
    ],
)
def test_changed_checkpoint_is_refused(old: str, new: str) -> None:
    changed = CHECKPOINT.replace(old, new, 1)
    assert changed != CHECKPOINT
    with pytest.raises(TlogError):
        open_checkpoint(changed, SIGNER.verifier)


def test_key_of_another_log_cannot_sign_in_this_logs_name() -> None:
    other = Signer.from_seed("ledger.example/other", bytes(32))
    text = Checkpoint("ledger.example/exchange", 7, ROOT_7).text
    with pytest.raises(TlogError, match=r"is of ledger\.example/exchange, not of"):
        open_checkpoint(sign_note(text, [other]), other.verifier)
    with pytest.raises(TlogError, match="under its own name"):
        sign_checkpoint(Checkpoint("ledger.example/exchange", 7, ROOT_7), other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "log\n7\n",
        "log\n07\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n+7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n\N{ARABIC-INDIC DIGIT SEVEN}\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n9223372036854775808\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n" + "9" * 10_000 + "\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYd=\n",
        "log\n7\nmMl/\n",
        "log\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n\nx\n",
        "a b\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n0\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n",
        "log\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=",
    ],
)
def test_text_that_is_not_exactly_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(TlogError):
        Checkpoint.parse(text)


def test_checkpoint_of_an_empty_log() -> None:
    empty = Checkpoint("log", 0, EMPTY_ROOT)
    assert empty.text == "log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    assert Checkpoint.parse(empty.text) == empty


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text\r\n\n\xe2\x80\x94 log AAAAAAA=\n",
        b"text\n\n- log AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 log AAAAAA==\n",
        b"text\n\n\xe2\x80\x94 log AAAAAAA=",
        b"text\n\n\xe2\x80\x94 log  AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 log AAAAAAB=\n",
        b"text\n\n\xe2\x80\x94 l+g AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 l\xc2\xa0g AAAAAAA=\n",
        b"text\xff\n\n\xe2\x80\x94 log AAAAAAA=\n",
        b"text\n\n" + b"\xe2\x80\x94 log AAAAAAA=\n" * 101,
        b"t" * 300_000 + b"\n\n\xe2\x80\x94 log AAAAAAA=\n",
    ],
)
def test_bytes_that_are_not_exactly_a_note_are_refused(note: bytes) -> None:
    with pytest.raises(TlogError):
        UnverifiedNote.parse(note)


def test_text_of_a_note_may_hold_empty_lines() -> None:
    signed = sign_note("one\n\ntwo\n\n", [SIGNER])
    note = UnverifiedNote.parse(signed)
    assert note.text == "one\n\ntwo\n\n"
    assert note.verify([SIGNER.verifier]) == (SIGNER.verifier,)


@pytest.mark.parametrize("text", ["", "no line feed", "tab\t\n", "\x00\n", "\ud800\n"])
def test_text_that_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(TlogError):
        SIGNER.sign(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        VKEY.replace("1df36bb4", "1df36bb5"),
        VKEY.replace("1df36bb4", "1DF36BB4"),
        VKEY.replace("exchange", "exchang"),
        VKEY + "=",
        VKEY.replace("+AQOh", "+AgOh"),
        "+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
        "a b+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
        "log+1df36bb4+",
        "log+1df36bb4+AQ==",
        "\ud800+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
    ],
)
def test_text_that_is_not_exactly_a_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(TlogError):
        Verifier.parse(vkey)


def test_seed_of_another_length_is_refused() -> None:
    with pytest.raises(TlogError, match="32 bytes"):
        Signer.from_seed("log", bytes(31))


def test_proof_of_the_specification_verifies() -> None:
    index, checkpoint = verify_receipt(b"entry 4", PROOF, SIGNER.verifier)
    assert (index, checkpoint.size, checkpoint.root) == (4, 7, ROOT_7)
    assert TlogProof.parse(PROOF.encode()).text == PROOF


def test_proof_of_another_entry_is_refused() -> None:
    with pytest.raises(TlogError, match="does not lead to the root"):
        verify_receipt(b"entry 5", PROOF, SIGNER.verifier)


def test_proof_by_another_log_is_refused() -> None:
    with pytest.raises(TlogError, match="no known key"):
        verify_receipt(b"entry 4", PROOF, Signer.from_seed("log", bytes(32)).verifier)


def test_extra_data_of_a_proof_is_read_and_written() -> None:
    with_extra = PROOF.replace("\n", "\nextra aGVsbG8=\n", 1)
    proof = TlogProof.parse(with_extra)
    assert proof.unauthenticated_extra == b"hello"
    assert proof.text == with_extra


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@v1", "@v2"),
        ("index 4", "index 04"),
        ("index 4", "index 5"),
        ("index 4", "Index 4"),
        ("index 4\n", ""),
        ("n/U3", "n/U4"),
        ("n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=\n", ""),
        ("n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=", "n/U3"),
        ("\n\nledger", "\nledger"),
        ("c2sp", "extra aGVsbG8=\nc2sp"),
    ],
)
def test_changed_proof_is_refused(old: str, new: str) -> None:
    changed = PROOF.replace(old, new, 1)
    assert changed != PROOF
    with pytest.raises(TlogError):
        verify_receipt(b"entry 4", changed, SIGNER.verifier)


@pytest.mark.parametrize(("index", "hashes"), [(-1, ()), (0, (b"",)), (0, (bytes(32),) * 64)])
def test_impossible_proof_cannot_be_made(index: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(TlogError):
        TlogProof(index, hashes, CHECKPOINT)
