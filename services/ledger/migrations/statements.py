"""What a migration is written with: statements for each engine, run as they stand."""

from collections.abc import Sequence

from alembic import op


def run(*, sqlite: Sequence[str], postgres: Sequence[str]) -> None:
    """Run the statements of the engine at hand, in their order, one statement each."""
    connection = op.get_bind()
    for statement in sqlite if connection.dialect.name == "sqlite" else postgres:
        connection.exec_driver_sql(statement)


def refuse_changes(table: str, *events: str) -> list[str]:
    """Give PostgreSQL's statements that let nobody, not even the owner, do these things to a table.

    The first migration brings the function that they call. A superuser can still switch triggers off.
    """
    what = f"{table}_is_never_changed BEFORE {' OR '.join(events)} ON {table}"
    return [f"CREATE TRIGGER {what} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"]
