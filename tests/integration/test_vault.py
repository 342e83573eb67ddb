"""The vault on real files: what is sealed, found, rotated and destroyed, and what the bytes on disk say."""

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.check import CheckFailed, check
from ledger.entry import CompletedEntry, Completer
from ledger.key_provider import FileKeyProvider
from ledger.key_store import KeyStore, SqliteKeyStore
from ledger.keyring import BLOCK_KEYS, Keyring
from ledger.log import opened
from ledger.opening_rows import SqliteOpeningRows
from ledger.openings import finish
from ledger.postgres_openings import PostgresOpeningRows
from ledger.vault import KeyringSealer, OpeningDamaged, Vault, lookup_token, normalised
from shared.errors import NotReady, Unavailable
from support.clocks import ClockThatStandsStill
from support.databases import DatabaseUnderTest, SqliteUnderTest
from support.ledgers import BROKER, LAPD, SIGNER, decided
from support.postgres import PostgresUnderTest

SECRETS = (b"officer-", b"case-3", b"a narrative that")
RELEASE_0_1 = Path(__file__).parents[1] / "data" / "ledger_0_1.sql"


@dataclass
class Parts:
    """A ledger's files, with its vault open."""

    folder: Path
    database: DatabaseUnderTest
    keyring: Keyring
    vault: Vault

    def complete(self, *numbers: int) -> list[CompletedEntry]:
        sealer = KeyringSealer(self.keyring)
        completer = Completer(BROKER, ClockThatStandsStill(), sealer=sealer)
        return [completer.complete(decided(number), "entry") for number in numbers]

    async def append(self, *numbers: int) -> None:
        async with opened(self.database.open_for_writing(), SIGNER) as log:
            await log.sequencer.append(self.complete(*numbers))

    def check(self) -> int:
        with contextlib.closing(self.database.open_for_reading()) as reading:
            return check(reading, [SIGNER.verifier], keyring=self.keyring).openings

    def files(self) -> dict[Path, bytes]:
        """What lies on the disk: the server's files of the database, when it is one."""
        if isinstance(self.database, PostgresUnderTest):
            return self.database.files()
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def again(self) -> contextlib.AbstractContextManager["Parts"]:
        """The same, as another process has it open."""
        return parts_of(self.folder, self.database)

    def stored(self) -> list[list[tuple[object, ...]]]:
        """All rows of the database."""
        return [
            self.database.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
            for table in ("entries", "openings")
        ]


@contextlib.contextmanager
def parts_of(folder: Path, database: DatabaseUnderTest, *, create: bool = False) -> Iterator[Parts]:
    provider = (FileKeyProvider.create if create else FileKeyProvider)(folder / "provider")
    store: KeyStore
    rows: SqliteOpeningRows | PostgresOpeningRows
    if isinstance(database, PostgresUnderTest):
        store = database.key_store(create=create)
        rows = PostgresOpeningRows.of(database)
    else:
        assert isinstance(database, SqliteUnderTest)
        store = SqliteKeyStore.open(folder / "key-store", create=create)
        rows = SqliteOpeningRows.open(database.path)
    with contextlib.closing(Keyring(provider, store)) as keyring, contextlib.closing(rows):
        yield Parts(folder, database, keyring, Vault(keyring, rows))


def parts_in(folder: Path, *, create: bool = False) -> contextlib.AbstractContextManager[Parts]:
    """Those of a folder in which all files lie."""
    return parts_of(folder, SqliteUnderTest(folder / "ledger.sqlite"), create=create)


@pytest.fixture(name="no_log")
def _no_log(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseUnderTest:
    """In SQLite, the files of a test lie in a folder of their own."""
    (tmp_path / "ledger").mkdir()
    if engine == "postgres":
        found: PostgresUnderTest = request.getfixturevalue("postgres_database")
        return found
    return SqliteUnderTest(tmp_path / "ledger" / "ledger.sqlite")


@pytest.fixture(name="parts")
async def _parts(database: DatabaseUnderTest, tmp_path: Path) -> AsyncIterator[Parts]:
    """A ledger with searches 0 to 9, in each engine."""
    with parts_of(tmp_path / "ledger", database, create=True) as parts:
        await parts.append(*range(10))
        yield parts


def holding(files: dict[Path, bytes], needle: bytes) -> list[str]:
    return [path.name for path, content in files.items() if needle in content]


@pytest.mark.promise(5)
def test_nothing_on_disk_is_in_the_clear(parts: Parts) -> None:
    opened = parts.vault.open(3)
    assert [(one.field, one.value) for one in opened] == [
        ("case_number", "case-3"),
        ("narrative", "a narrative that is in no leaf"),
        ("officer", "officer-3"),
    ]
    files = parts.files()
    assert holding(files, b"CA0194200"), "the search for bytes would find it"
    for secret in (*SECRETS, *(one.salt for one in opened)):
        assert not holding(files, secret)
    assert parts.check() == 30


def test_entries_are_found_by_value_and_only_those_of_the_holder(parts: Parts) -> None:
    assert parts.vault.find(LAPD, "officer", "officer-3") == [3]
    assert parts.vault.find(LAPD, "officer", "  OFFICER-3 ") == [3], "case and spaces do not count"
    assert parts.vault.find(LAPD, "case_number", "officer-3") == []
    assert parts.vault.find("CA0190000", "officer", "officer-3") == []
    assert parts.vault.find(LAPD, "officer", " ") == []
    assert parts.vault.holders() == [LAPD]
    assert normalised("Ofﬁcer \t 3") == "officer 3"


async def test_entries_are_found_across_blocks(parts: Parts) -> None:
    await parts.append(*range(10, 500))
    await parts.append(*range(500, 10 + BLOCK_KEYS))
    assert len(parts.keyring.lookup_keys(LAPD)) >= 2
    assert parts.vault.find(LAPD, "officer", "officer-3") == [3]
    last = 9 + BLOCK_KEYS
    assert parts.vault.find(LAPD, "officer", f"officer-{last}") == [last]


async def test_no_data_key_is_used_twice(parts: Parts) -> None:
    await parts.append(*range(10, 30))
    with parts.again() as again:
        await again.append(*range(30, 50))
    rows = parts.database.rows("SELECT DISTINCT entry_index, block, slot FROM openings")
    assert len(rows) == 50
    assert len({(block, slot) for _, block, slot in rows}) == 50


@pytest.mark.promise(5)
def test_after_destruction_no_byte_opens_the_value_and_every_proof_stands(parts: Parts) -> None:
    before = parts.files()
    (row,) = parts.database.rows(
        "SELECT sealed, lookup_token, block, slot FROM openings"
        " WHERE entry_index = 3 AND field = 'officer'"
    )
    block = parts.keyring.block(row[2])
    assert block is not None
    key, lookup_key = block.key(row[3]), block.lookup_key
    assert key is not None
    parts.vault.retire([3])
    assert parts.vault.destroy([3]) == 3
    assert parts.vault.open(3) == []
    assert parts.vault.find(LAPD, "officer", "officer-3") == []
    if isinstance(parts.database, PostgresUnderTest):
        # Its rows leave the server's files with the next vacuum; until then their key is gone already.
        assert not holding(parts.files(), key)
        parts.database.vacuum()
    files = parts.files()
    assert holding(before, row[0]), "the search for bytes would find it"
    for gone in (row[0], row[1], key, lookup_key, b"officer-3"):
        assert not holding(files, gone)
    now = parts.keyring.block(row[2])
    assert now is not None
    assert key not in now.content
    assert lookup_key not in now.content
    assert parts.vault.find(LAPD, "officer", "officer-4") == [4], "the others are found as before"
    assert parts.vault.open(4)[0].value == "case-4"


@pytest.mark.promise(5)
async def test_trying_every_value_of_a_small_domain_finds_nothing(parts: Parts) -> None:
    """With all that is stored after the destruction, and an old copy of the database besides."""
    old = parts.database.rows(
        "SELECT sealed, lookup_token, block FROM openings WHERE entry_index = 3"
    )
    parts.vault.destroy([3])
    lookup_keys = [key for _, key in parts.keyring.lookup_keys(LAPD)]
    tokens = {row[1] for row in old}
    guesses = [f"officer-{number}" for number in range(1000)]
    assert not [
        guess
        for guess in guesses
        for key in lookup_keys
        if lookup_token(key, "officer", guess) in tokens
    ]
    # With a copy of the key store from before, both would open it again: hence its short life.


def test_rotation_wraps_anew_and_an_old_version_can_go(parts: Parts) -> None:
    before = parts.stored()
    assert parts.keyring.rotate() == 2
    FileKeyProvider(parts.folder / "provider").destroy(1)
    assert parts.stored() == before, "no entry and no opening was touched"
    with parts.again() as again:
        assert again.vault.find(LAPD, "officer", "officer-3") == [3]
        assert again.check() == 30


@pytest.mark.parametrize("engine", ["sqlite"])  # it copies files
def test_old_keys_and_an_old_key_store_do_not_open_what_was_destroyed_and_rotated(
    parts: Parts, tmp_path: Path
) -> None:
    """What a thief of the key store needs besides is the provider's key of that time."""
    old = tmp_path / "old"
    shutil.copytree(parts.folder, old)
    parts.vault.destroy([3])
    parts.keyring.rotate()
    shutil.rmtree(old / "provider")
    shutil.copytree(parts.folder / "provider", old / "provider")
    (old / "provider" / "v1.key").unlink()
    with parts_in(old) as stale, pytest.raises(NotReady, match="version 1 of the opening keys"):
        stale.vault.open(3)


def test_an_interrupted_destruction_is_finished_at_the_next_start(parts: Parts) -> None:
    """Keys are gone, rows are not: the process ended between."""
    rows = parts.database.rows("SELECT * FROM openings WHERE entry_index = 3 ORDER BY field")
    parts.keyring.destroy(rows[0][3], [rows[0][4]])
    assert parts.vault.open(3) == []
    assert parts.vault.find(LAPD, "officer", "officer-4") == [], "until it is finished"
    assert parts.vault.finish([3, 5_000]) == 1
    assert parts.database.rows("SELECT * FROM openings WHERE entry_index = 3") == []
    assert parts.vault.find(LAPD, "officer", "officer-4") == [4]
    assert parts.vault.finish([3]) == 0


def test_a_key_that_was_lost_is_not_called_destroyed(parts: Parts) -> None:
    parts.database.change("UPDATE openings SET block = 1 WHERE entry_index = 3")
    with pytest.raises(NotReady, match="block 1 of the opening keys is not in the key store"):
        parts.vault.open(3)
    with pytest.raises(NotReady, match="block 1"):
        parts.vault.destroy([3])


async def test_a_new_holder_after_another_process_rotated_is_not_lost(parts: Parts) -> None:
    """The outermost key that this process knows is destroyed beside it."""
    with parts.again() as beside:
        beside.keyring.rotate()
        FileKeyProvider(parts.folder / "provider").destroy(1)
    sealer = KeyringSealer(parts.keyring)
    completer = Completer(BROKER, ClockThatStandsStill(), sealer=sealer)
    new = completer.complete(decided(900, agency="CA0191200"), "entry")
    async with opened(parts.database.open_for_writing(), SIGNER) as log:
        (placed,) = await log.sequencer.append([new])
    with parts.again() as again:
        assert "officer-900" in [one.value for one in again.vault.open(placed.index)]


def test_key_that_is_gone_without_an_entry_is_found_by_the_check(parts: Parts) -> None:
    rows = parts.database.rows("SELECT * FROM openings WHERE entry_index = 3 ORDER BY field")
    parts.keyring.destroy(rows[0][3], [rows[0][4]])
    with pytest.raises(CheckFailed, match="opening 0/case_number: it cannot be found by its value"):
        parts.check()
    parts.vault.destroy([3])
    with pytest.raises(CheckFailed, match="27 are stored, and 30 should be"):
        parts.check()


def test_opening_in_another_row_cannot_be_opened(parts: Parts) -> None:
    parts.database.change(
        "UPDATE openings SET sealed = (SELECT sealed FROM openings WHERE entry_index = 4 AND"
        " field = 'officer'), slot = (SELECT slot FROM openings WHERE entry_index = 4 AND"
        " field = 'officer') WHERE entry_index = 3 AND field = 'officer'"
    )
    with pytest.raises(OpeningDamaged):
        parts.vault.open(3)


def test_two_processes_do_not_undo_each_others_destruction(parts: Parts) -> None:
    with parts.again() as other:
        (block, _), *_ = other.keyring.lookup_keys(LAPD)
        stored = other.keyring._store.block(block)
        assert stored is not None
        parts.vault.destroy([3])
        with pytest.raises(Unavailable, match="another process"):
            other.keyring._store.replace_block(stored)
        assert other.vault.find(LAPD, "officer", "officer-4") == [4]


def test_openings_of_release_0_1_are_sealed_and_nothing_clear_is_left(tmp_path: Path) -> None:
    database = SqliteUnderTest(tmp_path / "ledger.sqlite")
    with contextlib.closing(sqlite3.connect(database.path)) as connection:
        connection.executescript(RELEASE_0_1.read_text())
    database.open_for_writing().close()
    clear = [row[0].encode() for row in database.rows("SELECT value FROM clear_openings")]
    with (
        contextlib.closing(database.open_for_reading()) as reading,
        pytest.raises(CheckFailed, match="in the clear"),
    ):
        check(reading, [SIGNER.verifier])
    with parts_in(tmp_path, create=True) as parts:
        assert [one for one in clear if holding(parts.files(), one)]
        with contextlib.closing(SqliteOpeningRows.open(database.path)) as rows:
            finish(parts.vault, rows)
        assert not [one for one in clear if one and holding(parts.files(), one)]
        assert parts.vault.open(0)
        assert parts.check() == len(clear)
