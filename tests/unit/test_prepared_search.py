"""What opens an answer is kept by the requester alone, whole, and can be read again."""

import json
import stat
from pathlib import Path

import pytest

from countersign.client.calls import officer_of
from countersign.client.prepare import (
    NotPrepared,
    PreparedSearch,
    ProbeRefused,
    prepare,
    seal_search,
)
from shared.errors import NotAuthentic
from shared.sealing import PrivateKey, probe_info
from shared.signing import SigningKey
from support.orders import SEARCH_ID, SYSTEM, facts
from support.searches import SearchWorkshop


@pytest.fixture
def prepared() -> PreparedSearch:
    return seal_search(facts(), b"a probe", PrivateKey.generate().public_key)


def test_kept_search_is_read_again_as_it_was(tmp_path: Path, prepared: PreparedSearch) -> None:
    path = prepared.save(tmp_path / "state")
    kept = PreparedSearch.load(tmp_path / "state", SEARCH_ID)
    assert kept.request("a token") == prepared.request("a token")
    assert kept.answer_key.pem() == prepared.answer_key.pem()
    assert path.name == f"{SEARCH_ID}.json"


def test_only_the_owner_can_read_it(tmp_path: Path, prepared: PreparedSearch) -> None:
    path = prepared.save(tmp_path / "state")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_file_that_was_open_to_all_is_closed(tmp_path: Path, prepared: PreparedSearch) -> None:
    path = tmp_path / f"{SEARCH_ID}.json"
    path.write_text("{}")
    path.chmod(0o644)
    assert prepared.save(tmp_path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_saving_that_fails_leaves_what_was_kept(tmp_path: Path, prepared: PreparedSearch) -> None:
    (tmp_path / f"{SEARCH_ID}.json").mkdir()
    with pytest.raises(OSError, match=SEARCH_ID):
        prepared.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [f"{SEARCH_ID}.json"]


def _with(prepared: PreparedSearch, folder: Path, **changes: object) -> None:
    path = prepared.save(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("facts", {"searchId": 7}),
        ("facts", {"colour": "blue"}),
        ("facts", None),
        ("sealed_probe", {"ciphertext": 7}),
        ("answer_key", "no key"),
        ("answer_key", 7),
        ("answer_key", SigningKey.generate().pem().decode()),
        ("salt", "?"),
        ("salt", None),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else None,
)
def test_kept_search_that_is_damaged_is_not_read(
    tmp_path: Path, prepared: PreparedSearch, field: str, value: object
) -> None:
    _with(prepared, tmp_path, **{field: value})
    with pytest.raises(NotPrepared):
        PreparedSearch.load(tmp_path, SEARCH_ID)


@pytest.mark.parametrize("content", ["", "[]", "7", "\0"])
def test_file_that_is_no_kept_search_is_not_read(tmp_path: Path, content: str) -> None:
    (tmp_path / f"{SEARCH_ID}.json").write_text(content)
    with pytest.raises(NotPrepared):
        PreparedSearch.load(tmp_path, SEARCH_ID)
    with pytest.raises(NotPrepared):
        PreparedSearch.load(tmp_path / "absent", SEARCH_ID)


def test_probe_is_sealed_to_the_connector_for_this_search() -> None:
    connector = PrivateKey.generate()
    sealed = seal_search(facts(), b"a probe", connector.public_key).sealed_probe
    assert connector.open(sealed, probe_info(SEARCH_ID, SYSTEM)) == b"a probe"


def test_each_search_has_a_key_and_a_salt_of_its_own() -> None:
    key = PrivateKey.generate().public_key
    one, two = (seal_search(facts(), b"a probe", key) for _ in range(2))
    assert one.salt != two.salt
    assert one.answer_key.public_key != two.answer_key.public_key


def test_what_is_no_picture_or_for_an_unknown_system_is_not_sealed() -> None:
    trust = SearchWorkshop().trust
    with pytest.raises(ProbeRefused):
        prepare(facts(), b"no picture", trust)
    elsewhere = facts()
    elsewhere.system = "unheard-of"
    with pytest.raises(ProbeRefused, match=r"unheard-of.*countersign system list"):
        prepare(elsewhere, b"no picture", trust)


@pytest.mark.parametrize(
    ("token", "said"),
    [("", "no JWT"), ("a.b.c", "no JWT"), ("eyJhbGciOiJub25lIn0.e30.", "lacks the claim sub")],
)
def test_token_that_names_nobody(token: str, said: str) -> None:
    with pytest.raises(NotAuthentic, match=said):
        officer_of(token)
