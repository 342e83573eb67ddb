"""Verifying an exported log: what is whole verifies, and each change is named by its place."""

import pytest

from support.exports import export_of
from tlog.errors import TlogError
from tlog.merkle import leaf_hash
from tlog.note import Signer
from tlog.tiles import decode_bundle, encode_bundle
from tlog.verify import verify_export

SIGNER = Signer.from_seed("ledger.example/exchange", bytes(range(32)))
ENTRIES = [f"entry {i}".encode() for i in range(700)]


@pytest.fixture(name="export")
def _export() -> dict[str, bytes]:
    return export_of(ENTRIES, SIGNER)


def verify(export: dict[str, bytes]) -> int:
    return verify_export(export.get, SIGNER.verifier).checkpoint.size


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 700])
def test_whole_export_verifies(size: int) -> None:
    assert verify(export_of(ENTRIES[:size], SIGNER)) == size


def test_progress_ends_at_the_size(export: dict[str, bytes]) -> None:
    told: list[tuple[int, int]] = []
    verify_export(export.get, SIGNER.verifier, lambda done, of: told.append((done, of)))
    assert told == [(256, 700), (512, 700), (700, 700)]


def test_full_tile_stands_in_for_the_partial_one(export: dict[str, bytes]) -> None:
    """The log has grown since: the partial bundle of the old checkpoint is gone."""
    grown = export_of([f"entry {i}".encode() for i in range(768)], SIGNER)
    grown["checkpoint"] = export["checkpoint"]
    grown["tile/1/000.p/2"] = export["tile/1/000.p/2"]
    assert verify(grown) == 700


@pytest.mark.promise(4)
def test_every_changed_byte_of_every_file_is_found() -> None:
    export = export_of(ENTRIES[:257], SIGNER)
    for path, content in export.items():
        for at in range(0, len(content), 97):
            changed = bytearray(content)
            changed[at] ^= 1
            with pytest.raises(TlogError):
                verify(export | {path: bytes(changed)})


def test_changed_entry_is_named(export: dict[str, bytes]) -> None:
    path = "tile/entries/001"
    export[path] = export[path].replace(b"entry 300", b"entry 3OO")
    with pytest.raises(TlogError, match=r"^tile/entries/001: entry 300 was changed"):
        verify(export)


def test_changed_hash_is_named(export: dict[str, bytes]) -> None:
    tile = bytearray(export["tile/0/001"])
    tile[44 * 32] ^= 1
    export["tile/0/001"] = bytes(tile)
    with pytest.raises(TlogError, match=r"^tile/0/001: the hash of entry 300 was changed"):
        verify(export)


def test_entry_changed_together_with_its_hash_is_found(export: dict[str, bytes]) -> None:
    """An operator who rewrites an entry and its tile still lacks a signature over it."""
    entries = decode_bundle(export["tile/entries/001"])
    entries[44] = b"forged"
    export["tile/entries/001"] = encode_bundle(entries)
    tile = bytearray(export["tile/0/001"])
    tile[44 * 32 : 45 * 32] = leaf_hash(b"forged")
    export["tile/0/001"] = bytes(tile)
    with pytest.raises(TlogError, match="not the ones whose root was signed"):
        verify(export)


def test_two_changes_are_told_as_such(export: dict[str, bytes]) -> None:
    export["tile/entries/001"] = export["tile/entries/001"].replace(b"entry 300", b"entry 3OO")
    tile = bytearray(export["tile/0/000"])
    tile[0] ^= 1
    export["tile/0/000"] = bytes(tile)
    with pytest.raises(TlogError, match=r"entry 0 was changed.*; the level-0 tiles"):
        verify(export)


def test_changed_upper_tile_is_named(export: dict[str, bytes]) -> None:
    tile = bytearray(export["tile/1/000.p/2"])
    tile[32] ^= 1
    export["tile/1/000.p/2"] = bytes(tile)
    with pytest.raises(TlogError, match=r"^tile/1/000\.p/2: hash 1 is not the root"):
        verify(export)


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/entries/001", "tile/0/002.p/188", "tile/1/000.p/2"]
)
def test_missing_file_is_named(export: dict[str, bytes], path: str) -> None:
    del export[path]
    with pytest.raises(TlogError, match=f"^{path}: the file is missing"):
        verify(export)


@pytest.mark.parametrize("path", ["tile/entries/001", "tile/0/001"])
def test_dropped_entry_is_named(export: dict[str, bytes], path: str) -> None:
    export[path] = export[path][:32] if path == "tile/0/001" else export[path][:11]
    with pytest.raises(TlogError, match=f"^{path}: holds 1 of 256"):
        verify(export)


def test_truncated_file_is_named(export: dict[str, bytes]) -> None:
    export["tile/entries/001"] = export["tile/entries/001"][:-1]
    with pytest.raises(TlogError, match=r"^tile/entries/001: the bundle ends within entry 255"):
        verify(export)


def test_checkpoint_of_another_log_is_refused(export: dict[str, bytes]) -> None:
    stranger = Signer.from_seed("ledger.example/exchange", bytes(32)).verifier
    with pytest.raises(TlogError, match=r"^checkpoint: no known key signed"):
        verify_export(export.get, stranger)
