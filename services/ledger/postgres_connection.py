"""How the ledger connects to PostgreSQL, and what it demands of the server before it trusts it."""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ledger.last_signed import LastSigned
from ledger.postgres_last_signed import PostgresLastSigned
from ledger.reading import StorageFailed
from shared.errors import NotReady
from shared.settings import ConfigPath, Section, SettingsError

CONNECT_TIMEOUT_S: Final = 5
UNANSWERED_MS_MAX: Final = 3000
"""After this without an acknowledgement the network is taken for broken, here and by the server."""
IDLE_IN_TRANSACTION_MS_MAX: Final = 2000
"""A writer that stands still in a transaction, as when it is frozen, loses it, and with it its turn."""
IDLE_SESSION_MS_MAX: Final = 3000
"""The writer speaks every half second; who is silent for this long is gone, and another takes over."""
ANSWER_MS_MAX: Final = 30_000
"""Bound on one question of a reader. The writer has none: a cancelled commit may have happened."""

LOCK_SPACE: Final = int.from_bytes(hashlib.sha256(b"countersign ledger").digest()[:3])
WRITER_LOCK: Final = 1
MIGRATION_LOCK: Final = 2

Connection = psycopg.Connection[tuple[Any, ...]]

_NAMED = re.compile(r"(?<!:):([a-z_]+)")


class PostgresSettings(Section):
    """A log in a PostgreSQL database."""

    dsn_file: ConfigPath
    """File with the connection string of the service's role: a URI, or `key=value` words. It holds the
    password, so that no configuration file does."""
    authority: ConfigPath | None = None
    """Certificates of the authorities that the server's certificate is checked against, with its name
    (`sslmode=verify-full`)."""
    dangerously_trust_any_server: bool = False
    """Connect over a network without checking the server's certificate."""
    last_signed_dsn_file: ConfigPath | None = None
    """The same for the database that remembers what was signed last, for any replica: on another server
    than the log's, or at least in no backup of it. `last_signed` names a file instead."""
    key_store_dsn_file: ConfigPath | None = None
    """The same for the database with the wrapped keys of the openings, on another server than the log's or
    with backups of its own; `openings.key_store` names a file instead, which only one machine reaches."""
    only_read: bool = False
    """This replica never writes: it serves reads, from a hot standby if the connection leads there."""
    require_synchronous_standby: bool = False
    """Refuse to write unless each commit waits for a standby. Without one, a failover may lose entries
    that were acknowledged."""


def connection_parameters(settings: PostgresSettings) -> dict[str, Any]:
    """Read the connection string and add what we demand; raises SettingsError."""
    return parameters_from(
        settings.dsn_file, settings.authority, trust_any=settings.dangerously_trust_any_server
    )


def open_last_signed(settings: PostgresSettings) -> LastSigned:
    """Open the record of the last signature; raises SigningRefused or SettingsError."""
    return PostgresLastSigned.open(last_signed_parameters(settings))


def last_signed_parameters(settings: PostgresSettings) -> dict[str, Any]:
    """Read the connection string of the record's database; raises SettingsError."""
    if settings.last_signed_dsn_file is None:
        raise SettingsError(
            "database.postgres.last_signed_dsn_file: say where what was signed last is remembered"
        )
    return parameters_from(
        settings.last_signed_dsn_file,
        settings.authority,
        trust_any=settings.dangerously_trust_any_server,
    )


def parameters_from(file: Path, authority: Path | None, *, trust_any: bool) -> dict[str, Any]:
    """Read a connection string from a file; raises SettingsError, which never quotes it."""
    try:
        given = conninfo_to_dict(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError, psycopg.ProgrammingError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no connection string"
        raise SettingsError(f"database.postgres: {file}: {why}") from None
    if authority is not None:
        given |= {"sslmode": "verify-full", "sslrootcert": str(authority)}
    if not trust_any and given.get("sslmode") != "verify-full" and not _is_local(given):
        raise SettingsError(
            f"database.postgres: {file} leads over a network without a check of the server's "
            "certificate; give its authority, or a socket's folder as the host"
        )
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": UNANSWERED_MS_MAX,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "application_name": "countersign-ledger",
        **given,
    }


def _is_local(given: Mapping[str, Any]) -> bool:
    hosts = str(given.get("host") or given.get("hostaddr") or "").split(",")
    return all(host == "" or host.startswith(("/", "@")) for host in hosts)


class PostgresFailures:
    """Around whatever speaks with PostgreSQL: says in the ledger's own words that it failed."""

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, psycopg.Error):
            raise StorageFailed(str(error)) from error


FAILURES: Final = PostgresFailures()


def connect(parameters: Mapping[str, Any], *, writes: bool) -> Connection:
    """Open a session; raises StorageFailed, or NotReady when the server cannot keep a ledger."""
    with FAILURES:
        connection: Connection = psycopg.connect(**parameters, autocommit=True)
        try:
            _prepare(connection, writes=writes)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: Connection, *, writes: bool) -> None:
    wanted: dict[str, object] = {
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS_MAX,
        "tcp_user_timeout": UNANSWERED_MS_MAX,
    }
    if not writes:
        # A reader's whole check of the log is one long transaction.
        wanted = {"default_transaction_read_only": "on", "statement_timeout": ANSWER_MS_MAX}
    for name, value in wanted.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
    if not writes:
        return
    names = ("fsync", "full_page_writes", "synchronous_commit")
    found = {one: _setting(connection, one) for one in names}
    unsafe = [one for one in ("fsync", "full_page_writes") if found[one] != "on"]
    if unsafe:
        raise NotReady(
            "LEDGER_NOT_DURABLE",
            f"the PostgreSQL server runs with {unsafe[0]} = {found[unsafe[0]]}",
        )
    if found["synchronous_commit"] not in ("on", "remote_apply"):
        connection.execute("SET synchronous_commit = on")


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def has_synchronous_standby(connection: Connection) -> bool:
    """Whether commits wait for a standby."""
    return _setting(connection, "synchronous_standby_names") != ""


@cache
def in_postgres_words(question: str) -> str:
    """Turn `:name` into the driver's way to name a value. Only our own few questions come here."""
    return _NAMED.sub(r"%(\1)s", question)
