"""The store of several replicas: a PostgreSQL database that one of them writes at a time.

Who may write is decided by the database, three times over:
- the writer's session holds an advisory lock. The same session writes, so that a writer that has lost
  the lock has lost its transaction too;
- each writer that takes the lock raises the epoch in the head row, and sets a head only where it finds
  its own epoch and the size that it knows;
- a writer that falls silent, frozen or cut off, is ended by the server within seconds; a candidate
  ends it if the server does not.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, LiteralString

import psycopg

from ledger.entry import CompletedEntry
from ledger.last_signed import LastSigned
from ledger.postgres_connection import (
    FAILURES,
    IDLE_SESSION_MS_MAX,
    LOCK_SPACE,
    WRITER_LOCK,
    Connection,
    PostgresSettings,
    connect,
    connection_parameters,
    has_synchronous_standby,
    open_last_signed,
)
from ledger.postgres_reading import PostgresReading, WritersReading
from ledger.postgres_schema import postgres_version
from ledger.reading import Reading
from ledger.schema import require_newest
from ledger.storage import Database, Head, Storage, StorageFailed, StorageInDoubt
from shared.entry_facts import ENDS
from shared.errors import NotReady, Unavailable
from tlog.tiles import FullTile

log = logging.getLogger(__name__)

SPEAK_EVERY_S: Final = 0.5
"""How often the writer says that it is there when it has nothing to write."""
SILENT_MS_MAX: Final = IDLE_SESSION_MS_MAX + 500
"""A lock's holder that has waited this long for its client is ended by a candidate."""
CLOSE_TIMEOUT_S: Final = 5.0
"""Bound on the end of the thread that speaks."""

_SILENT_HOLDER: Final = """
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (state LIKE 'idle%%' OR wait_event_type = 'Client')
  AND state_change < clock_timestamp() - make_interval(secs => %s)
"""


class PostgresDatabase(Database):
    """A log in a database."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    def __str__(self) -> str:
        return f"the database of {self._settings.dsn_file}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Give the parameters of a connection; raises SettingsError."""
        return connection_parameters(self._settings)

    @property
    def only_read(self) -> bool:
        """Whether this replica is never to write."""
        return self._settings.only_read

    def has_log(self) -> bool:
        """Whether there is a head; raises NotReady or StorageFailed."""
        with self._session(writes=False) as connection, FAILURES:
            return connection.execute("SELECT 1 FROM head").fetchone() is not None

    def begin(self, head: Head) -> None:
        """Begin a new log with this head; raises NotReady when there is one already."""
        with self._session(writes=True) as connection, FAILURES, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, WRITER_LOCK))
            begun = connection.execute(
                "INSERT INTO head (only_row, size, root, checkpoint, epoch)"
                " SELECT 1, %s, %s, %s, 0 WHERE NOT EXISTS (SELECT FROM entries)"
                " ON CONFLICT DO NOTHING RETURNING 1",
                (head.size, head.root, head.checkpoint),
            ).fetchone()
            if begun is None:
                raise NotReady("LEDGER_EXISTS", f"{self} has a log already")

    def open_for_writing(self) -> "PostgresStorage":
        """Take the writer's lock; raises NotReady (LEDGER_LOCKED while another has it)."""
        connection = self._open(writes=True)
        try:
            with FAILURES:
                epoch = self._take(connection)
        except BaseException:
            connection.close()
            raise
        return PostgresStorage(self, connection, epoch)

    def open_for_reading(self) -> PostgresReading:
        """Open a session for reading; raises NotReady or StorageFailed."""
        return PostgresReading(self.parameters, self._open(writes=False))

    def open_last_signed(self) -> LastSigned:
        """Open the record of what was signed last; raises SigningRefused or SettingsError."""
        return open_last_signed(self._settings)

    def _session(self, *, writes: bool) -> AbstractContextManager[Connection]:
        return self._open(writes=writes)

    def _open(self, *, writes: bool) -> Connection:
        connection = connect(self.parameters, writes=writes)
        try:
            with FAILURES:
                stored = postgres_version(connection)
            require_newest(stored, str(self), "run countersign-ledger migrate")
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self, connection: Connection) -> int:
        """Take the lock and the next epoch."""
        if _one(connection, "SELECT pg_is_in_recovery()"):
            raise NotReady("LEDGER_STANDBY", f"{self} is a standby, which cannot be written")
        lock = (LOCK_SPACE, WRITER_LOCK)
        if not _one(connection, "SELECT pg_try_advisory_lock(%s, %s)", lock):
            connection.execute(_SILENT_HOLDER, (*lock, SILENT_MS_MAX / 1000))
            raise NotReady("LEDGER_LOCKED", "another replica has the ledger open for writing")
        if not has_synchronous_standby(connection):
            if self._settings.require_synchronous_standby:
                raise NotReady(
                    "LEDGER_NO_STANDBY",
                    "no standby is synchronous: synchronous_standby_names is empty",
                )
            log.warning("no standby is synchronous: a failover may lose acknowledged entries")
        connection.execute(
            "SELECT set_config('idle_session_timeout', %s, false)", (str(IDLE_SESSION_MS_MAX),)
        )
        epoch = _one(connection, "UPDATE head SET epoch = epoch + 1 RETURNING epoch")
        if epoch is None:
            raise NotReady(
                "LEDGER_MISSING",
                f"{self} has no log; to begin a new one, set create_if_missing = true once",
            )
        return int(epoch)


class PostgresStorage(Storage):
    """The writer's session."""

    def __init__(self, database: PostgresDatabase, connection: Connection, epoch: int) -> None:
        self._database = database
        self._connection = connection
        self._epoch = epoch
        self._warned = False
        self._told: Callable[[], object] = lambda: None
        # Held from begin to commit, so that the thread that speaks never speaks into a batch: a
        # writer that stands still in one is to be ended.
        self._batch = threading.Lock()
        self._in_batch = False
        self._closing = threading.Event()
        connection.add_notice_handler(self._on_notice)
        self._speaking = threading.Thread(target=self._speak, name="ledger-speaks", daemon=True)
        self._speaking.start()

    @property
    def epoch(self) -> int:
        """Which writer this is, counted from the log's beginning."""
        return self._epoch

    def setting(self, name: str) -> str:
        """Give a setting of the session."""
        return str(_one(self._connection, "SELECT current_setting(%s)", (name,)))

    def close(self) -> None:
        """Close the session, and with it give up the lock."""
        self._closing.set()
        self._speaking.join(CLOSE_TIMEOUT_S)
        self._connection.close()

    def _speak(self) -> None:
        while not self._closing.wait(SPEAK_EVERY_S):
            if not self._batch.acquire(blocking=False):
                continue  # a batch is under way: its statements are heard
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error as error:
                log.error("the right to write is lost", exc_info=error)
                self._told()
                return
            finally:
                self._batch.release()
        # The server notices some time later that a session has ended, and who opens the log next would
        # find it locked. Here, as `close` waits no longer for this thread than a frozen server lets it.
        if self._batch.acquire(blocking=False):
            try:
                with contextlib.suppress(psycopg.Error):
                    self._connection.execute(
                        "SELECT pg_advisory_unlock(%s, %s)", (LOCK_SPACE, WRITER_LOCK)
                    )
                # Before the next batch may begin: it fails then, and is not written without the lock.
                self._connection.close()
            finally:
                self._batch.release()

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # A commit that no longer waits for its standby is reported as done, with a warning.
        self._warned |= notice.severity_nonlocalized == "WARNING"

    def head(self) -> Head:
        """Read the head."""
        return self.reading().head()

    def reading(self) -> WritersReading:
        """Give a reader on the writer's own session."""
        return WritersReading(self._connection)

    def open_reading(self) -> PostgresReading:
        """Open a reader with a session of its own."""
        return PostgresReading.open(self._database.parameters)

    def open_last_signed(self) -> LastSigned:
        """Open the record of what was signed last, which every replica shares."""
        return self._database.open_last_signed()

    def confirm(self, reading: Reading) -> None:
        """Raise Unavailable unless the head bears this writer's epoch.

        One that was frozen may wake while another writes, and does not know it yet.
        """
        assert isinstance(reading, PostgresReading)
        epoch, _ = reading.epoch_and_size()
        if epoch != self._epoch:
            self._told()
            raise Unavailable(
                "LEDGER_NOT_WRITER", "another replica writes the ledger now", retry_after_s=1
            )

    def when_lost(self, told: Callable[[], object]) -> None:
        """Have it said when the session has ended while nothing was written."""
        self._told = told

    # One batch: begin, then what follows in this order, then commit or roll back.

    def begin(self) -> None:
        """Begin a batch."""
        self._batch.acquire()
        try:
            self._execute("BEGIN")
        except BaseException:
            self._batch.release()
            raise
        self._in_batch = True

    def _execute(self, statement: str, *values: object) -> psycopg.Cursor[tuple[Any, ...]]:
        with FAILURES:
            return self._connection.execute(statement, values or None, binary=True)

    def indexes_of(self, keys: Sequence[str]) -> dict[str, int]:
        """Find the entries that bear these idempotency keys."""
        if not keys:
            return {}
        rows = self._execute(
            "SELECT idempotency_key, entry_index FROM entries WHERE idempotency_key = ANY (%b)",
            list(keys),
        )
        return dict(rows.fetchall())

    def add_entries(self, start: int, entries: Sequence[CompletedEntry]) -> None:
        """Insert entries from an index on, with their openings, and what they open and close."""
        numbered = [(i, one, one.columns) for i, one in enumerate(entries, start)]
        # By COPY: the driver takes as long to make arrays of as many values as the server to insert them.
        self._copy(
            "entries (entry_index, leaf, kind, search_id, origin_agency, idempotency_key)",
            ("int8", "bytea", "int4", "text", "text", "text"),
            [
                (i, one.leaf, has.kind, has.search_id, has.origin_agency, one.idempotency_key)
                for i, one, has in numbered
            ],
        )
        self._copy(
            "openings (entry_index, field, holder, block, slot, sealed, lookup_token)",
            ("int8", "text", "text", "int8", "int4", "bytea", "bytea"),
            [(i, *opening) for i, one, _ in numbered for opening in one.openings],
        )
        opened = [(i, has.search_id) for i, _, has in numbered if has.permitted and has.search_id]
        if opened:
            self._execute(
                "INSERT INTO open_searches (decided_index, search_id)"
                " SELECT * FROM unnest(%b::bigint[], %b::text[]) ON CONFLICT DO NOTHING",
                [i for i, _ in opened],
                [search_id for _, search_id in opened],
            )
        ended = [has.search_id for _, _, has in numbered if has.search_id and has.kind in ENDS]
        if ended:
            self._execute("DELETE FROM open_searches WHERE search_id = ANY (%b)", ended)

    def _copy(
        self, into: LiteralString, types: Sequence[str], rows: Sequence[tuple[object, ...]]
    ) -> None:
        if not rows:
            return
        statement = f"COPY {into} FROM STDIN (FORMAT BINARY)"
        with FAILURES, self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def read_back(self, start: int) -> list[bytes]:
        """Read the leaves from an index on, as the database has them."""
        rows = self._execute(
            "SELECT leaf FROM entries WHERE entry_index >= %b ORDER BY entry_index", start
        )
        return [leaf for (leaf,) in rows.fetchall()]

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        """Insert tiles that have become full."""
        for one in tiles:
            self._execute(
                "INSERT INTO tiles (level, number, hashes) VALUES (%b, %b, %b)",
                one.level,
                one.number,
                one.tile.encoded,
            )

    def set_head(self, old_size: int, head: Head) -> None:
        """Replace the head of this size and this writer's epoch."""
        changed = self._execute(
            "UPDATE head SET size = %b, root = %b, checkpoint = %b WHERE size = %b AND epoch = %b",
            head.size,
            head.root,
            head.checkpoint,
            old_size,
            self._epoch,
        )
        if changed.rowcount != 1:
            raise StorageInDoubt(
                f"the head is no longer of size {old_size} and epoch {self._epoch}: another writes"
            )

    def commit(self) -> None:
        """Make the batch durable, here and on the synchronous standby if there is one.

        An error that the server itself reports on a living session means that nothing was kept;
        anything else leaves it open.
        """
        self._warned = False
        try:
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            if error.sqlstate is not None and not self._connection.closed:
                raise StorageFailed(str(error)) from error
            raise StorageInDoubt(str(error)) from error
        finally:
            self._in_batch = False
            self._batch.release()
        if self._warned:
            raise StorageInDoubt("the commit did not wait for its standby")

    def roll_back(self) -> None:
        """Forget the batch."""
        if not self._in_batch:
            return
        try:
            self._execute("ROLLBACK")
        finally:
            self._in_batch = False
            self._batch.release()


def _one(connection: Connection, question: str, values: Sequence[object] = ()) -> Any:
    row = connection.execute(question, values or None).fetchone()
    return None if row is None else row[0]
