"""Openings encrypted at rest. Those of before wait in `clear_openings` until the service seals them."""

from ledger.migrations.statements import run

revision = "0002"
down_revision = "0001"

# Tokens are found block by block, and a block's keys are used one after the other: what is inserted
# together lies together.
_INDEX = "CREATE INDEX openings_by_token ON openings (block, lookup_token) WHERE lookup_token IS NOT NULL"

SQLITE = [
    "ALTER TABLE openings RENAME TO clear_openings",
    """CREATE TABLE openings (
    entry_index INTEGER NOT NULL,
    field TEXT NOT NULL,
    holder TEXT NOT NULL,
    block INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    lookup_token BLOB,
    PRIMARY KEY (entry_index, field)
) STRICT, WITHOUT ROWID""",
    _INDEX,
]

POSTGRES = [
    "ALTER TABLE openings RENAME TO clear_openings",
    "ALTER INDEX openings_pkey RENAME TO clear_openings_pkey",
    """CREATE TABLE openings (
    entry_index bigint NOT NULL,
    field text COLLATE "C" NOT NULL,
    holder text COLLATE "C" NOT NULL,
    block bigint NOT NULL,
    slot integer NOT NULL,
    sealed bytea NOT NULL,
    lookup_token bytea,
    PRIMARY KEY (entry_index, field)
)""",
    "ALTER TABLE openings ALTER COLUMN sealed SET STORAGE EXTERNAL",
    _INDEX,
]


def upgrade() -> None:
    """Put the table for sealed openings in the place of the one for clear ones."""
    run(sqlite=SQLITE, postgres=POSTGRES)
