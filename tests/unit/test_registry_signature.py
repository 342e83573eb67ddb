"""A document is its owner's only with the owner's signature over all of it, under a new serial number."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from registry import publication, signature
from registry.commitments import Commitments, commit, opened
from registry.findings import RegistryRefused
from registry.signature import Statement
from shared.commitments import commit_to
from shared.registry import Standing
from support.registrations import (
    LAPD,
    LASD,
    OFFICERS,
    SECRET,
    agency,
    document,
    kept_list,
    signer,
    write,
)

PUBLIC = agency(LAPD, kept_list("lapd-fr-users"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return write(tmp_path / "lapd", PUBLIC, OFFICERS, serial=7)


def refusal(folder: Path, key: str = LAPD) -> str:
    with pytest.raises(RegistryRefused) as refused:
        publication.load(folder, [signer(key).verifier], {LASD: (signer(LASD).verifier,)})
    (finding,) = refused.value.findings
    return f"{finding.guard} {finding.message}"


def test_what_is_signed_is_what_its_contract_says(folder: Path) -> None:
    """These bytes must never change again: signatures of old documents would be lost."""
    text = (folder / "registry.sig").read_text().rpartition("\n\n")[0]
    before = (
        "countersign/registry-signature/v1\n"
        "owner CA0194200\n"
        "serial 7\n"
        "agency.toml sha256:f47c3a990834d578518cb4fa32e9cfcad3ad12e519b882f173cec8f805edaa92\n"
        "officers 2 sha256:853ff671963c2a01f3279ec25cb85f280e212e659afbe245b82705f5b2636466"
    )
    assert text == before.replace("/v1\n", "/v2\nlog ledger.example/countersign\n")
    said = signature.read_statement(folder)
    assert said is not None
    assert dataclasses.replace(said, log="").text == f"{before}\n"


def test_a_signed_folder_is_loaded(folder: Path) -> None:
    signed = publication.load(folder, [signer(LAPD).verifier])
    assert (signed.statement.owner, signed.statement.serial) == (LAPD, 7)
    assert {one.said.officer for one in signed.officers} == {"lapd-40123", "lapd-50999"}
    assert signature.read_statement(folder) == signed.statement


@pytest.mark.parametrize("file", ["agency.toml", "officers.toml"])
def test_one_changed_letter_is_another_document(folder: Path, file: str) -> None:
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace("true", "false").replace("The agency", "An agency"))
    assert refusal(folder).startswith("SIGNATURE_OF_OTHER_BYTES signs something else: ")


def test_another_secret_is_another_document(folder: Path) -> None:
    (folder / "officers.secret").write_text("00" * 32)
    assert refusal(folder) == "SIGNATURE_OF_OTHER_BYTES signs something else: officers"


def test_an_unsigned_document_is_refused(folder: Path) -> None:
    (folder / "registry.sig").unlink()
    assert refusal(folder).startswith("SIGNATURE_MISSING ")


def test_the_signature_of_another_is_none(folder: Path) -> None:
    note = signature.sign(document(PUBLIC, OFFICERS), SECRET, 7, signer(LASD), "any.example/log")
    (folder / "registry.sig").write_text(note)
    assert refusal(folder) == (
        "SIGNATURE_OTHER_PARTY is signed by ca0190000.example/registry (CA0190000), and by no key "
        "that CA0194200 registered"
    )


def test_an_owner_without_a_key_signs_nothing(folder: Path) -> None:
    with pytest.raises(RegistryRefused, match="SIGNER_UNKNOWN"):
        publication.load(folder, [])


def test_a_serial_number_is_signed_too(folder: Path) -> None:
    text = (folder / "registry.sig").read_text()
    (folder / "registry.sig").write_text(text.replace("serial 7", "serial 8"))
    assert refusal(folder).startswith("SIGNATURE_FALSE ")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"nothing\n", b"#" * 10_000_000, b"text\n\n\xe2\x80\x94 a AAAAAAAA\n"],
)
def test_what_is_no_signature_is_refused(folder: Path, content: bytes) -> None:
    (folder / "registry.sig").write_bytes(content)
    assert refusal(folder).split(" ")[0] in ("SIGNATURE", "FILE_TOO_LARGE")


def test_officers_without_a_secret_are_not_committed_to(folder: Path) -> None:
    (folder / "officers.secret").unlink()
    assert refusal(folder).startswith("SECRET_MISSING ")
    (folder / "officers.secret").write_text("secret")
    assert refusal(folder).startswith("SECRET ")


def test_a_statement_has_one_spelling() -> None:
    said = Statement(LAPD, 7, b"\1" * 32, 2, b"\2" * 32)
    assert Statement.parse(said.text) == said
    for_a_log = dataclasses.replace(said, log="ledger.example/countersign")
    assert Statement.parse(for_a_log.text) == for_a_log
    assert for_a_log.text == said.text.replace("/v1\n", "/v2\nlog ledger.example/countersign\n")
    # Neither version with the other's lines, and no name of a log with a line of its own.
    assert Statement.parse(for_a_log.text.replace("/v2", "/v1")) is None
    assert Statement.parse(said.text.replace("/v1", "/v2")) is None
    assert Statement.parse(dataclasses.replace(said, log="a\nowner X").text) is None
    for other in ("serial 07", "serial 0", "serial -1", "serial 9999999999999999999"):
        assert Statement.parse(said.text.replace("serial 7", other)) is None
    assert Statement.parse(said.text + "more\n") is None


@pytest.mark.promise(5)
def test_a_commitment_is_that_of_its_contract() -> None:
    """HMAC-SHA256 over the canonical JSON of officer, agency and standing; its bytes must never change."""
    (one,) = commit(SECRET, LAPD, {"lapd-1": Standing(active=True, lists=("list-b", "list-a"))})
    said = (
        '{"active":true,"agency":"CA0194200","certificates":{},"certificates_issued":{},'
        '"lists":["list-a","list-b"],"officer":"lapd-1"}'
    )
    assert one.said.canonical == said
    assert one.commitment == commit_to("standing", one.salt, said)
    assert opened(one.opening) == one


@pytest.mark.promise(5)
def test_who_guesses_an_officer_cannot_tell_without_the_secret() -> None:
    officers = {"lapd-1": Standing(active=True)}
    ours, theirs = commit(SECRET, LAPD, officers), commit(b"\1" * 32, LAPD, officers)
    assert ours[0].commitment != theirs[0].commitment
    assert ours == commit(SECRET, LAPD, officers)


def test_an_opening_is_strict() -> None:
    (one,) = commit(SECRET, LAPD, {"lapd-1": Standing(active=True)})
    for text in ("", "{}", one.opening.replace("true", "1"), one.opening.replace('"l', '"x":1,"l')):
        with pytest.raises(RegistryRefused, match="OPENING"):
            opened(text)


def test_the_digest_of_commitments_is_that_of_its_contract() -> None:
    """Worked out here from the words of event.proto."""
    all_of = [
        commit(SECRET, LAPD, {f"o-{n}": Standing(active=True)})[0].commitment for n in range(9)
    ]
    digest = hashlib.sha256(b"countersign/officers/v1\0")
    for first in range(256):
        group = sorted(one for one in all_of if one[0] == first)
        digest.update(hashlib.sha256(b"".join(group)).digest())
    assert Commitments().changed((), all_of).sha256 == digest.digest()


def test_the_digest_of_commitments_follows_from_the_set_alone() -> None:
    all_of = [bytes([number % 256]) + bytes([number // 256]) * 31 for number in range(600)]
    at_once = Commitments().changed((), all_of)
    step = Commitments()
    for one in reversed(all_of):
        step = step.changed((), [one])
    assert step.sha256 == at_once.sha256
    assert (len(step), set(step)) == (600, set(all_of))
    assert (
        at_once.changed(all_of[:300], ()).changed(all_of[300:], ()).sha256 == Commitments().sha256
    )
    assert all_of[0] in at_once
    assert b"\1" * 32 not in Commitments()
