"""The tables of release 0.1: head, entries, openings, open searches and tiles."""

from ledger.migrations.statements import refuse_changes, run

revision = "0001"
down_revision = None

SQLITE = [
    """CREATE TABLE head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    checkpoint TEXT NOT NULL
) STRICT""",
    """CREATE TABLE entries (
    entry_index INTEGER PRIMARY KEY,
    leaf BLOB NOT NULL,
    kind INTEGER NOT NULL,
    search_id TEXT,
    origin_agency TEXT,
    idempotency_key TEXT
) STRICT""",
    """CREATE UNIQUE INDEX entries_by_key ON entries (idempotency_key)
    WHERE idempotency_key IS NOT NULL""",
    "CREATE INDEX entries_by_search ON entries (search_id) WHERE search_id IS NOT NULL",
    """CREATE INDEX entries_by_agency ON entries (origin_agency, entry_index, kind)
    WHERE origin_agency IS NOT NULL""",
    "CREATE INDEX entries_by_kind ON entries (kind)",
    """CREATE TABLE openings (
    entry_index INTEGER NOT NULL,
    field TEXT NOT NULL,
    salt BLOB NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (entry_index, field)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE open_searches (
    decided_index INTEGER PRIMARY KEY,
    search_id TEXT NOT NULL UNIQUE
) STRICT""",
    """CREATE TABLE tiles (
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT""",
]

# Text that is only ever compared byte by byte has the collation "C"; what is random is not compressed.
POSTGRES = [
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'what the ledger holds is never changed'
       USING ERRCODE = 'integrity_constraint_violation'; END $$""",
    """CREATE TABLE head (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    size bigint NOT NULL,
    root bytea NOT NULL,
    checkpoint text NOT NULL,
    epoch bigint NOT NULL
)""",
    """CREATE TABLE entries (
    entry_index bigint PRIMARY KEY,
    leaf bytea NOT NULL,
    kind integer NOT NULL,
    search_id text COLLATE "C",
    origin_agency text COLLATE "C",
    idempotency_key text COLLATE "C"
)""",
    """CREATE UNIQUE INDEX entries_by_key ON entries (idempotency_key)
    WHERE idempotency_key IS NOT NULL""",
    "CREATE INDEX entries_by_search ON entries (search_id) WHERE search_id IS NOT NULL",
    """CREATE INDEX entries_by_agency ON entries (origin_agency, entry_index, kind)
    WHERE origin_agency IS NOT NULL""",
    "CREATE INDEX entries_by_kind ON entries (kind, entry_index)",
    """CREATE TABLE openings (
    entry_index bigint NOT NULL,
    field text COLLATE "C" NOT NULL,
    salt bytea NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (entry_index, field)
)""",
    """CREATE TABLE open_searches (
    decided_index bigint PRIMARY KEY,
    search_id text COLLATE "C" NOT NULL UNIQUE
)""",
    """CREATE TABLE tiles (
    level integer NOT NULL,
    number bigint NOT NULL,
    hashes bytea NOT NULL,
    PRIMARY KEY (level, number)
)""",
    "ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL",
    # A head of a smaller size, or of an earlier writer, is what a restored or forked writer would set.
    """CREATE FUNCTION refuse_older_head() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        IF NEW.size < OLD.size OR NEW.epoch < OLD.epoch THEN
            RAISE EXCEPTION 'the head of the ledger never goes back'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER head_never_goes_back BEFORE UPDATE ON head
    FOR EACH ROW EXECUTE FUNCTION refuse_older_head()""",
    *refuse_changes("head", "DELETE", "TRUNCATE"),
    *refuse_changes("entries", "UPDATE", "DELETE", "TRUNCATE"),
    *refuse_changes("tiles", "UPDATE", "DELETE", "TRUNCATE"),
]


def upgrade() -> None:
    """Make the tables."""
    run(sqlite=SQLITE, postgres=POSTGRES)
