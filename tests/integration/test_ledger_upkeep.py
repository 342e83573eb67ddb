"""Backup, restore and the record of the last signature by the commands of the program, on real files."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RESTORE_CAUSE_ADOPTED, RESTORE_CAUSE_BACKUP
from ledger.__main__ import running
from ledger.config import LedgerSettings
from ledger.from_settings import notes_of
from ledger.last_signed import SLOT_BYTES, FileLastSigned, beside
from ledger.log import begin_log, opened
from ledger.sqlite_storage import SqliteDatabase
from ledger.upkeep import run_adopt, run_backup, run_restore, run_restore_check
from shared.errors import NotReady, Unavailable
from shared.kinds import KINDS
from support.backups import journal_of_a_migration_that_was_killed, made_with_schema_0002
from support.ledgers import SIGNER, assert_whole, complete, decided, rejected, write_settings
from support.nats_servers import NatsUnderTest
from support.storages import StorageThatTakesItsTime

Run = Callable[..., tuple[int, str]]


@pytest.fixture(name="config")
def _config(tmp_path: Path, nats_server: NatsUnderTest) -> Path:
    """A configuration, and its log with three entries."""
    config = write_settings(tmp_path, nats_server)
    begin_log(SqliteDatabase(tmp_path / "ledger.sqlite"), SIGNER)
    asyncio.run(grow(config, 1, 2, 3))
    return config


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives the exit code and what it says."""

    def run(command: Callable[[list[str]], int], *arguments: object) -> tuple[int, str]:
        code = command([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def database(config: Path) -> SqliteDatabase:
    return SqliteDatabase(config.with_name("ledger.sqlite"))


async def grow(config: Path, *numbers: int) -> None:
    await grow_by(config, *(decided(number) for number in numbers))


async def grow_by(config: Path, *pending: PendingEntry) -> None:
    async with opened(database(config).open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(*pending))


async def refusal(config: Path) -> str:
    """What the log says when it is opened and will not sign; it is read all the same."""
    async with opened(database(config).open_for_writing(), SIGNER) as log:
        assert log.guard.refused is not None
        with pytest.raises(Unavailable):
            await log.sequencer.append(complete(decided(99)))
        await log.archive.entry(0)
        return log.guard.refused.reason


def lose(config: Path) -> None:
    """The disk with the database is gone; the one with the record is not."""
    for one in config.parent.glob("ledger.sqlite*"):
        if one != beside(database(config).path):
            one.unlink()


@pytest.mark.promise(1)
def test_backup_of_now_is_restored_and_goes_on(config: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "backups" / "today"
    code, said = run(run_backup, config, folder)
    assert (code, said.split(",")[0]) == (0, "BACKED UP: 3 entries")
    assert {one.name for one in folder.iterdir()} == {"ledger.sqlite", "manifest.json"}
    assert assert_whole(SqliteDatabase(folder / "ledger.sqlite")).checkpoint.size == 3
    lose(config)
    code, said = run(run_restore, config, folder)
    assert (code, said) == (0, "RESTORED: 3 entries; the ledger can be started and goes on\n")
    asyncio.run(grow(config, 4))
    assert assert_whole(database(config)).checkpoint.size == 4


@pytest.mark.promise(1)
def test_backup_of_an_earlier_release_is_restored_and_left_as_it_is(
    config: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "before-the-upgrade"
    run(run_backup, config, folder)
    made = made_with_schema_0002(folder)
    lose(config)
    journal = journal_of_a_migration_that_was_killed(made, tmp_path / "scratch.sqlite")
    config.with_name("ledger.sqlite.restoring-journal").write_bytes(journal)
    code, said = run(run_restore, config, folder)
    assert (code, said) == (0, "RESTORED: 3 entries; the ledger can be started and goes on\n")
    assert (folder / "ledger.sqlite").read_bytes() == made
    assert not list(tmp_path.glob("*.restoring*"))
    asyncio.run(grow(config, 4))
    assert assert_whole(database(config)).checkpoint.size == 4


def test_backup_says_what_it_holds(config: Path, tmp_path: Path, run: Run) -> None:
    code, said = run(run_backup, config, tmp_path / "today", "--json")
    manifest = json.loads(said)
    assert code == 0
    assert (manifest["size"], manifest["origin"]) == (3, SIGNER.name)
    assert manifest["checkpoint"].startswith(f"{SIGNER.name}\n3\n")
    assert json.loads((tmp_path / "today" / "manifest.json").read_text()) == manifest
    assert (tmp_path / "today").stat().st_mode & 0o077 == 0


async def test_backup_while_a_commit_is_under_way_is_of_one_moment(
    config: Path, tmp_path: Path, run: Run
) -> None:
    slow = StorageThatTakesItsTime(database(config).open_for_writing())
    async with opened(slow, SIGNER) as log:
        many = complete(*(decided(number) for number in range(10, 400)))
        appending = asyncio.create_task(log.sequencer.append(many))
        await asyncio.to_thread(slow.committing.wait)
        code, _ = await asyncio.to_thread(run, run_backup, config, tmp_path / "before")
        assert code == 0
        slow.go_on.set()
        await appending
        code, _ = await asyncio.to_thread(run, run_backup, config, tmp_path / "after")
        assert code == 0
    for name, size in (("before", 3), ("after", 393)):
        copy = SqliteDatabase(tmp_path / name / "ledger.sqlite")
        assert assert_whole(copy).checkpoint.size == size


def test_folder_in_use_is_left_as_it_is(config: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter").write_text("to a friend")
    code, said = run(run_backup, config, tmp_path / "used")
    assert code == 1
    assert "is not an empty folder" in said
    assert (tmp_path / "used" / "letter").read_text() == "to a friend"


def test_damaged_ledger_is_not_called_a_backup(config: Path, tmp_path: Path, run: Run) -> None:
    flip_an_entry(database(config).path)
    code, said = run(run_backup, config, tmp_path / "today")
    assert code == 1
    assert said.startswith("FAILED: ")
    assert not (tmp_path / "today").exists()


@pytest.mark.promise(4)
def test_old_backup_is_refused_unless_it_is_named(config: Path, tmp_path: Path, run: Run) -> None:
    run(run_backup, config, tmp_path / "yesterday")
    asyncio.run(grow(config, 4, 5))
    lose(config)
    code, said = run(run_restore, config, tmp_path / "yesterday")
    assert code == 1
    assert said.startswith("REFUSED: the database has 3 entries, and a checkpoint of 5 was signed")
    assert "--accept-size 3" in said
    assert not database(config).path.exists()
    code, said = run(run_restore, config, tmp_path / "yesterday", "--accept-size", 5)
    assert (code, said) == (1, "REFUSED: the backup has 3 entries, not 5\n")
    code, said = run(run_restore, config, tmp_path / "yesterday", "--accept-size", 3)
    assert code == 0
    assert said.startswith("RESTORED TO BE READ ONLY: 3 entries. This log has ended")
    assert assert_whole(database(config)).checkpoint.size == 3
    # The alarm stays, at every start.
    for _ in range(2):
        assert asyncio.run(refusal(config)) == "LOG_ENDED"
    code, said = run(run_restore_check, config)
    assert code == 1
    assert "This log has ended" in said


def test_backup_without_the_record_may_be_old(config: Path, tmp_path: Path, run: Run) -> None:
    run(run_backup, config, tmp_path / "yesterday")
    lose(config)
    beside(database(config).path).unlink()
    code, said = run(run_restore, config, tmp_path / "yesterday")
    assert code == 1
    assert "does not say how many entries were signed for last" in said
    code, _ = run(run_restore, config, tmp_path / "yesterday", "--accept-size", 3)
    assert code == 0
    assert asyncio.run(refusal(config)) == "LOG_ENDED"


@pytest.mark.promise(4)
def test_backup_of_another_history_is_never_restored(
    config: Path, tmp_path: Path, run: Run
) -> None:
    run(run_backup, config, tmp_path / "common")
    twin = tmp_path / "twin"
    shutil.copytree(config.parent, twin, ignore=shutil.ignore_patterns("twin", "common"))
    asyncio.run(grow(config, 4))
    asyncio.run(grow(twin / config.name, 5))
    code, _ = run(run_backup, twin / config.name, tmp_path / "strange")
    assert code == 0
    lose(config)
    for more in ((), ("--accept-size", 4)):
        code, said = run(run_restore, config, tmp_path / "strange", *more)
        assert code == 1
        assert "of another history" in said
        assert not database(config).path.exists()


@pytest.mark.parametrize("name", ["ledger.sqlite", "manifest.json"])
def test_damaged_backup_is_not_restored(config: Path, tmp_path: Path, run: Run, name: str) -> None:
    folder = tmp_path / "today"
    run(run_backup, config, folder)
    lose(config)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    code, said = run(run_restore, config, folder)
    assert code == 1
    assert said.startswith(("FAILED: ", "REFUSED: "))
    assert not database(config).path.exists()
    assert not list(config.parent.glob("*.restoring"))


def test_database_that_is_there_is_not_replaced(config: Path, tmp_path: Path, run: Run) -> None:
    run(run_backup, config, tmp_path / "today")
    before = database(config).path.read_bytes()
    code, said = run(run_restore, config, tmp_path / "today")
    assert code == 1
    assert "is there: move it away first" in said
    assert database(config).path.read_bytes() == before


def test_restore_beside_a_running_ledger_is_refused(config: Path, tmp_path: Path, run: Run) -> None:
    run(run_backup, config, tmp_path / "today")
    lose(config)
    store = FileLastSigned.open(beside(database(config).path))
    code, said = run(run_restore, config, tmp_path / "today")
    store.close()
    assert code == 1
    assert "another process signs for this log" in said


def test_comparison_says_whether_all_is_there(config: Path, tmp_path: Path, run: Run) -> None:
    code, said = run(run_restore_check, config)
    assert (code, said) == (0, "COMPLETE: 3 entries, and nothing beyond was signed or cosigned\n")
    shutil.copy(database(config).path, tmp_path / "yesterday")
    asyncio.run(grow(config, 4))
    shutil.copy(tmp_path / "yesterday", database(config).path)
    code, said = run(run_restore_check, config)
    assert code == 1
    assert "entries that were vouched for are gone" in said


def test_log_without_a_record_is_adopted_by_its_size(config: Path, run: Run) -> None:
    record = beside(database(config).path)
    record.unlink()
    code, said = run(run_adopt, config, "--size", 4)
    assert (code, said) == (1, "REFUSED: the database has 3 entries, not 4\n")
    code, said = run(run_adopt, config, "--size", 3)
    assert code == 0
    assert said.startswith("ADOPTED: 3 entries")
    code, said = run(run_adopt, config, "--size", 3)
    assert code == 1
    assert "says already that 3 entries were signed for" in said
    asyncio.run(grow(config, 4))
    damaged = bytearray(record.read_bytes())
    damaged[SLOT_BYTES + 100] ^= 1
    damaged[100] ^= 1
    record.write_bytes(damaged)
    code, said = run(run_adopt, config, "--size", 4)
    assert code == 1
    assert "Move it away" in said


def test_configuration_that_is_wrong_is_said(tmp_path: Path, run: Run) -> None:
    for command, more in ((run_backup, ("x",)), (run_restore, ("x",)), (run_restore_check, ())):
        code, said = run(command, tmp_path / "nowhere.toml", *more)
        assert code == 2
        assert "nowhere.toml" in said


def flip_an_entry(path: Path) -> None:
    content = bytearray(path.read_bytes())
    pending: PendingEntry = decided(2)
    content[content.index(pending.entry.search_id.encode()) + 3] ^= 1
    path.write_bytes(content)


async def put_on_record(config: Path) -> list[Entry]:
    """Starts the ledger with the configuration, ends it, and reads what it says of being brought back."""
    settings = LedgerSettings.load(config)
    async with running(settings):
        pass
    with contextlib.closing(database(config).open_for_reading()) as reading:
        rows = reading.of_kind(KINDS["log_restored"])
        return [Entry.FromString(leaf) for _, leaf in rows]


@pytest.mark.parametrize("way", ["restore", "adopt"])
def test_a_log_that_comes_back_says_so_once(
    way: str, tmp_path: Path, nats_server: NatsUnderTest, run: Run
) -> None:
    config = write_settings(tmp_path, nats_server)
    begin_log(SqliteDatabase(tmp_path / "ledger.sqlite"), SIGNER)
    asyncio.run(grow_by(config, rejected(), rejected()))
    with contextlib.closing(database(config).open_for_reading()) as reading:
        head = reading.head()
    if way == "restore":
        assert run(run_backup, config, tmp_path / "today")[0] == 0
        lose(config)
        said = run(run_restore, config, tmp_path / "today", "--authority", "Order 7")
    else:
        beside(database(config).path).unlink()
        said = run(run_adopt, config, "--size", 2, "--authority", "Order 7")
    assert said[0] == 0, said
    note = LedgerSettings.load(config).restored_file
    assert note is not None
    left = note.read_bytes()
    (entry,) = asyncio.run(put_on_record(config))
    event = entry.log_restored
    assert (event.restored_size, event.restored_root) == (head.size, head.root)
    assert (event.lost_size, event.lost_checkpoint) == (head.size, head.checkpoint)
    assert event.authority == "Order 7"
    assert event.cause == {"restore": RESTORE_CAUSE_BACKUP, "adopt": RESTORE_CAUSE_ADOPTED}[way]
    assert not note.exists()
    note.write_bytes(left)  # as a crash between the append and the removal leaves it
    assert len(asyncio.run(put_on_record(config))) == 1
    assert not note.exists()
    note.write_bytes(left.replace(head.root.hex().encode(), bytes(32).hex().encode()))
    assert len(asyncio.run(put_on_record(config))) == 1, "it is of another log"
    assert_whole(database(config))


def test_a_note_that_nobody_wrote_so_stops_the_ledger(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    notes_of(LedgerSettings.load(config)).put(b"{}")
    with pytest.raises(NotReady, match=r"ledger\.sqlite\.restored"):
        asyncio.run(put_on_record(config))
