"""The record of the last signature: compare-and-swap in a real file that crashes and flips may meet."""

from pathlib import Path

import pytest

from ledger.last_signed import (
    SLOT_BYTES,
    FileLastSigned,
    RecordDamaged,
    Signed,
    SigningRefused,
)

ORIGIN = "ledger.example/countersign"


def record(size: int) -> Signed:
    peaks = tuple(bytes([size, n]) * 16 for n in range(size.bit_count()))
    return Signed(ORIGIN, size, bytes([size]) * 32, 1_000_000 * size, peaks)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """A file with a history of four records."""
    path = tmp_path / "elsewhere" / "last-signed"
    store = FileLastSigned.open(path)
    assert store.read() is None
    before = None
    for size in range(4):
        store.swap(before, record(size))
        before = record(size)
    store.close()
    return path


def reopened(path: Path) -> Signed | None:
    store = FileLastSigned.open(path)
    try:
        return store.read()
    finally:
        store.close()


def test_the_last_record_is_there_after_a_restart(path: Path) -> None:
    assert reopened(path) == record(3)


def test_record_survives_its_encoding() -> None:
    full = Signed(
        ORIGIN, 2**63 - 1, bytes(range(32)), 2**60, (b"\xff" * 32,) * 63, ("key",), "it ended"
    )
    assert Signed.decode(full.encoded) == full
    assert len(full.encoded) < SLOT_BYTES - 100


def test_swap_names_what_it_replaces(path: Path) -> None:
    store = FileLastSigned.open(path)
    for wrong in (None, record(2), record(4)):
        with pytest.raises(SigningRefused) as refused:
            store.swap(wrong, record(5))
        assert refused.value.reason == "SIGNED_ELSEWHERE"
    assert store.read() == record(3)
    store.swap(record(3), record(5))
    assert store.read() == record(5)
    store.close()


def test_of_two_processes_one_gets_the_file(path: Path) -> None:
    first = FileLastSigned.open(path)
    with pytest.raises(SigningRefused) as refused:
        FileLastSigned.open(path)
    assert refused.value.reason == "LAST_SIGNED_LOCKED"
    first.close()
    FileLastSigned.open(path).close()


def test_of_two_that_share_the_file_one_swaps(path: Path) -> None:
    first, second = (FileLastSigned.open(path, alone=False) for _ in range(2))
    first.swap(record(3), record(4))
    with pytest.raises(SigningRefused, match="4 entries were signed for last"):
        second.swap(record(3), record(5))
    assert second.read() == record(4)
    first.close()
    second.close()


def test_only_this_user_reads_it(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("at", [0, 9, 20, 60, 200, SLOT_BYTES, SLOT_BYTES + 9, SLOT_BYTES + 100])
def test_flipped_bit_is_never_taken_for_an_older_record(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordDamaged):
        reopened(path)


@pytest.mark.parametrize("size", [0, 1, SLOT_BYTES, 2 * SLOT_BYTES - 1, 2 * SLOT_BYTES + 1])
def test_file_of_another_length_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes().ljust(size, b"x")[:size])
    with pytest.raises(RecordDamaged):
        reopened(path)


@pytest.mark.parametrize("slot", [0, 1])
def test_record_that_was_wiped_is_missed(path: Path, slot: int) -> None:
    content = bytearray(path.read_bytes())
    content[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES] = bytes(SLOT_BYTES)
    path.write_bytes(content)
    with pytest.raises(RecordDamaged):
        reopened(path)


def test_half_written_record_leaves_the_one_before(path: Path) -> None:
    """Record 4 lies in the first slot (the fourth to be written is of size 3)."""
    content = bytearray(path.read_bytes())
    content[300:SLOT_BYTES] = bytes(SLOT_BYTES - 300)
    content[100] ^= 1
    path.write_bytes(content)
    store = FileLastSigned.open(path)
    with pytest.raises(RecordDamaged) as damaged:
        store.read()
    assert damaged.value.survivor == record(2)
    # Whoever knows that this was the last one goes on from it.
    store.swap(record(2), record(6))
    assert store.read() == record(6)
    store.close()


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SigningRefused) as refused:
        FileLastSigned.open(tmp_path / "file" / "last-signed")
    assert refused.value.reason == "LAST_SIGNED_UNUSABLE"


@pytest.mark.parametrize("at", [100, SLOT_BYTES + 100])
def test_record_that_changed_since_it_was_read_is_read_again(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    store = FileLastSigned.open(path)
    assert store.read() == record(3)
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordDamaged):
        store.read()
    content[at] ^= 1
    path.write_bytes(content)
    assert store.read() == record(3)
    store.close()
