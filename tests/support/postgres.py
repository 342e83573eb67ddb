"""A real PostgreSQL server from the system's packages, and databases in it.

PostgreSQL does not run as root, so a test run as root starts it as the user `postgres`. It listens on a
socket in a folder of its own under the system's folder for temporary files.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from ledger.key_provider import FileKeyProvider
from ledger.keyring import Keyring
from ledger.postgres_connection import PostgresSettings
from ledger.postgres_openings import PostgresKeyStore
from ledger.postgres_schema import migrate_postgres
from ledger.postgres_storage import PostgresDatabase

START_TIMEOUT_S = 120
OWNER, SERVICE, ADMIN = "ledger_owner", "ledger_service", "postgres"
TEMPLATE = "ledger_template"
STANDBY = "standby"

# In the words of SQLite, so that the same tampering is understood by both engines.
_ZEROBLOB = """CREATE FUNCTION zeroblob(count integer) RETURNS bytea IMMUTABLE LANGUAGE sql
AS $$ SELECT decode(repeat('00', count), 'hex') $$"""


def _programs() -> Path:
    """The newest server that is installed."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders = sorted((path.parent for path in found), key=lambda one: int(one.parent.name))
    assert folders, "the tests need PostgreSQL's server: tools/need_programs.sh"
    return folders[-1]


class PostgresServer:
    """One server with its data. `kill` is SIGKILL of all its processes; `start` begins again."""

    def __init__(
        self, options: Sequence[str] = (), *, standby_of: "PostgresServer | None" = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-pg-"))
        self._user = "postgres" if os.getuid() == 0 else None
        self._as_user: list[str | Path] = []
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.folder.chmod(0o755)
            # Not `user=`: for that Python forks, and gRPC's threads do not always survive it in the child.
            self._as_user += ["setpriv", f"--reuid={self._user}", f"--regid={account.pw_gid}"]
            self._as_user += ["--init-groups", "--"]
        self.data = self.folder / "data"
        self._log = self.folder / "log"
        self._options = list(options)
        self._port = 5432  # of the socket in this server's own folder
        self._process: subprocess.Popen[bytes] | None = None
        if standby_of is not None:
            primary = f"host={standby_of.folder} user={ADMIN} application_name={STANDBY}"
            self._run(
                "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", primary
            )
            return
        # trust: whoever can reach the socket of a test's server may do as he likes with it.
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", ADMIN, "-E", "UTF8", "-k")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [*self._as_user, _programs() / program, *arguments],
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [*self._as_user, _programs() / "postgres", "-D", self.data, "-k", self.folder]
        command += ["-c", "listen_addresses=", "-c", "autovacuum=off", *self._options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(ADMIN, "postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, user: str, database: str) -> str:
        """How to connect."""
        return f"host={self.folder} port={self._port} user={user} dbname={database}"

    def listen_over_tls(self, port: int, certificate: bytes, key: bytes) -> None:
        """From the next start on, listens on this port of the loopback interface too."""
        files = self.put("server.pem", certificate), self.put("server.key", key)
        self._port = port
        for option in (
            *(f"port={port}", "listen_addresses=127.0.0.1", "ssl=on"),
            *(f"ssl_cert_file={files[0]}", f"ssl_key_file={files[1]}"),
        ):
            self._options += ["-c", option]

    def put(self, name: str, content: bytes) -> Path:
        """Gives the server's user a file that is for nobody else."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def wait_for_standby(self) -> None:
        """From now on, commits wait until the standby has them."""
        with self.session(ADMIN, "postgres") as admin:
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'".encode())
            admin.execute("SELECT pg_reload_conf()")

    def ask(self, question: str) -> Any:
        """Asks for one value."""
        with self.session(ADMIN, "postgres") as admin:
            found = admin.execute(question.encode())
            row = found.fetchone() if found.description else None
        return None if row is None else row[0]

    def promote(self) -> None:
        """Makes a standby a primary, whether or not it has everything."""
        assert self.ask("SELECT pg_promote()")

    def kill(self) -> None:
        """Ends all its processes as a power cut would."""
        if self._process is not None:
            # Each process of a connection leads a session of its own, and outlives the first one by a moment
            # in which it answers. Stopped, the first one makes no more of them.
            if self._process.poll() is None:
                server = psutil.Process(self._process.pid)
                server.suspend()
                connected = server.children(recursive=True)
                for process in (server, *connected):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                _, alive = psutil.wait_procs(connected, START_TIMEOUT_S)
                assert not alive
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Ends it and forgets its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def session(self, user: str, database: str) -> "psycopg.Connection[tuple[Any, ...]]":
        """Connects."""
        return psycopg.connect(self.dsn(user, database), autocommit=True)

    def make_template(self) -> None:
        """Makes the roles, and a database with the newest schema and no log."""
        with self.session(ADMIN, "postgres") as admin:
            for role in (OWNER, SERVICE):
                admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
            make = SQL("CREATE DATABASE {} OWNER {}")
            admin.execute(make.format(Identifier(TEMPLATE), Identifier(OWNER)))
        with self.session(ADMIN, TEMPLATE) as admin:
            admin.execute(_ZEROBLOB)
            # What was signed last belongs into another database; for a test, another schema will do.
            admin.execute(f"CREATE SCHEMA signed AUTHORIZATION {SERVICE}".encode())
        with self.session(OWNER, TEMPLATE) as owner:
            migrate_postgres(owner, SERVICE)

    def make_database(self, name: str) -> None:
        """Makes a database with the newest schema and no log."""
        with self.session(ADMIN, "postgres") as admin:
            make = SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
            admin.execute(make.format(Identifier(name), Identifier(TEMPLATE), Identifier(OWNER)))

    def drop_database(self, name: str) -> None:
        """Ends whoever is in it, and drops it."""
        with self.session(ADMIN, "postgres") as admin:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


class PostgresUnderTest(PostgresDatabase):
    """A database that a test can look into and change as nobody else can."""

    def __init__(self, server: PostgresServer, name: str, folder: Path) -> None:
        self.server, self.name = server, name
        self.dsn_file = folder / f"{name}.dsn"
        self.dsn_file.write_text(server.dsn(SERVICE, name) + "\n")
        self.signed_dsn_file = folder / f"{name}-signed.dsn"
        self.signed_dsn_file.write_text(
            server.dsn(SERVICE, name) + " options='-c search_path=signed'\n"
        )
        super().__init__(
            PostgresSettings(dsn_file=self.dsn_file, last_signed_dsn_file=self.signed_dsn_file)
        )

    def keyring(self) -> Keyring | None:
        """The keys of the openings, if a ledger's process made them."""
        folder = self.dsn_file.with_name(f"{self.dsn_file.name}.opening-keys")
        if not folder.exists():
            return None
        return Keyring(FileKeyProvider(folder), self.key_store(create=False))

    def key_store(self, *, create: bool) -> PostgresKeyStore:
        """Where the wrapped keys are."""
        settings = PostgresSettings(dsn_file=self.dsn_file, key_store_dsn_file=self.signed_dsn_file)
        return PostgresKeyStore.open(settings, create=create)

    def files(self) -> dict[Path, bytes]:
        """The server's files of this database, with all that was committed."""
        self.server.ask("CHECKPOINT")
        ((number,),) = self.rows("SELECT oid FROM pg_database WHERE datname = current_database()")
        folder = self.server.data / "base" / str(number)
        return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def vacuum(self) -> None:
        """What autovacuum does sooner or later, and a little more: pages are written anew."""
        self.change("VACUUM FULL openings")

    @property
    def in_settings(self) -> str:
        """The value of `database` in a ledger's configuration."""
        files = f'dsn_file = "{self.dsn_file}", last_signed_dsn_file = "{self.signed_dsn_file}"'
        files += f', key_store_dsn_file = "{self.signed_dsn_file}"'
        return f"{{ postgres = {{ {files} }} }}"

    def change(self, statement: str, *values: object) -> None:
        """Does it with every trigger switched off, as only a superuser can."""
        with self.server.session(ADMIN, self.name) as admin:
            admin.execute("SET session_replication_role = replica")
            admin.execute(statement.replace("?", "%s").encode(), values or None)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Looks into the tables."""
        with self.server.session(ADMIN, self.name) as admin:
            return admin.execute(question.encode()).fetchall()


@contextlib.contextmanager
def running_server(options: Sequence[str] = ()) -> Iterator[PostgresServer]:
    """A server with the roles and the template."""
    server = PostgresServer(options)
    try:
        server.start()
        server.make_template()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests that do not harm it."""
    with running_server() as server:
        yield server


@pytest.fixture
def mortal_postgres_server() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    with running_server() as server:
        yield server


_numbers = itertools.count()


@pytest.fixture
def postgres_database(
    postgres_server: PostgresServer, tmp_path: Path
) -> Iterator[PostgresUnderTest]:
    """A database with the newest schema and no log."""
    name = f"ledger_{next(_numbers)}"
    postgres_server.make_database(name)
    yield PostgresUnderTest(postgres_server, name, tmp_path)
    postgres_server.drop_database(name)
