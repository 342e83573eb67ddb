"""Copies SQLite's write-ahead log into the file while appends go on, so that no commit has to wait for it.

The copy needs neither the writer's lock nor the writer. SQLite begins its log anew only when all of it is
copied and nobody writes, so the writer still copies the rest when the log is long: by then little is left.
"""

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Final

from ledger.sqlite_reading import connect

log = logging.getLogger(__name__)

ENTRIES_BETWEEN: Final = 1000
"""About as many pages of the log, 4 MB. Fewer would sync the file more often than it pays for."""
CLOSE_TIMEOUT_S: Final = 10.0
"""Bound on the end of a copy that is under way."""


class Checkpoints:
    """A thread with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = 0
        self._due = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-checkpoints", daemon=True)
        self._thread.start()

    def committed(self, entries: int) -> None:
        """Say that so many entries were committed."""
        self._entries += entries
        if self._entries >= ENTRIES_BETWEEN:
            self._entries = 0
            self._due.set()

    def close(self) -> None:
        """End the thread. What is not copied is copied by the last connection that is closed."""
        self._closing = True
        self._due.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._due.wait() and not self._closing:
            self._due.clear()
            try:
                if connection is None:
                    connection = connect(self._path, "rw")
                    connection.execute("PRAGMA synchronous = FULL")
                # A crash in the middle leaves the log whole, and what was copied is copied again.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error as error:
                # Nothing is lost: the log is there, and the writer copies it. A full disk is its to report.
                log.warning("the write-ahead log was not copied", exc_info=error)
        if connection is not None:
            connection.close()
