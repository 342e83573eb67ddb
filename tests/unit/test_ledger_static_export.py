"""The log as files: the same bytes as over HTTP, taken up where it ended, and never over another history."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.sqlite_reading import SqliteReading
from ledger.static_export import Exported, StaticExport, exporting, names_between
from ledger.tile_files import TileFiles, TileReader
from ledger.tree import load_published
from shared.errors import NotReady
from support.exports import export_of
from support.filled_logs import entries_of, filled_log, grow
from support.ledgers import SIGNER
from support.tile_servers import tile_server
from support.waiting import until
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.tiles import tiles_of
from tlog.verify import verify_export


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[str, TileFiles]]:
    with contextlib.closing(SqliteReading.open(path)) as reading:
        published = load_published(reading, [SIGNER.verifier])
        yield published.note, TileFiles(reading, lambda: published)


def export(path: Path, folder: Path, *, recheck: bool = False) -> Exported:
    with opened(path) as (note, files):
        exported = StaticExport(folder, [SIGNER.verifier]).bring_up_to(note, files, recheck=recheck)
    assert exported is not None
    return exported


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def verified_size(folder: Path) -> int:
    """As a reader does it who comes in the middle of a pass: the checkpoint first."""

    def read(name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (folder / name).read_bytes()
        return None

    return verify_export(read, SIGNER.verifier).checkpoint.size


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700])
async def test_files_http_and_the_format_agree_to_the_byte(tmp_path: Path, size: int) -> None:
    path = filled_log(tmp_path, size)
    folder = tmp_path / "export"
    exported = export(path, folder)
    expected = export_of(entries_of(size), SIGNER)
    assert contents(folder) == expected
    assert exported.written == len(expected) - 1
    async with tile_server(path) as server:
        for name, content in expected.items():
            assert (await server.get(f"/{name}")).body == content, name
    assert verified_size(folder) == size


def test_a_pass_writes_only_what_is_new(tmp_path: Path) -> None:
    entries = entries_of(1100)
    path, folder = filled_log(tmp_path, 200), tmp_path / "export"
    export(path, folder)
    assert export(path, folder).written == 0
    before = 200
    for size in (255, 256, 257, 600, 1100):
        grow(path, entries[before:size])
        exported = export(path, folder)
        assert exported.written == len(list(names_between(before, size)))
        assert verified_size(folder) == exported.checkpoint.size == size
        before = size
    # Partial tiles stay for readers of an older checkpoint until the full one is there.
    assert sorted((folder / "tile" / "1" / "000.p").iterdir()) != []
    assert not (folder / "tile" / "0" / "000.p").exists()
    assert not (folder / "tile" / "entries" / "000.p").exists()


def test_names_between_are_those_that_the_older_tree_lacks() -> None:
    for start in (0, 1, 255, 256, 257, 65_535, 65_536, 70_000):
        for size in (start, start + 1, start + 256, 65_537 + start):
            older = set(tiles_of(start))
            assert set(names_between(start, size)) == set(tiles_of(size)) - older


def test_an_interrupted_pass_is_taken_up(tmp_path: Path) -> None:
    path, folder = filled_log(tmp_path, 700), tmp_path / "export"
    with opened(path) as (note, files):
        stopped = StaticExport(folder, [SIGNER.verifier])
        stopped.stopped.set()
        assert stopped.bring_up_to(note, files) is None
    assert not (folder / "checkpoint").exists()
    # As a crash leaves it: some files whole, one torn, one that was never renamed.
    some = export_of(entries_of(700), SIGNER)
    (folder / "tile" / "entries").mkdir(parents=True)
    (folder / "tile" / "entries" / "000").write_bytes(some["tile/entries/000"])
    (folder / "tile" / "entries" / "001").write_bytes(bytes(100))
    (folder / "tile" / "entries" / ".002.new").write_bytes(b"half")
    assert export(path, folder).written == len(some) - 2
    assert verified_size(folder) == 700


def test_recheck_mends_what_was_damaged(tmp_path: Path) -> None:
    path, folder = filled_log(tmp_path, 700), tmp_path / "export"
    export(path, folder)
    torn = folder / "tile" / "0" / "000"
    torn.write_bytes(bytes(8192))
    (folder / "tile" / "entries" / "001").unlink()
    assert export(path, folder).written == 0
    assert export(path, folder, recheck=True).written == 2
    assert verified_size(folder) == 700


@pytest.mark.parametrize(
    ("lies_there", "said"),
    [
        (lambda folder: (folder / "letters").mkdir(), "something that is not an export"),
        (lambda folder: (folder / "checkpoint").write_text("torn"), "not a checkpoint of this log"),
        (
            lambda folder: (folder / "checkpoint").write_bytes(
                export_of(entries_of(701), SIGNER)["checkpoint"]
            ),
            "has 701 entries, and the ledger 700",
        ),
        (
            lambda folder: (folder / "checkpoint").write_text(
                sign_checkpoint(Checkpoint(SIGNER.verifier.name, 300, bytes(32)), SIGNER)
            ),
            "one of the two is another history",
        ),
    ],
)
def test_another_history_is_left_as_it_is(
    tmp_path: Path, lies_there: Callable[[Path], object], said: str
) -> None:
    path, folder = filled_log(tmp_path, 700), tmp_path / "export"
    folder.mkdir()
    lies_there(folder)
    before = contents(folder)
    with pytest.raises(NotReady) as refused:
        export(path, folder)
    assert refused.value.reason == "EXPORT_REFUSED"
    assert said in refused.value.message
    assert contents(folder) == before


async def reached(folder: Path, size: int) -> bool:
    return (folder / "checkpoint").exists() and verified_size(folder) == size


async def test_the_folder_follows_the_log(tmp_path: Path) -> None:
    """In the background, also after a turn at which it could not write."""
    path, folder = filled_log(tmp_path, 10), tmp_path / "export"
    folder.write_text("a file where the folder is to be")
    with contextlib.closing(SqliteReading.open(path)) as reading:
        published = [load_published(reading, [SIGNER.verifier])]
        reader = TileReader(SqliteReading.open(path), lambda: published[-1])
        one = StaticExport(folder, [SIGNER.verifier])
        asked = asyncio.Event()

        def note() -> str:
            asked.set()
            return published[-1].note

        with contextlib.closing(reader):
            async with exporting(one, reader, note, 0.01):
                await asked.wait()
                folder.unlink()

                await until(lambda: reached(folder, 10))
                grow(path, entries_of(300)[10:])
                published.append(load_published(reading, [SIGNER.verifier]))

                await until(lambda: reached(folder, 300))
