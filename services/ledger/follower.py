"""The process that keeps the query index and answers from it: `python -m ledger.follower`.

It follows the ledger by reading, batch after batch, and has the index to itself. Being a process of its
own, it takes neither the interpreter nor the memory of the one that appends, and may end in whatever way
without harm: it is started again and goes on where the index ends.

Before it trusts an index that it finds, and whenever it has caught up, it compares the tree of the leaves
that it indexed with the tree that was signed.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb

from ledger.duties import open_duties
from ledger.index import IndexLocked, QueryIndex
from ledger.index_messages import Answer, Ask, Behind, FollowerSettings, Progress, Unusable
from ledger.index_queries import count, last, page, span
from ledger.reading import Head, Reading, StorageFailed
from ledger.shopping import shopping
from ledger.tree import Tiles, load_published
from shared import logs
from shared.errors import ServiceError
from tlog.cosignature import LogVerifier, parse_log_vkey

log = logging.getLogger(__name__)

BATCH_ENTRIES: Final = 1000
"""Some tens of milliseconds: how long a question waits for a batch under way."""
IDLE_S: Final = 1.0
"""How often the head is looked at when nobody asks; a question has it looked at at once."""
LATE_S: Final = 10.0
"""How long entries that do not fill a batch may wait while nobody asks. Half of what a small batch costs does
not depend on its entries, so that few large ones take least from the appender; and as what waits is less
than a batch, a question waits for one batch more at most."""
NICENESS: Final = 5
"""Where cores are short, appending comes first."""

QUESTIONS: Final[dict[str, Callable[..., Any]]] = {
    "page": page,
    "last": last,
    "count": count,
    "span": span,
    "shopping": shopping,
    "duties": open_duties,
}


class Following(Protocol):
    """What the follower needs of a reader of the ledger."""

    def head(self) -> Head:
        """Read the head."""

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Read entries in order."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class _Waiting:
    ask: Ask
    until: float


class NotAsSigned(Exception):
    """The entries that were read do not come to the tree that was signed."""


def consistent_index(path: Path, reading: Reading, verifiers: Sequence[LogVerifier]) -> QueryIndex:
    """Open the index; it is made anew unless it was made from the first entries of the signed tree."""
    origin = verifiers[0].name
    index = QueryIndex.open(path, origin)
    # The writer goes on meanwhile: what is read a moment later would be of another tree.
    with reading.one_state():
        published = load_published(reading, verifiers)
    if index.size <= published.size:
        tree = published.at(index.size, Tiles(), reading)
        if index.frontier.root() == tree.root:
            return index
    log.warning(
        "the query index is not of this log's entries; made anew",
        extra={"fields": {"indexed": index.size, "size": published.size}},
    )
    index.close()
    return QueryIndex.create(path, origin)


def follow_once(index: QueryIndex, reading: Following, entries_max: int = BATCH_ENTRIES) -> bool:
    """Index the next batch; says whether there was one. Raises NotAsSigned."""
    head = reading.head()
    if index.size >= head.size:
        return False
    leaves = reading.leaves(index.size, min(entries_max, head.size - index.size))
    if not leaves:
        raise NotAsSigned(f"entry {index.size} is missing below the signed size {head.size}")
    index.add(leaves)
    if index.size == head.size and index.frontier.root() != head.root:
        raise NotAsSigned(f"the {head.size} entries do not come to the root that was signed")
    return True


def is_due(entries: int, asked: bool, late: bool) -> bool:
    """Whether entries that are not indexed are wanted, would fill a batch, or have waited long enough."""
    return entries > 0 and (asked or late or entries >= BATCH_ENTRIES)


class Follower:
    """Follows and answers until the other side closes."""

    def __init__(self, peer: Connection, index: QueryIndex, reading: Following) -> None:
        self._peer = peer
        self._index = index
        self._reading = reading
        self._waiting: list[_Waiting] = []
        self._late_at = 0.0

    def run(self) -> None:
        """Raises EOFError when the other side has closed, NotAsSigned when the log is damaged."""
        self._peer.send(Progress(self._index.size))
        while True:
            before = self._index.size
            entries = self._reading.head().size - before
            late = time.monotonic() >= self._late_at
            if is_due(entries, bool(self._waiting), late) and follow_once(
                self._index, self._reading
            ):
                self._peer.send(Progress(self._index.size))
                self._late_at = time.monotonic() + LATE_S
            self._answer()
            far_behind = self._index.size - before >= BATCH_ENTRIES
            if self._peer.poll(0 if far_behind or self._waiting else IDLE_S):
                ask: Ask = self._peer.recv()
                self._waiting.append(_Waiting(ask, time.monotonic() + ask.wait_s))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            ask = one.ask
            if ask.size <= self._index.size:
                answer = QUESTIONS[ask.question](self._index, *ask.arguments)
                self._peer.send(Answer(ask.number, answer))
            elif time.monotonic() >= one.until:
                self._peer.send(Behind(ask.number, self._index.size))
            else:
                self._waiting.append(one)


def serve(peer: Connection) -> None:
    """Work for the other side until it closes."""
    settings: FollowerSettings = peer.recv()
    logs.configure("ledger-index", settings.log_level)
    try:
        reading = settings.database.open_for_reading()
        verifiers = [parse_log_vkey(vkey) for vkey in settings.vkeys]
        index = consistent_index(settings.index, reading, verifiers)
    except IndexLocked as error:
        peer.send(Unusable("INDEX_LOCKED", str(error)))
        return
    except ServiceError as error:
        peer.send(Unusable(error.reason, error.message))
        return
    except StorageFailed as error:
        peer.send(Unusable("LEDGER_UNREADABLE", str(error)))
        return
    except duckdb.Error as error:
        peer.send(Unusable("INDEX_UNUSABLE", f"{settings.index} cannot be written: {error}"))
        return
    try:
        Follower(peer, index, reading).run()
    except NotAsSigned as error:
        log.error("the query index does not agree with the log", extra={"fields": {}})
        index.close()
        QueryIndex.create(settings.index, index.origin).close()
        peer.send(Unusable("INDEX_NOT_AS_SIGNED", f"{error}; run the ledger's check"))
    except (EOFError, BrokenPipeError, ConnectionResetError, StorageFailed):
        index.close()  # started again, it reads on
    finally:
        reading.close()


def main() -> None:
    """Entry point; the only argument is the file descriptor of the other side."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal's Ctrl-C is for the one that started us
    os.nice(NICENESS)
    with Connection(int(sys.argv[1])) as peer:
        serve(peer)


if __name__ == "__main__":
    main()
