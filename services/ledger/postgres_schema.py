"""The schema of a PostgreSQL database, made and changed by its owner, which the service is not."""

import psycopg
import psycopg.sql

from ledger.migrations.rights import RIGHTS
from ledger.postgres_connection import LOCK_SPACE, MIGRATION_LOCK, Connection
from ledger.schema import newest, require_newest, run_alembic


def postgres_version(connection: Connection) -> str | None:
    """Give the version of a PostgreSQL database; None when it has none of our tables."""
    row = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def migrate_postgres(connection: Connection, role: str, upto: str = "head") -> None:
    """Bring a database to the newest schema, as its owner, and give the service's role its rights.

    One transaction holds all steps; who migrates at the same time waits. Raises NotReady when the
    database is of a schema unknown here.
    """
    import sqlalchemy  # as in `ledger.schema`: every start of the ledger reads this module

    stored = postgres_version(connection)
    connection.autocommit = False
    if stored is not None and stored > newest():
        require_newest(stored, "the database", "")
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: connection, poolclass=sqlalchemy.StaticPool
    )
    with engine.connect() as through:
        lock = f"SELECT pg_advisory_xact_lock({LOCK_SPACE}, {MIGRATION_LOCK})"
        through.exec_driver_sql(lock)
        run_alembic(through, "upgrade", upto)
        if upto == "head":
            for table, rights in RIGHTS.items():
                statement = psycopg.sql.SQL("GRANT {} ON {} TO {}").format(
                    psycopg.sql.SQL(rights),
                    psycopg.sql.Identifier(table),
                    psycopg.sql.Identifier(role),
                )
                through.exec_driver_sql(statement.as_string())
        through.commit()
