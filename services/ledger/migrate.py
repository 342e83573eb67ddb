"""`countersign-ledger migrate CONFIG --owner-dsn-file FILE`: makes or updates PostgreSQL's tables."""

import argparse
import contextlib
import sys
from pathlib import Path

import psycopg

from ledger.config import LedgerSettings
from ledger.postgres_connection import connection_parameters, parameters_from
from ledger.postgres_schema import migrate_postgres
from ledger.schema import newest
from shared.errors import NotReady
from shared.settings import SettingsError


def run_migrate(arguments: list[str]) -> int:
    """Bring the database to the newest schema. Exit codes: 0 done, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger migrate",
        description="Makes the tables of a log in PostgreSQL, or brings them to this release's schema, and "
        "gives the service's role its rights. A SQLite file is migrated when the service opens it.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument(
        "--owner-dsn-file",
        type=Path,
        required=True,
        help="connection string of the role that owns the tables, which the service's does not",
    )
    given = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(given.config)
        if isinstance(settings.database, Path):
            raise SettingsError("database: a SQLite file is migrated when the service opens it")
        postgres = settings.database.postgres
        role = connection_parameters(postgres).get("user")
        if not role:
            raise SettingsError(f"database.postgres: {postgres.dsn_file} names no user")
        owner = parameters_from(
            given.owner_dsn_file,
            postgres.authority,
            trust_any=postgres.dangerously_trust_any_server,
        )
        with contextlib.closing(psycopg.connect(**owner)) as connection:
            migrate_postgres(connection, str(role))
    except SettingsError as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (NotReady, psycopg.Error) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"MIGRATED: the schema is {newest()}\n")
    return 0
