"""The vocabulary is its owner's only with the owner's signature over every version of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from directive import vocabulary_signature
from directive.vocabulary import Vocabulary, VocabularyError
from directive.vocabulary_signature import SIGNATURE_FILE
from shared.signing import SigningKey
from support.directives import DIRECTIVES

KEY = SigningKey.generate()
OWNER = KEY.note_signer("operator.example/vocabulary")
STRANGER = SigningKey.generate().note_signer("operator.example/vocabulary")


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """The shipped vocabulary with its earlier version, signed."""
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    for path in DIRECTIVES.glob("*.cedarschema"):
        shutil.copy(path, folder)
    (folder / SIGNATURE_FILE).write_text(vocabulary_signature.sign(Vocabulary.load(folder), OWNER))
    return folder


def test_a_vocabulary_that_its_owner_signed_is_loaded(folder: Path) -> None:
    assert vocabulary_signature.load(folder, (OWNER.vkey,)).version == "2"


def test_where_nobody_is_asked_no_signature_is_needed(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()
    assert vocabulary_signature.load(folder, ()).version == "2"


def leave_it_unsigned(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()


def sign_as_a_stranger(folder: Path) -> None:
    note = vocabulary_signature.sign(Vocabulary.load(folder), STRANGER)
    (folder / SIGNATURE_FILE).write_text(note)


def change_a_comment(folder: Path) -> None:
    path = folder / "vocabulary.cedarschema"
    path.write_text(path.read_text() + "// a remark\n")


def take_an_earlier_version_away(folder: Path) -> None:
    (folder / "vocabulary-1.cedarschema").unlink()


def put_something_else_there(folder: Path) -> None:
    (folder / SIGNATURE_FILE).write_text("signed by everybody\n")


ATTACKS = [
    leave_it_unsigned,
    sign_as_a_stranger,
    change_a_comment,
    take_an_earlier_version_away,
    put_something_else_there,
]


@pytest.mark.promise(3)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_a_vocabulary_that_its_owner_did_not_sign(
    folder: Path, attack: Callable[[Path], None]
) -> None:
    attack(folder)
    with pytest.raises(VocabularyError, match=SIGNATURE_FILE):
        vocabulary_signature.load(folder, (OWNER.vkey,))


def test_who_has_signed_is_named_and_what_to_do(folder: Path) -> None:
    sign_as_a_stranger(folder)
    with pytest.raises(
        VocabularyError, match=r"signed by .*: sign .* enter its verifier key"
    ) as no:
        vocabulary_signature.load(folder, (OWNER.vkey,))
    assert "vocabulary_signers" in str(no.value)


def test_a_key_that_is_none_is_named(folder: Path) -> None:
    with pytest.raises(VocabularyError, match="vocabulary_signers"):
        vocabulary_signature.load(folder, ("nonsense",))


def test_it_is_signed_and_checked_by_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, trust = tmp_path / "key.pem", tmp_path / "trust-roots.json"
    key.write_bytes(KEY.pem())
    (folder / SIGNATURE_FILE).unlink()
    arguments = ["vocabulary", "sign", str(folder), "--key", str(key), "--name", OWNER.name]
    assert exit_code([*arguments, "--json"]) == 0
    vkey = json.loads(capsys.readouterr().out)["verifier_key"]
    trust.write_text(
        json.dumps(
            {
                "log_verifier_keys": [vkey],
                "broker_verify_keys": ["A" * 43 + "="],
                "vocabulary_signers": [vkey],
            }
        )
    )
    check = ["vocabulary", "check", str(folder), "--trust-roots", str(trust)]
    assert exit_code(check) == 0
    change_a_comment(folder)
    assert exit_code(check) == 1
