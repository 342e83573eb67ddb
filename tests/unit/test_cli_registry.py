"""`countersign registry`, as an administrator calls it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from countersign.cli.main import exit_code
from registry import document, publication, signature
from registry.orders import SignedOrder
from shared.signing import SigningKey
from support.directives import DIRECTIVES
from support.registrations import LAPD, LASD, gallery

NAME = "pd.example/registry"
LOG = "ledger.example/countersign"


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(SigningKey.generate().pem())
    return file


def begun(folder: Path, key: Path, owner: str = LAPD, *more: str) -> Path:
    """As its owner has it who has written its name down."""
    arguments = ["registry", "init", str(folder), "--owner", owner]
    assert exit_code([*arguments, "--key", str(key), "--name", NAME, *more]) == 0
    file = folder / "agency.toml"
    file.write_text(file.read_text().replace('"Our name"', '"Our Police Department"'))
    return folder


def sign(folder: Path, key: Path, *more: str) -> int:
    return exit_code(
        ["registry", "sign", str(folder), "--key", str(key), "--name", NAME, "--log", LOG, *more]
    )


def from_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    exit_code(["registry", *arguments, "--json"])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


@pytest.mark.parametrize("owner", [LAPD, "US-CA"])
def test_a_document_that_was_just_begun_can_be_signed(
    tmp_path: Path, key: Path, owner: str
) -> None:
    folder = begun(tmp_path / "ours", key, owner)
    assert exit_code(["registry", "lint", str(folder)]) == 0
    assert exit_code(["registry", "show", str(folder)]) == 1, "not signed yet"
    assert sign(folder, key) == 0
    assert exit_code(["registry", "show", str(folder)]) == 0


def test_the_name_that_a_document_begins_with_is_none(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ours"
    begin = ["registry", "init", str(folder), "--owner", LAPD, "--key", str(key), "--name", NAME]
    assert exit_code(begin) == 0
    (found,) = from_json(capsys, "lint", str(folder))["findings"]
    assert (found["guard"], found["about"]) == ("NAME_NOT_GIVEN", "agency.name")
    lines = (folder / "agency.toml").read_text().splitlines()
    assert lines[found["line"] - 1] == 'name = "Our name"'
    assert sign(folder, key) == 1
    assert not (folder / "registry.sig").exists()


def test_the_state_of_an_agency_is_that_of_its_ori(tmp_path: Path, key: Path) -> None:
    """Whose statutes bind it cannot be changed once it is published."""
    for owner, state in ((LAPD, "US-CA"), ("MD0172100", "US-MD")):
        agency = document.read(begun(tmp_path / owner, key, owner)).public.agency
        assert agency is not None
        assert agency.jurisdiction == state


def test_what_is_private_is_for_its_owner_alone(tmp_path: Path, key: Path) -> None:
    folder = begun(tmp_path / "ours", key)
    for file in ("officers.toml", "officers.secret"):
        assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600


def test_a_registry_file_is_taken_over(tmp_path: Path, key: Path) -> None:
    file = ("--from", str(DIRECTIVES / "demo-registry.toml"))
    ours = begun(tmp_path / "lapd", key, LAPD, *file)
    theirs = begun(tmp_path / "lasd", key, LASD, *file)
    state = begun(tmp_path / "california", key, "US-CA", *file)
    read = document.read(ours)
    assert read.officers["lapd-40123"].lists == ("lapd-fr-users",)
    assert len(read.officers) == 4
    assert document.read(theirs).public.galleries["lacris-booking"].system == "lacris"
    assert set(document.read(state).public.oversight) == {"police-commission"}
    assert exit_code(["registry", "lint", str(ours), str(theirs), str(state)]) == 0


def test_each_signature_has_the_next_serial_number(tmp_path: Path, key: Path) -> None:
    folder = begun(tmp_path / "ours", key)
    for serial in (1, 2):
        assert sign(folder, key) == 0
        said = signature.read_statement(folder)
        assert said is not None
        assert said.serial == serial
    assert sign(folder, key, "--serial", "2") == 2
    assert sign(folder, key, "--serial", "9") == 0
    keys = signature.parse_keys(document.read(folder).public.keys.registry)
    assert publication.load(folder, keys).statement.serial == 9


def test_what_is_wrong_is_not_signed(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(tmp_path / "ours", key)
    with (folder / "agency.toml").open("a") as file:
        file.write(gallery("ours", "theirs"))
    said = from_json(capsys, "sign", str(folder), "--key", str(key), "--name", NAME, "--log", LOG)
    assert [one["guard"] for one in said["findings"]] == ["SYSTEM_UNKNOWN"]
    assert not (folder / "registry.sig").exists()
    other = begun(tmp_path / "theirs", key, LASD)
    with (other / "agency.toml").open("a") as file:
        file.write('[systems.theirs]\nname = "Theirs"\ncommercial = false\n')
    assert sign(folder, key, "--beside", str(other)) == 0


def test_names_that_two_owners_have_are_found(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [begun(tmp_path / "a", key), begun(tmp_path / "b", key, LASD)]
    for folder in folders:
        with (folder / "agency.toml").open("a") as file:
            file.write('[systems.one]\nname = "One"\ncommercial = false\n')
        with (folder / "officers.toml").open("a") as file:
            file.write("[officers.x-1]\nactive = true\n")
    said = from_json(capsys, "lint", *map(str, folders))
    abouts = [(one["guard"], one["about"]) for one in said["findings"]]
    assert abouts == [("NAME_TAKEN", "systems.one"), ("NAME_TAKEN", "officers.x-1")]


def test_a_lost_secret_is_made_anew_when_it_is_asked_for(tmp_path: Path, key: Path) -> None:
    folder = begun(tmp_path / "ours", key)
    with (folder / "officers.toml").open("a") as file:
        file.write("[officers.x-1]\nactive = true\n")
    before = (folder / "officers.secret").read_text()
    (folder / "officers.secret").unlink()
    assert sign(folder, key) == 1
    assert sign(folder, key, "--new-secret") == 0
    assert (folder / "officers.secret").read_text() != before


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, key: Path) -> None:
    folder = begun(tmp_path / "ours", key)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = ["registry", "init", str(folder), "--owner", LAPD, "--key", str(key)]
    assert exit_code([*arguments, "--name", NAME]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert exit_code([*arguments[:2], str(tmp_path / "x"), *arguments[3:4], "lapd"]) == 2


def test_versions_are_compared_officer_by_officer(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ("--from", str(DIRECTIVES / "demo-registry.toml"))
    old, new = (begun(tmp_path / name, key, LAPD, *file) for name in ("old", "new"))
    text = (new / "officers.toml").read_text()
    (new / "officers.toml").write_text(text.replace("active = true", "active = false", 1))
    said = from_json(capsys, "diff", str(old), str(new))
    assert said["changes"] == [
        {"what": "officers.lapd-40123.active", "old": "true", "new": "false"}
    ]
    assert exit_code(["registry", "diff", str(old), str(old)]) == 0
    assert exit_code(["registry", "diff", str(old), str(new)]) == 0


def test_what_is_shown_of_a_damaged_document_says_what_is_wrong(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(tmp_path / "ours", key)
    assert sign(folder, key) == 0
    assert from_json(capsys, "show", str(folder))["problem"] == ""
    with (folder / "agency.toml").open("a") as file:
        file.write("# a remark\n")
    said = from_json(capsys, "show", str(folder))
    assert "signs something else: agency.toml" in said["problem"]
    (folder / "agency.toml").write_text("owner")
    assert [one["guard"] for one in from_json(capsys, "show", str(folder))["findings"]] == [
        "DOCUMENT"
    ]


def registrar(folder: Path, number: int) -> tuple[str, ...]:
    file = folder / f"registrar-{number}.pem"
    file.write_bytes(SigningKey.generate().pem())
    return "--key", str(file), "--name", f"registrar-{number}.example"


def test_registrars_sign_an_order_one_after_the_other(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = registrar(tmp_path, 1), registrar(tmp_path, 2)
    new = SigningKey.load(key).note_signer(NAME).vkey
    file = tmp_path / "order.note"
    why = ("--log", LOG, "--authority", "Order 26-17", "--reason", "Lost", "--output", str(file))
    said = from_json(capsys, "recover", LAPD, "--new-key", new, *why, *first)
    assert said["signed_by"] == ["registrar-1.example"]
    assert f"\nkey {new}\n" in said["text"]
    signed_by = from_json(capsys, "cosign", str(file), *second)["signed_by"]
    assert signed_by == ["registrar-1.example", "registrar-2.example"]
    before = file.read_bytes()
    assert exit_code(["registry", "cosign", str(file), *second]) == 1
    assert "SIGNED_TWICE" in capsys.readouterr().err
    assert file.read_bytes() == before
    follows = ("--follows", f"sha256:{said['sha256']}", "--before", "2099-01-01")
    assert exit_code(["registry", "expel", LAPD, *why, *first, *follows]) == 0
    assert "2099-01-01" in capsys.readouterr().out
    order = SignedOrder.parse(file.read_bytes()).order
    assert (order.action, order.follows) == ("expel", bytes.fromhex(said["sha256"]))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("--reason", "two\nlines"), 1),
        (("--before", "tomorrow"), 2),
        (("--follows", "x"), 2),
        (("--follows", "abcd"), 1),
    ],
)
def test_an_order_that_could_not_count_is_not_signed(
    tmp_path: Path, wrong: tuple[str, ...], code: int
) -> None:
    file = tmp_path / "order.note"
    why = ("--log", LOG, "--authority", "Order 26-17", "--reason", "Lost", "--output", str(file))
    given = ["registry", "expel", LAPD, *why, *registrar(tmp_path, 1), *wrong]
    assert exit_code(given) == code
    assert not file.exists()
