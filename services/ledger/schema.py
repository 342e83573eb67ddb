"""Which schema a database has, and how it comes to the one that this program knows.

The versions are those of `ledger/migrations`, which alembic runs. A SQLite file says by its
`user_version` whether alembic has numbered it: files of release 0.1 are of version 1 and are adopted
as they are.
"""

import contextlib
import re
import sqlite3
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.errors import NotReady

if TYPE_CHECKING:
    import sqlalchemy

FOLDER: Final = Path(__file__).parent / "migrations"

UNNUMBERED: Final = 1
"""The `user_version` of a file of release 0.1, whose tables are those of the first migration."""
NUMBERED: Final = 2
"""The `user_version` since: the table `alembic_version` has the version. Release 0.1 refuses it."""

FIRST: Final = "0001"
_MODULE = re.compile(r"v(\d{4})_\w+\.py")


@cache
def newest() -> str:
    """Give the version that this program works with."""
    names = (_MODULE.fullmatch(one.name) for one in (FOLDER / "versions").iterdir())
    return max(name[1] for name in names if name)


def require_newest(stored: str | None, where: str, migrating: str) -> None:
    """Raise NotReady unless the stored version is the one that this program works with.

    `migrating` says what brings an older one up to date.
    """
    known = newest()
    if stored is None or not stored.isdecimal():
        raise NotReady("LEDGER_SCHEMA", f"{where} is no ledger: it has no version of our schema")
    if stored > known:
        raise NotReady(
            "LEDGER_SCHEMA",
            f"{where} has schema {stored}, and this program knows no later one than {known}: "
            "run the release that wrote it, or a later one",
        )
    if stored < known:
        raise NotReady(
            "LEDGER_SCHEMA", f"{where} has schema {stored}, this program needs {known}: {migrating}"
        )


def sqlite_version(connection: sqlite3.Connection) -> str | None:
    """Give the version of a SQLite file; None when it is not one of ours."""
    (numbering,) = connection.execute("PRAGMA user_version").fetchone()
    if numbering == UNNUMBERED:
        return FIRST
    if numbering != NUMBERED:
        return None
    with contextlib.suppress(sqlite3.OperationalError):
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    return None


def migrate_sqlite(connection: sqlite3.Connection, *, begin: bool = False) -> None:
    """Bring a SQLite file to the newest schema; `begin` makes the tables in an empty one.

    One transaction holds all steps. Raises sqlite3.Error, and NotReady when the file is of a schema unknown
    here.
    """
    (numbering,) = connection.execute("PRAGMA user_version").fetchone()
    stored = sqlite_version(connection)
    if stored == newest() and numbering == NUMBERED:
        return
    if stored is None and begin and numbering == 0:
        stored = ""
    elif stored is None or stored > newest():
        require_newest(stored, "the file", "")
    import sqlalchemy  # half a second, which a start with nothing to migrate saves

    engine = sqlalchemy.create_engine(
        "sqlite://", creator=lambda: connection, poolclass=sqlalchemy.StaticPool
    )
    # The connection is the caller's: it is handed back open, without the pool's resetting it.
    try:
        with engine.connect() as through:
            through.exec_driver_sql("BEGIN IMMEDIATE")
            if numbering == UNNUMBERED:
                run_alembic(through, "stamp", FIRST)
            run_alembic(through, "upgrade", "head")
            through.exec_driver_sql(f"PRAGMA user_version = {NUMBERED}")
            through.commit()
    except sqlalchemy.exc.DBAPIError as error:
        # A full disk, a damaged file: callers know what SQLite says of it.
        raise error.orig or error from error


def run_alembic(connection: "sqlalchemy.Connection", command: str, version: str) -> None:
    """Have alembic do something within the transaction that is open."""
    import alembic.command
    import alembic.config

    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    getattr(alembic.command, command)(config, version)
