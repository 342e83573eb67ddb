"""In SQLite, search and idempotency key share an index, and open searches are found by number only.

A search's id is random, so each index by it costs every entry a page of its own, written twice. Keys end
in the id of the search that they are about, as "decided/<search id>" does: sorted by what comes after the
slash, the index by key finds the entries of a search as well, and the one by search holds only those whose
key says otherwise.
"""

from ledger.migrations.statements import run

revision = "0003"
down_revision = "0002"

_NAMED = "substr(idempotency_key, instr(idempotency_key, '/') + 1)"

SQLITE = [
    "DROP INDEX entries_by_key",
    "DROP INDEX entries_by_search",
    f"""CREATE UNIQUE INDEX entries_by_key ON entries ({_NAMED}, idempotency_key)
    WHERE idempotency_key IS NOT NULL""",
    f"""CREATE INDEX entries_by_search ON entries (search_id)
    WHERE search_id IS NOT NULL AND (idempotency_key IS NULL OR {_NAMED} <> search_id)""",
    """CREATE TABLE open_searches_by_number (
    decided_index INTEGER PRIMARY KEY,
    search_id TEXT NOT NULL
) STRICT""",
    "INSERT INTO open_searches_by_number SELECT decided_index, search_id FROM open_searches",
    "DROP TABLE open_searches",
    "ALTER TABLE open_searches_by_number RENAME TO open_searches",
]


def upgrade() -> None:
    """Make the indexes anew, and the table of open searches."""
    run(sqlite=SQLITE, postgres=[])
