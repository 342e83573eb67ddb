"""What only PostgreSQL can promise: who may write, what nobody may change, and how it is connected to."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from countersign.ledger.v1 import append_pb2 as pb
from ledger.bus_service import BusService
from ledger.log import begin_log, opened
from ledger.migrations.rights import RIGHTS
from ledger.openings import finish
from ledger.postgres_connection import PostgresSettings, parameters_from
from ledger.postgres_openings import PostgresOpeningRows
from ledger.postgres_schema import migrate_postgres
from ledger.postgres_storage import PostgresDatabase
from ledger.storage import Head, Storage, StorageFailed, StorageInDoubt
from ledger.vault import Vault
from shared.errors import NotReady, Unavailable
from shared.settings import SettingsError
from support.databases import vouch_for
from support.ledgers import (
    COMPLETER,
    LAPD,
    SIGNER,
    assert_whole,
    complete,
    decided,
    failed,
    search_id,
)
from support.postgres import (
    ADMIN,
    OWNER,
    SERVICE,
    PostgresServer,
    PostgresUnderTest,
    running_server,
)
from support.vaults import KEYRING
from support.waiting import until

RELEASE_0_1 = Path(__file__).parents[1] / "data" / "ledger_0_1.sql"


@pytest.fixture(name="database")
def _database(postgres_database: PostgresUnderTest) -> PostgresUnderTest:
    begin_log(postgres_database, SIGNER)
    return postgres_database


async def test_second_writer_does_not_get_the_log(database: PostgresUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER):
        with pytest.raises(NotReady, match="another replica") as refused:
            database.open_for_writing()
        assert refused.value.reason == "LEDGER_LOCKED"
    database.open_for_writing().close()


def test_each_writer_has_a_later_epoch_and_none_once_closed_begins_a_batch(
    database: PostgresUnderTest,
) -> None:
    epochs = []
    for _ in range(3):
        with contextlib.closing(database.open_for_writing()) as storage:
            epochs.append(storage.epoch)
        with pytest.raises(StorageFailed):
            storage.begin()
    assert epochs == [1, 2, 3]


def test_missing_log_does_not_begin_a_second_history(postgres_database: PostgresUnderTest) -> None:
    assert not postgres_database.has_log()
    with pytest.raises(NotReady) as refused:
        postgres_database.open_for_writing()
    assert refused.value.reason == "LEDGER_MISSING"


def test_existing_log_is_not_begun_again(database: PostgresUnderTest) -> None:
    assert database.has_log()
    with pytest.raises(NotReady) as refused:
        begin_log(database, SIGNER)
    assert refused.value.reason == "LEDGER_EXISTS"


async def test_entries_without_a_head_do_not_begin_a_second_history(
    database: PostgresUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(1)))
    database.change("DELETE FROM head")
    with pytest.raises(NotReady) as refused:
        database.begin(Head(0, bytes(32), "x"))
    assert refused.value.reason == "LEDGER_EXISTS"


@pytest.mark.promise(4)
@pytest.mark.parametrize("role", [OWNER, SERVICE, ADMIN])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET leaf = leaf",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "UPDATE tiles SET hashes = hashes",
        "DELETE FROM tiles",
        "TRUNCATE tiles",
        "DELETE FROM head",
        "TRUNCATE head",
        "UPDATE head SET size = size - 1",
        "UPDATE head SET epoch = epoch - 1",
    ],
)
async def test_history_cannot_be_changed(
    database: PostgresUnderTest, role: str, statement: str
) -> None:
    """Not by the service, not by the owner of the tables, and by a superuser not without intent."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(1)))
    with (
        database.server.session(role, database.name) as session,
        pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.InsufficientPrivilege)),
    ):
        session.execute(statement.encode())
    assert assert_whole(database).checkpoint.size == 1


def test_every_table_has_rights_and_the_service_no_others(database: PostgresUnderTest) -> None:
    rows = database.rows(
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
        f" WHERE grantee = '{SERVICE}' AND table_schema = 'public'"
    )
    granted: dict[str, set[str]] = {}
    for table, right in rows:
        granted.setdefault(table, set()).add(right)
    assert granted == {table: set(rights.split(", ")) for table, rights in RIGHTS.items()}
    tables = database.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {name for (name,) in tables} == set(RIGHTS)
    with (
        database.server.session(SERVICE, database.name) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("CREATE TABLE mine (x int)")


@pytest.mark.promise(1)
def test_commits_wait_for_the_disk(database: PostgresUnderTest) -> None:
    with contextlib.closing(database.open_for_writing()):
        (found,) = database.rows(
            "SELECT current_setting('fsync'), current_setting('full_page_writes')"
        )
        assert found == ("on", "on")


@pytest.mark.promise(1)
async def test_server_that_may_lose_commits_is_refused(tmp_path: Path) -> None:
    with running_server(["-c", "fsync=off"]) as server:
        server.make_database("unsafe")
        with pytest.raises(NotReady, match="fsync = off") as refused:
            begin_log(PostgresUnderTest(server, "unsafe", tmp_path), SIGNER)
        assert refused.value.reason == "LEDGER_NOT_DURABLE"


def test_weaker_commits_of_the_server_are_made_durable(database: PostgresUnderTest) -> None:
    database.change(
        f"ALTER ROLE {SERVICE} IN DATABASE {database.name} SET synchronous_commit = off"
    )
    with contextlib.closing(database.open_for_writing()) as storage:
        assert storage.setting("synchronous_commit") == "on"


def test_standby_that_is_demanded_must_be_there(database: PostgresUnderTest) -> None:
    settings = PostgresSettings(dsn_file=database.dsn_file, require_synchronous_standby=True)
    with pytest.raises(NotReady) as refused:
        PostgresDatabase(settings).open_for_writing()
    assert refused.value.reason == "LEDGER_NO_STANDBY"
    database.open_for_writing().close()


def test_writer_of_an_earlier_epoch_sets_no_head(database: PostgresUnderTest) -> None:
    """Even one whose lock was taken without its knowing."""
    with contextlib.closing(database.open_for_writing()) as storage:
        before = storage.head()
        storage.begin()
        database.change("UPDATE head SET epoch = epoch + 1")
        with pytest.raises(StorageInDoubt, match="another writes"):
            storage.set_head(0, Head(1, bytes(32), "x"))
        storage.roll_back()
        assert storage.head() == before


def end_writer(database: PostgresUnderTest) -> None:
    """As the server does with one that has been silent for too long."""
    assert database.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    ) == [(True,)]


@pytest.mark.promise(1)
async def test_writer_that_lost_its_session_answers_nobody_and_ends(
    database: PostgresUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(1)))
        end_writer(database)
        async with opened(database.open_for_writing(), SIGNER) as other:
            await other.sequencer.append(complete(decided(2)))
            # It learns it by itself, without anything to write.
            await log.sequencer.ended.wait()
    assert assert_whole(database).checkpoint.size == 2


def test_reader_comes_back_after_its_session_was_ended(database: PostgresUnderTest) -> None:
    with contextlib.closing(database.open_for_reading()) as reading:
        before = reading.head()
        database.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert reading.head() == before


def test_reader_cannot_write(database: PostgresUnderTest) -> None:
    with (
        contextlib.closing(database.open_for_reading()) as reading,
        pytest.raises(StorageFailed, match="read-only"),
    ):
        reading._rows("UPDATE head SET size = 7")


def make_empty(server: PostgresServer, name: str) -> None:
    with server.session(ADMIN, "postgres") as admin:
        make = sql.SQL("CREATE DATABASE {} OWNER {}")
        admin.execute(make.format(sql.Identifier(name), sql.Identifier(OWNER)))
    with server.session(ADMIN, name) as admin:
        admin.execute(f"CREATE SCHEMA signed AUTHORIZATION {SERVICE}".encode())


async def test_first_schema_comes_to_the_newest_with_its_entries(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The rows of release 0.1, brought into the first schema of this engine."""
    name = "migrated"
    make_empty(postgres_server, name)
    with postgres_server.session(OWNER, name) as owner:
        migrate_postgres(owner, SERVICE, "0001")
    old = sqlite3.connect(":memory:")
    old.executescript(RELEASE_0_1.read_text())
    with postgres_server.session(OWNER, name) as owner:
        for table in ("entries", "openings", "open_searches", "tiles"):
            for row in old.execute(f"SELECT * FROM {table}"):
                places = ", ".join(["%s"] * len(row))
                owner.execute(f"INSERT INTO {table} VALUES ({places})".encode(), row)
        head = old.execute("SELECT *, 0 FROM head").fetchone()
        owner.execute("INSERT INTO head VALUES (%s, %s, %s, %s, %s)", head)
    old.close()
    with postgres_server.session(OWNER, name) as owner:
        migrate_postgres(owner, SERVICE)
    database = PostgresUnderTest(postgres_server, name, tmp_path)
    vouch_for(database)
    async with opened(database.open_for_writing(), SIGNER) as log:
        again, new = await log.sequencer.append(complete(decided(1), decided(4)))
        assert (again.index, again.existing, new.index) == (0, True, 260)
    with contextlib.closing(PostgresOpeningRows.of(database)) as rows:
        vault = Vault(KEYRING, rows)
        finish(vault, rows)
        assert vault.find(LAPD, "officer", "OFFICER-1 ") == [0]
    assert assert_whole(database).open_searches == 2
    postgres_server.drop_database(name)


def test_migrating_again_changes_nothing(database: PostgresUnderTest) -> None:
    with database.server.session(OWNER, database.name) as owner:
        migrate_postgres(owner, SERVICE)
    assert_whole(database)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "knows no later one than"),
        ("UPDATE alembic_version SET version_num = '0000'", "run countersign-ledger migrate"),
        ("DELETE FROM alembic_version", "no version of our schema"),
        ("DROP TABLE alembic_version", "no version of our schema"),
    ],
)
def test_database_of_another_schema_is_refused(
    database: PostgresUnderTest, change: str, found: str
) -> None:
    database.change(change)
    ways: tuple[Callable[[], object], ...] = (
        database.open_for_writing,
        database.open_for_reading,
        database.has_log,
    )
    for way in ways:
        with pytest.raises(NotReady, match=found) as refused:
            way()
        assert refused.value.reason == "LEDGER_SCHEMA"


def test_newer_schema_is_not_migrated(database: PostgresUnderTest) -> None:
    database.change("UPDATE alembic_version SET version_num = '9999'")
    with (
        database.server.session(OWNER, database.name) as owner,
        pytest.raises(NotReady, match="knows no later one than"),
    ):
        migrate_postgres(owner, SERVICE)


@pytest.mark.parametrize(
    ("dsn", "allowed"),
    [
        ("host=/run/postgresql dbname=ledger", True),
        ("dbname=ledger", True),
        ("host=db.example dbname=ledger sslmode=verify-full", True),
        ("postgresql://ledger:secret@db.example/ledger?sslmode=verify-full", True),
        ("host=db.example dbname=ledger", False),
        ("postgresql://ledger:secret@db.example/ledger?sslmode=require", False),
        ("host=/run/postgresql,db.example dbname=ledger", False),
        ("hostaddr=192.0.2.1 dbname=ledger", False),
        ("this is no connection string with a secret", False),
    ],
)
def test_server_over_a_network_is_checked(tmp_path: Path, dsn: str, allowed: bool) -> None:
    file = tmp_path / "dsn"
    file.write_text(dsn + "\n")
    if allowed:
        assert parameters_from(file, None, trust_any=False)["dbname"] == "ledger"
        return
    with pytest.raises(SettingsError) as refused:
        parameters_from(file, None, trust_any=False)
    assert "secret" not in str(refused.value)


def test_authority_makes_the_server_checked(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("host=db.example dbname=ledger sslmode=disable")
    parameters = parameters_from(file, tmp_path / "authority.pem", trust_any=False)
    assert parameters["sslmode"] == "verify-full"
    assert parameters["sslrootcert"] == str(tmp_path / "authority.pem")


@pytest.mark.promise(8)
async def test_writer_that_lost_the_lock_answers_nothing_of_what_it_knew(
    database: PostgresUnderTest,
) -> None:
    """Its answer would be of before: that a search goes on which has ended, and may be ended again."""
    async with opened(database.open_for_writing(), SIGNER) as old:
        await old.sequencer.append(complete(decided(1)))
        of_old = BusService(COMPLETER, old.sequencer, old.archive, fresh=old.still_writes)
        wanted = pb.LookUpSearchRequest(search_id=search_id(1))
        assert not (await of_old.look_up_search(wanted)).HasField("ended")
        database.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

        async def lock_is_free() -> Storage | None:
            try:
                return database.open_for_writing()
            except NotReady:
                return None

        async with opened(await until(lock_is_free), SIGNER) as new:
            await new.sequencer.append(complete(failed(1)))
            of_new = BusService(COMPLETER, new.sequencer, new.archive, fresh=new.still_writes)
            assert (await of_new.look_up_search(wanted)).HasField("ended")
            for question in (
                of_old.look_up_search(wanted),
                of_old.list_open_searches(pb.ListOpenSearchesRequest()),
                of_old.list_searches(pb.ListSearchesRequest(origin_agency=LAPD)),
            ):
                with pytest.raises(Unavailable) as refused:
                    await question
                assert refused.value.reason == "LEDGER_NOT_WRITER"
            with pytest.raises(Unavailable):
                await old.sequencer.append(complete(failed(1)))
    assert assert_whole(database).checkpoint.size == 2
