"""The file-based key provider: what it wraps it gives back, and what it refuses to work with."""

from pathlib import Path

import pytest

from ledger.key_provider import FileKeyProvider
from ledger.key_store import SqliteKeyStore
from shared.errors import NotReady


def test_key_comes_back_for_the_same_binding_only(tmp_path: Path) -> None:
    provider = FileKeyProvider.create(tmp_path / "keys")
    wrapped = provider.wrap(bytes(32), b"here")
    assert bytes(32) not in wrapped.sealed
    assert provider.unwrap(wrapped, b"here") == bytes(32)
    with pytest.raises(NotReady, match="damaged, or was wrapped by another key"):
        provider.unwrap(wrapped, b"there")


def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    FileKeyProvider.create(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "v1.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("exposed", ["keys", "keys/v1.key"])
def test_exposed_keys_are_refused(tmp_path: Path, exposed: str) -> None:
    FileKeyProvider.create(tmp_path / "keys")
    (tmp_path / exposed).chmod(0o750)
    with pytest.raises(NotReady, match="chmod go=") as refused:
        FileKeyProvider(tmp_path / "keys")
    assert refused.value.reason == "OPENING_KEYS_EXPOSED"


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "00" * 33])
def test_damaged_key_is_refused(tmp_path: Path, content: str) -> None:
    FileKeyProvider.create(tmp_path / "keys")
    (tmp_path / "keys" / "v1.key").write_text(content)
    with pytest.raises(NotReady, match="does not hold 32 bytes"):
        FileKeyProvider(tmp_path / "keys")


def test_missing_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady):
        FileKeyProvider(tmp_path / "keys")
    (tmp_path / "keys").mkdir(mode=0o700)
    with pytest.raises(NotReady, match="holds no key"):
        FileKeyProvider(tmp_path / "keys")
    with pytest.raises(NotReady, match="restore it"):
        SqliteKeyStore.open(tmp_path / "store", create=False)


def test_older_version_unwraps_until_it_is_destroyed(tmp_path: Path) -> None:
    provider = FileKeyProvider.create(tmp_path / "keys")
    wrapped = provider.wrap(bytes(32), b"here")
    assert provider.rotate() == 2
    assert (provider.version, provider.versions()) == (2, [1, 2])
    assert provider.unwrap(wrapped, b"here") == bytes(32)
    provider.destroy(1)
    assert provider.versions() == [2]
    with pytest.raises(NotReady, match="version 1"):
        provider.unwrap(wrapped, b"here")


def test_version_that_another_process_began_is_found(tmp_path: Path) -> None:
    provider = FileKeyProvider.create(tmp_path / "keys")
    other = FileKeyProvider(tmp_path / "keys")
    other.rotate()
    assert provider.unwrap(other.wrap(bytes(32), b"here"), b"here") == bytes(32)


def test_key_is_made_once(tmp_path: Path) -> None:
    FileKeyProvider.create(tmp_path / "keys")
    before = (tmp_path / "keys" / "v1.key").read_bytes()
    FileKeyProvider.create(tmp_path / "keys")
    assert (tmp_path / "keys" / "v1.key").read_bytes() == before
