"""What the service's own role may do with each table in PostgreSQL; the tables' owner it is not.

Given anew after every migration, so that a table that is added needs a line here and nothing else.
What must never change has no UPDATE and no DELETE here, and a trigger that refuses them besides.
"""

from typing import Final

RIGHTS: Final = {
    "alembic_version": "SELECT",
    "head": "SELECT, INSERT, UPDATE",
    "entries": "SELECT, INSERT",
    "openings": "SELECT, INSERT, UPDATE, DELETE",
    "clear_openings": "SELECT, DELETE",
    "open_searches": "SELECT, INSERT, DELETE",
    "tiles": "SELECT, INSERT",
}
