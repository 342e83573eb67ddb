"""Backups of a log in PostgreSQL: one form for both engines, and the same refusals when they are put back."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import LogRestored
from ledger.announcing import announcing
from ledger.config import LedgerSettings
from ledger.from_settings import load_keys, notes_of, safeguards_of
from ledger.last_signed import FileLastSigned, Signed, beside
from ledger.log import begin_log, opened
from ledger.restored_notes import PostgresNotes
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database
from ledger.upkeep import run_adopt, run_backup, run_restore, run_restore_check
from shared.errors import Unavailable
from shared.kinds import KINDS
from support.backups import made_with_schema_0002
from support.ledgers import SIGNER, assert_whole, complete, decided, failed, write_settings
from support.nats_servers import NatsUnderTest
from support.postgres import SERVICE, PostgresServer, PostgresUnderTest
from support.storages import StorageThatTakesItsTime


@dataclass
class Installation:
    """A log in PostgreSQL with its configuration, and what is run on it."""

    server: PostgresServer
    database: PostgresUnderTest
    config: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, command: Callable[[list[str]], int], *more: object) -> tuple[int, str]:
        """Runs a command; gives its exit code and what it says."""
        code = command([str(self.config), *map(str, more)])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def lose(self) -> None:
        """The log's tables are lost, and made anew; what was signed last is elsewhere."""
        (record,) = self.database.rows("SELECT record FROM signed.countersign_last_signed")
        self.server.drop_database(self.database.name)
        self.server.make_database(self.database.name)
        self.database.open_last_signed().close()
        self.database.change("INSERT INTO signed.countersign_last_signed VALUES (1, ?)", *record)


@pytest.fixture(name="here")
def _here(
    tmp_path: Path,
    nats_server: NatsUnderTest,
    postgres_database: PostgresUnderTest,
    capsys: pytest.CaptureFixture[str],
) -> Installation:
    begin_log(postgres_database, SIGNER)
    asyncio.run(grow(postgres_database, *range(300)))  # with full tiles
    config = write_settings(tmp_path, nats_server, postgres_database)
    return Installation(postgres_database.server, postgres_database, config, capsys)


async def grow(database: Database, *numbers: int) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        ended = [failed(number) for number in numbers[1::2]]
        pending = [decided(number) for number in numbers]
        await log.sequencer.append(complete(*pending, *ended))


async def refusal(database: Database) -> str:
    """Opens it: nothing is signed, and what is stored is read."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        assert log.guard.refused is not None
        with pytest.raises(Unavailable):
            await log.sequencer.append(complete(decided(9_999)))
        await log.archive.entry(0)
        return log.guard.refused.reason


@pytest.mark.promise(1)
def test_backup_of_now_is_restored_and_goes_on(here: Installation, tmp_path: Path) -> None:
    before = here.database.rows("SELECT * FROM openings ORDER BY 1, 2")
    folder = tmp_path / "backup"
    code, said = here.run(run_backup, folder)
    assert (code, said.split(",")[0]) == (0, "BACKED UP: 450 entries")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["size"], manifest["format"]) == (450, "countersign-ledger-backup/1")
    assert assert_whole(SqliteDatabase(folder / "ledger.sqlite")).checkpoint.size == 450
    here.lose()
    assert here.run(run_restore, folder) == (
        0,
        "RESTORED: 450 entries; the ledger can be started and goes on\n",
    )
    assert here.run(run_restore_check)[0] == 0
    assert here.database.rows("SELECT * FROM openings ORDER BY 1, 2") == before
    asyncio.run(grow(here.database, 301))
    assert assert_whole(here.database).checkpoint.size == 451


@pytest.mark.promise(1)
def test_backup_of_an_earlier_release_is_restored_and_left_as_it_is(
    here: Installation, tmp_path: Path
) -> None:
    here.run(run_backup, tmp_path / "backup")
    made = made_with_schema_0002(tmp_path / "backup")
    here.lose()
    code, said = here.run(run_restore, tmp_path / "backup")
    assert (code, said.split(";")[0]) == (0, "RESTORED: 450 entries")
    assert (tmp_path / "backup" / "ledger.sqlite").read_bytes() == made
    assert assert_whole(here.database).checkpoint.size == 450


async def test_backup_while_a_commit_is_under_way_is_of_one_moment(
    here: Installation, tmp_path: Path
) -> None:
    slow = StorageThatTakesItsTime(here.database.open_for_writing())
    async with opened(slow, SIGNER) as log:
        many = complete(*(decided(number) for number in range(1000, 1600)))
        appending = asyncio.create_task(log.sequencer.append(many))
        await asyncio.to_thread(slow.committing.wait)
        assert (await asyncio.to_thread(here.run, run_backup, tmp_path / "before"))[0] == 0
        slow.go_on.set()
        await appending
        assert (await asyncio.to_thread(here.run, run_backup, tmp_path / "after"))[0] == 0
    for name, size in (("before", 450), ("after", 1050)):
        copy = SqliteDatabase(tmp_path / name / "ledger.sqlite")
        assert assert_whole(copy).checkpoint.size == size


@pytest.mark.promise(4)
@pytest.mark.parametrize("record", ["database", "file"])
def test_whichever_replica_writes_next_says_that_the_log_was_brought_back(
    here: Installation, tmp_path: Path, nats_server: NatsUnderTest, record: str
) -> None:
    """The command ran on another machine: where its own files are, nobody looks."""
    here.run(run_backup, tmp_path / "backup")
    here.lose()
    replica = configured_elsewhere(here, nats_server, tmp_path / "replica")
    if record == "file":
        shared = tmp_path / "shared" / "signed"
        with (
            contextlib.closing(FileLastSigned.open(shared, alone=False)) as kept,
            contextlib.closing(here.database.open_last_signed()) as known,
        ):
            kept.swap(None, known.read() or Signed(""))
        for config in (here.config, replica):
            config.write_text(f'last_signed = "{shared}"\n' + config.read_text())
    before = sorted(here.database.dsn_file.parent.iterdir())
    assert here.run(run_restore, tmp_path / "backup", "--authority", "Order 7")[0] == 0
    assert sorted(here.database.dsn_file.parent.iterdir()) == before
    for _ in range(2):
        (event,) = asyncio.run(announced(here.database, replica))
        assert (event.restored_size, event.authority) == (450, "Order 7")
    assert notes_of(LedgerSettings.load(here.config)).read() is None


def configured_elsewhere(here: Installation, nats: NatsUnderTest, folder: Path) -> Path:
    """The configuration of another replica, which shares no file with this one."""
    folder.mkdir()
    text = write_settings(folder, nats, here.database).read_text()
    for file in (here.database.dsn_file, here.database.signed_dsn_file):
        (folder / file.name).write_bytes(file.read_bytes())
        text = text.replace(str(file), str(folder / file.name))
    (folder / "ledger.toml").write_text(text)
    return folder / "ledger.toml"


async def announced(database: Database, config: Path) -> list[LogRestored]:
    """Opens the log as the replica with this configuration; reads what it says of being brought back."""
    settings = LedgerSettings.load(config)
    keys, safeguards = load_keys(settings), safeguards_of(settings)
    async with (
        opened(database.open_for_writing(), keys, safeguards=safeguards) as log,
        announcing(log, keys, notes_of(settings), settings.trust_domain),
    ):
        pass
    with contextlib.closing(database.open_for_reading()) as reading:
        rows = reading.of_kind(KINDS["log_restored"])
        return [Entry.FromString(leaf).log_restored for _, leaf in rows]


def test_note_whose_database_is_away_is_no_note(tmp_path: Path) -> None:
    """It is not begun without it: what it says would never be on record."""
    nowhere = PostgresNotes({"host": str(tmp_path), "dbname": "none", "connect_timeout": 1})
    for use in (nowhere.read, lambda: nowhere.put(b""), nowhere.remove):
        with pytest.raises(Unavailable, match="countersign_restored of database none"):
            use()


@pytest.mark.promise(4)
def test_old_backup_is_refused_unless_it_is_named(here: Installation, tmp_path: Path) -> None:
    here.run(run_backup, tmp_path / "yesterday")
    asyncio.run(grow(here.database, 302))
    here.lose()
    code, said = here.run(run_restore, tmp_path / "yesterday")
    assert code == 1
    assert said.startswith("REFUSED: the database has 450 entries, and a checkpoint of 451 was")
    assert not here.database.has_log()
    code, said = here.run(run_restore, tmp_path / "yesterday", "--accept-size", 450)
    assert (code, "RESTORED TO BE READ ONLY: 450 entries" in said) == (0, True)
    assert asyncio.run(refusal(here.database)) == "LOG_ENDED"


def test_log_that_is_there_is_not_replaced(here: Installation, tmp_path: Path) -> None:
    here.run(run_backup, tmp_path / "backup")
    before = here.database.rows("SELECT * FROM head")
    code, said = here.run(run_restore, tmp_path / "backup")
    assert (code, "move it away first" in said) == (1, True)
    assert here.database.rows("SELECT * FROM head") == before


def test_restore_that_fails_in_the_middle_leaves_the_database_empty(
    here: Installation, tmp_path: Path
) -> None:
    here.run(run_backup, tmp_path / "backup")
    here.lose()
    here.database.change(f"REVOKE INSERT ON tiles FROM {SERVICE}")
    code, said = here.run(run_restore, tmp_path / "backup")
    assert (code, said[:8]) == (1, "FAILED: ")
    for table in ("head", "entries", "tiles", "openings", "open_searches"):
        assert here.database.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    here.database.change(f"GRANT INSERT ON tiles TO {SERVICE}")
    assert here.run(run_restore, tmp_path / "backup")[0] == 0


@pytest.mark.promise(4)
def test_backup_that_was_tampered_with_is_not_restored(here: Installation, tmp_path: Path) -> None:
    """Also when the manifest was made to match: what was signed does not."""
    folder = tmp_path / "backup"
    here.run(run_backup, folder)
    here.lose()
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as file:
        file.execute("UPDATE entries SET origin_agency = 'CA0190000' WHERE entry_index = 7")
        file.commit()
    code, said = here.run(run_restore, folder)
    assert (code, "is not the file that the manifest tells of" in said) == (1, True)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "ledger.sqlite").read_bytes()
    manifest["files"] = {"ledger.sqlite": sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, said = here.run(run_restore, folder)
    assert (code, "entry 7: its index columns are not what its bytes say" in said) == (1, True)
    assert not here.database.has_log()


def test_log_moves_from_one_engine_to_the_other(
    here: Installation, tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    """The record goes with it by hand: it is in no backup."""
    folder = tmp_path / "backup"
    here.run(run_backup, folder)
    moved = tmp_path / "moved"
    moved.mkdir()
    there = Installation(
        here.server, here.database, write_settings(moved, nats_server), here.capsys
    )
    database = SqliteDatabase(moved / "ledger.sqlite")
    code, said = there.run(run_restore, folder)
    assert (code, "does not say how many entries were signed" in said) == (1, True)
    (moved / "ledger.sqlite").write_bytes((folder / "ledger.sqlite").read_bytes())
    assert there.run(run_adopt, "--size", 450)[0] == 0
    asyncio.run(grow(database, 401))
    assert assert_whole(database).checkpoint.size == 451
    assert beside(database.path).exists()
    # And back: a backup of the file goes into an empty database.
    assert there.run(run_backup, tmp_path / "second")[0] == 0
    here.lose()
    assert here.run(run_restore, tmp_path / "second")[0] == 0
    asyncio.run(grow(here.database, 402))
    assert assert_whole(here.database).checkpoint.size == 452
