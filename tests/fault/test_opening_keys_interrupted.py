"""The keys of the openings when a server is started anew, a rotation is overtaken, or a process is killed."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import AppendRequest
from ledger.bus_service import BusService
from ledger.check import check
from ledger.custody import Custody
from ledger.entry import Completer
from ledger.key_provider import FileKeyProvider, WrappedKey
from ledger.key_store import SqliteKeyStore, StoredBlock
from ledger.keyring import BLOCK_KEYS, Keyring
from ledger.log import opened
from ledger.opening_rows import SqliteOpeningRows
from ledger.openings import finish
from ledger.postgres_connection import PostgresSettings
from ledger.postgres_openings import PostgresKeyStore, PostgresOpeningRows
from ledger.rights import People, Rights
from ledger.sqlite_storage import SqliteDatabase
from ledger.vault import KeyringSealer, Vault
from shared.errors import InvalidRequest, NotReady, Unavailable
from support.clocks import ClockThatStandsStill
from support.ledgers import BROKER, SIGNER, decided, new_log, rejected
from support.postgres import ADMIN, PostgresServer, PostgresUnderTest
from support.waiting import WAIT_S_MAX

pytestmark = pytest.mark.fault

RELEASE_0_1 = Path(__file__).parents[1] / "data" / "ledger_0_1.sql"


def test_keys_in_postgresql_are_there_again_when_their_server_is(
    mortal_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    server = mortal_postgres_server
    server.make_database("ledger_keys")
    database = PostgresUnderTest(server, "ledger_keys", tmp_path)
    settings = PostgresSettings(
        dsn_file=database.dsn_file, key_store_dsn_file=database.signed_dsn_file
    )
    provider = FileKeyProvider.create(tmp_path / "provider")
    with (
        contextlib.closing(
            Keyring(provider, PostgresKeyStore.open(settings, create=True))
        ) as keyring,
        contextlib.closing(PostgresOpeningRows.of(database)) as rows,
    ):
        taken = keyring.take("LAPD")
        server.kill()
        with pytest.raises(Unavailable) as refused:
            keyring.block(taken.block)
        assert refused.value.reason == "OPENING_KEYS_UNAVAILABLE"
        with pytest.raises(Unavailable):
            keyring.take("LASD")
        server.start()
        # A question first, then, after another restart that nothing has noticed, changes first.
        block = keyring.block(taken.block)
        assert block is not None
        assert block.key(taken.slot) == taken.key
        for change in (
            lambda: keyring.take("LASD"),
            lambda: keyring.destroy(taken.block, [taken.slot]),
            keyring.forget,
            lambda: rows.remove([1], []),
        ):
            server.kill()
            server.start()
            change()
        destroyed = keyring.block(taken.block)
        assert destroyed is not None
        assert destroyed.key(taken.slot) is None
    with server.session(ADMIN, "ledger_keys") as session:
        (holders,) = session.execute("SELECT count(*) FROM signed.holder_keys").fetchall()
    assert holders == (2,)


class Keys:
    """A key store and its provider, as one process has them open."""

    def __init__(self, folder: Path, provider: FileKeyProvider) -> None:
        self.store = SqliteKeyStore.open(folder / "store", create=True)
        self.keyring = Keyring(provider, self.store)

    def close(self) -> None:
        self.keyring.close()


@pytest.mark.promise(5)
def test_version_that_a_replica_still_wraps_under_is_not_destroyed(tmp_path: Path) -> None:
    """Its folder is a copy, to which the new version was not brought yet."""
    provider = FileKeyProvider.create(tmp_path / "provider")
    shutil.copytree(tmp_path / "provider", tmp_path / "copy")
    with (
        contextlib.closing(Keys(tmp_path, provider)) as one,
        contextlib.closing(Keys(tmp_path, FileKeyProvider(tmp_path / "copy"))) as replica,
    ):
        one.keyring.take("LAPD")
        version = one.keyring.rotate()
        taken = replica.keyring.take("LASD")
        with pytest.raises(NotReady, match="nothing was destroyed") as refused:
            one.keyring.destroy_older(version)
        assert refused.value.reason == "OPENING_KEYS_IN_USE"
        found = one.keyring.block(taken.block)
        assert found is not None
        assert found.key(taken.slot) == taken.key
        # It is brought the new version, the keys are rotated again, and then the older ones can go.
        version = one.keyring.rotate()
        assert one.keyring.destroy_older(version) == 2
        assert provider.versions() == [3]
        found = one.keyring.block(taken.block)
        assert found is not None
        assert found.key(taken.slot) == taken.key


class ProviderThatIsOvertaken(FileKeyProvider):
    """Wraps; before the key is stored, another process rotates and destroys the version."""

    other: Keyring | None = None

    def wrap(self, key: bytes, bound_to: bytes) -> WrappedKey:
        wrapped = super().wrap(key, bound_to)
        other, self.other = self.other, None
        if other is not None:
            assert other.destroy_older(other.rotate()) == 1
        return wrapped


@pytest.mark.promise(5)
def test_key_that_is_stored_after_its_version_was_destroyed_protects_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "provider"
    FileKeyProvider.create(folder)
    slow = ProviderThatIsOvertaken(folder)
    with (
        contextlib.closing(Keys(tmp_path, FileKeyProvider(folder))) as other,
        contextlib.closing(Keys(tmp_path, slow)) as overtaken,
    ):
        other.keyring.take("LAPD")
        slow.other = other.keyring
        taken = overtaken.keyring.take("LASD")
        found = Keyring(FileKeyProvider(folder), other.store).block(taken.block)
        assert found is not None
        assert found.key(taken.slot) == taken.key


KILLED_BEFORE_THE_REWRITE = """
import os, signal, sys
from pathlib import Path
from ledger.key_provider import FileKeyProvider
from ledger.key_store import SqliteKeyStore
from ledger.keyring import Keyring
from ledger.opening_rows import SqliteOpeningRows
from ledger.openings import finish
from ledger.vault import Vault

class RowsOfAProcessThatIsKilled(SqliteOpeningRows):
    def rewrite(self):
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
rows = RowsOfAProcessThatIsKilled.open(folder / "ledger.sqlite")
keyring = Keyring(
    FileKeyProvider.create(folder / "provider"),
    SqliteKeyStore.open(folder / "key-store", create=True),
)
finish(Vault(keyring, rows), rows)
"""


@pytest.mark.promise(5)
def test_clear_openings_leave_no_remnant_though_the_process_was_killed_before_the_rewrite(
    tmp_path: Path,
) -> None:
    database = SqliteDatabase(tmp_path / "ledger.sqlite")
    with contextlib.closing(sqlite3.connect(database.path)) as connection:
        # As SQLite was built by some: what is deleted stays on its page.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.executescript(RELEASE_0_1.read_text())
        clear = [one for (one,) in connection.execute("SELECT value FROM openings") if one]
        connection.execute("CREATE TABLE more (value TEXT)")
        connection.executemany("INSERT INTO more VALUES (?)", [(one,) for one in clear])
        connection.execute("DROP TABLE more")
        connection.commit()
    database.open_for_writing().close()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_REWRITE, tmp_path], check=False, timeout=60
    )
    assert ended.returncode == -9
    assert remnants(tmp_path, clear)
    provider = FileKeyProvider(tmp_path / "provider")
    store = SqliteKeyStore.open(tmp_path / "key-store", create=False)
    with (
        contextlib.closing(Keyring(provider, store)) as keyring,
        contextlib.closing(SqliteOpeningRows.open(database.path)) as rows,
    ):
        assert rows.rewrite_is_due()
        assert not rows.clear_openings(1)
        finish(Vault(keyring, rows), rows)
        assert not rows.rewrite_is_due()
        assert not remnants(tmp_path, clear)
        with contextlib.closing(database.open_for_reading()) as reading:
            assert check(reading, [SIGNER.verifier], keyring=keyring).openings >= len(clear)


def remnants(folder: Path, values: list[str]) -> list[str]:
    """Files of the database in which a value is in the clear."""
    files = [path for path in folder.glob("ledger.sqlite*") if path.is_file()]
    return [path.name for path in files for one in values if one.encode() in path.read_bytes()]


class StoreThatTakesItsTime(SqliteKeyStore):
    """Stands in the write of a block until it is told to go on."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self.adding = threading.Event()
        self.go_on = threading.Event()

    def add_block(self, block: StoredBlock) -> None:
        self.adding.set()
        assert self.go_on.wait(WAIT_S_MAX), "nobody could say so: the event loop stands still"
        super().add_block(block)


async def test_block_that_takes_its_time_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    store = await asyncio.to_thread(StoreThatTakesItsTime.open, tmp_path / "store", create=True)
    assert isinstance(store, StoreThatTakesItsTime)
    provider = FileKeyProvider.create(tmp_path / "provider")
    with contextlib.closing(Keyring(provider, store)) as keyring:
        completer = Completer(BROKER, ClockThatStandsStill(), sealer=KeyringSealer(keyring))
        async with opened(new_log(tmp_path).open_for_writing(), SIGNER) as log:
            door = BusService(completer, log.sequencer, log.archive)
            malformed = AppendRequest(entries=[decided(1), decided(2, key="k" * 201)])
            with pytest.raises(InvalidRequest):
                await door.append(malformed)
            assert not store.adding.is_set(), "no key is made for what is refused"
            waiting = asyncio.create_task(door.append(AppendRequest(entries=[decided(1)])))
            await asyncio.to_thread(store.adding.wait, WAIT_S_MAX)
            assert not waiting.done()
            # Others are served meanwhile, whose entries have no openings.
            others = await door.append(AppendRequest(entries=[rejected()]))
            store.go_on.set()
            mine = await waiting
            assert (others.appended[0].receipt.index, mine.appended[0].receipt.index) == (0, 1)
            # Through the end of a block and into the next one, many at once.
            many = [AppendRequest(entries=[decided(n)]) for n in range(10, BLOCK_KEYS + 300)]
            await asyncio.gather(*(door.append(one) for one in many))
        with contextlib.closing(SqliteOpeningRows.open(tmp_path / "ledger.sqlite")) as rows:
            used = {(one.block, one.slot) for _, one in rows.every_opening()}
            entries = {index for index, _ in rows.every_opening()}
            assert len(used) == len(entries) == 1 + len(many)


async def test_recording_that_openings_are_read_does_not_hold_up_the_event_loop(
    tmp_path: Path,
) -> None:
    store = await asyncio.to_thread(StoreThatTakesItsTime.open, tmp_path / "store", create=True)
    assert isinstance(store, StoreThatTakesItsTime)
    provider = FileKeyProvider.create(tmp_path / "provider")
    with contextlib.closing(Keyring(provider, store)) as keyring:
        clock = ClockThatStandsStill()
        completer = Completer(BROKER, clock, sealer=KeyringSealer(keyring), own=True)
        async with opened(new_log(tmp_path).open_for_writing(), SIGNER) as log:
            rows = SqliteOpeningRows.open(tmp_path / "ledger.sqlite")
            custody = Custody(
                rights=Rights(lambda: None),
                people=People(lambda: None),
                vault=Vault(keyring, rows),
                archive=log.archive,
                sequencer=log.sequencer,
                completer=completer,
                clock=clock,
            )
            with contextlib.closing(rows), contextlib.closing(custody):
                waiting = asyncio.create_task(custody.record(decided(1)))
                await asyncio.to_thread(store.adding.wait, WAIT_S_MAX)
                assert not waiting.done()
                store.go_on.set()
                assert (await waiting).index == 0
