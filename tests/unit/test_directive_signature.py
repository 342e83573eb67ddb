"""A directive is its party's only with the party's own signature over every byte of it."""

import shutil
from pathlib import Path

import pytest

from directive import document, signature
from directive.book import BookError, load_book
from directive.findings import DocumentError
from directive.signature import SIGNATURE_FILE, Signers
from shared.signing import BadKey, SigningKey
from support.directives import DIRECTIVES, LAPD, LASD, registry, vocabulary
from support.ledgers import ORIGIN
from tlog.errors import TlogError
from tlog.note import sign_note

NAME = "lapd-2020-11-13"
KEYS = {party: SigningKey.generate() for party in (LAPD, LASD, "stranger")}
SIGNERS = {party: key.note_signer(f"{party}/directives") for party, key in KEYS.items()}
KNOWN = Signers.parse({party: (SIGNERS[party].vkey,) for party in (LAPD, LASD)})


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """LAPD's directive, signed by LAPD."""
    folder = Path(shutil.copytree(DIRECTIVES / NAME, tmp_path / NAME))
    sign(folder, LAPD)
    return folder


def sign(folder: Path, *parties: str, log: str = ORIGIN) -> None:
    read = document.read(folder)
    notes = [signature.sign(folder, read, vocabulary(), SIGNERS[party], log) for party in parties]
    text, _, lines = notes[0].rpartition("\n\n")
    lines += "".join(note.rpartition("\n\n")[2] for note in notes[1:])
    (folder / SIGNATURE_FILE).write_text(f"{text}\n\n{lines}")


def refusal(folder: Path, signers: Signers = KNOWN) -> str:
    with pytest.raises(DocumentError) as refused:
        signature.check(folder, document.read(folder), vocabulary(), signers)
    (finding,) = refused.value.findings
    assert finding.file == f"{NAME}/{SIGNATURE_FILE}"
    return f"{finding.guard}: {finding.message}"


def test_a_directive_that_its_party_signed_is_accepted(folder: Path) -> None:
    (signed,) = signature.check(folder, document.read(folder), vocabulary(), KNOWN)
    assert signed.vkey == SIGNERS[LAPD].vkey


def test_a_lawyers_signature_may_stand_beside_it(folder: Path) -> None:
    sign(folder, "stranger", LAPD)
    (signed,) = signature.check(folder, document.read(folder), vocabulary(), KNOWN)
    assert signed.name == SIGNERS[LAPD].name


def test_an_unsigned_directive_is_refused(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()
    assert refusal(folder).startswith("SIGNATURE_MISSING: ")


@pytest.mark.parametrize(
    ("party", "owner"), [(LASD, f"({LASD})"), ("stranger", "(registered by nobody)")]
)
def test_attack_another_party_signs(folder: Path, party: str, owner: str) -> None:
    sign(folder, party)
    said = refusal(folder)
    assert said.startswith("SIGNATURE_OTHER_PARTY: ")
    assert owner in said
    assert LAPD in said
    assert "directive_signers" in said


def test_attack_a_party_without_a_key_is_spoken_for(folder: Path) -> None:
    only = Signers.parse({LASD: (SIGNERS[LASD].vkey,)})
    assert refusal(folder, only).startswith("SIGNER_UNKNOWN: ")


@pytest.mark.parametrize("file", ["directive.toml", "rules.cedar", "cases.yaml"])
def test_attack_one_byte_of_any_file_is_changed(folder: Path, file: str) -> None:
    with (folder / file).open("ab") as changed:
        changed.write(b"\n")
    said = refusal(folder)
    assert said.startswith("SIGNATURE_OF_OTHER_BYTES: ")
    assert said.endswith(f"what differs is {file}")


def test_attack_the_signature_of_another_directive(folder: Path) -> None:
    other = Path(
        shutil.copytree(DIRECTIVES / "lapd-commission-2021-01-12", folder.parent / "other")
    )
    (other / "directive.toml").write_text(
        (other / "directive.toml").read_text().replace("lapd-commission-2021-01-12", "other")
    )
    sign(other, LAPD)
    shutil.copy(other / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    assert refusal(folder).startswith("SIGNATURE_OF_OTHER_BYTES: ")


def test_attack_a_false_signature_under_the_partys_name(folder: Path) -> None:
    text = (folder / SIGNATURE_FILE).read_text().replace("vocabulary 1", "vocabulary 2")
    (folder / SIGNATURE_FILE).write_text(text)
    assert refusal(folder).startswith("SIGNATURE_FALSE: ")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff", b"a\n\n\n", b"a" * 2_000_000, b"a\n\nb c\n"]
)
def test_what_is_no_signature_is_refused(folder: Path, content: bytes) -> None:
    (folder / SIGNATURE_FILE).write_bytes(content)
    assert refusal(folder).split(":")[0] in ("SIGNATURE", "FILE_TOO_LARGE")


def test_one_unsigned_directive_keeps_the_whole_book_shut(folder: Path) -> None:
    assert load_book(folder.parent, vocabulary(), registry(), KNOWN).directives
    (folder / SIGNATURE_FILE).unlink()
    with pytest.raises(BookError, match="SIGNATURE_MISSING"):
        load_book(folder.parent, vocabulary(), registry(), KNOWN)
    assert load_book(folder.parent, vocabulary(), registry()).directives, "nobody was asked for"


def test_what_was_signed_for_another_log_does_not_count_and_it_is_said_for_which(
    folder: Path,
) -> None:
    here = Signers(KNOWN.by_party, ORIGIN)
    assert signature.check(folder, document.read(folder), vocabulary(), here, new=True)
    sign(folder, LAPD, log="other.example/log")
    said = refusal(folder, here)
    assert said.startswith("SIGNED_FOR_OTHER_LOG: was signed for other.example/log, and this is ")
    assert said.endswith(ORIGIN)
    # Where nobody knows in which log they are, as in a folder that is only looked at.
    assert signature.check(folder, document.read(folder), vocabulary(), KNOWN)
    with pytest.raises(TlogError):
        sign(folder, LAPD, log="two words")


def test_the_log_is_part_of_what_is_signed(folder: Path) -> None:
    text = (
        (folder / SIGNATURE_FILE).read_text().replace(f"log {ORIGIN}\n", "log other.example/log\n")
    )
    (folder / SIGNATURE_FILE).write_text(text)
    assert refusal(folder).startswith("SIGNATURE_FALSE: ")


def test_a_signature_of_version_1_stays_what_it_was_and_is_none_for_what_is_new(
    folder: Path,
) -> None:
    read = document.read(folder)
    cases = (folder / "cases.yaml").read_bytes()
    text = signature.statement(read, cases, vocabulary())
    assert text.startswith(f"countersign/directive-signature/v1\ndirective {NAME}\n")
    (folder / SIGNATURE_FILE).write_text(sign_note(text, [SIGNERS[LAPD]]))
    here = Signers(KNOWN.by_party, ORIGIN)
    assert signature.check(folder, read, vocabulary(), here)
    with pytest.raises(DocumentError, match="signed for no log in particular") as refused:
        signature.check(folder, read, vocabulary(), here, new=True)
    assert refused.value.findings[0].guard == "SIGNED_FOR_OTHER_LOG"


def test_a_keys_name_must_be_one() -> None:
    with pytest.raises(BadKey, match="two words"):
        KEYS[LAPD].note_signer("two words")
