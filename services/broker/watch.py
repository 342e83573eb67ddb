"""Searches that this broker knows of, and those who wait for them to change."""

import asyncio
from collections import Counter, OrderedDict
from contextlib import AbstractContextManager
from typing import Final

from broker.record import Record
from countersign.connector.v1.connector_pb2 import SignedAnswer

RECORDS_MAX: Final = 10_000
"""Ended searches kept at hand; older ones are looked up in the ledger."""
ANSWERS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Sealed answers kept at hand; older ones are fetched from the bus."""


class KnownSearches:
    """What this broker has at hand. A cache: all of it can be had from the ledger and the bus."""

    def __init__(self) -> None:
        self.open: dict[str, Record] = {}
        self.in_flight: Counter[str] = Counter()
        """How many each agency has that are open or being submitted, and each officer."""
        self._held: dict[str, list[str]] = {}
        self._ended: OrderedDict[str, Record] = OrderedDict()
        self._answers: OrderedDict[str, SignedAnswer] = OrderedDict()
        self._answers_bytes = 0
        self._changes: dict[str, list[asyncio.Event]] = {}
        self.stopping = False
        """Nobody is to wait here any longer."""

    def under_way(self) -> int:
        """How many are open or being submitted."""
        return len(self._held)

    def get(self, search_id: str) -> Record | None:
        """The record, if at hand."""
        found = self.open.get(search_id)
        return found if found is not None else self._ended.get(search_id)

    def put(self, record: Record) -> None:
        """Keeps a record and wakes those who watch it. An ended search never opens again."""
        search_id = record.search_id
        if record.is_open:
            if search_id not in self._ended:
                self.open[search_id] = record
                self.hold(search_id, record.origin_agency)
        else:
            self.forget(search_id)
            self._ended[search_id] = record
            while len(self._ended) > RECORDS_MAX:
                self._ended.popitem(last=False)
        for changed in self._changes.get(search_id, ()):
            changed.set()

    def hold(self, search_id: str, name: str) -> None:
        """Counts the search as this name's until it has ended or is let go."""
        if name not in (held := self._held.setdefault(search_id, [])):
            held.append(name)
            self.in_flight[name] += 1

    def let_go(self, search_id: str) -> None:
        """Counts it no longer, unless it is open."""
        if search_id not in self.open:
            self.forget(search_id)

    def forget(self, search_id: str) -> None:
        """Has it no longer at hand as open: it has ended, here or elsewhere."""
        self.open.pop(search_id, None)
        for name in self._held.pop(search_id, ()):
            self.in_flight[name] -= 1
            if not self.in_flight[name]:
                del self.in_flight[name]

    def answer(self, search_id: str) -> SignedAnswer | None:
        """The answer, if at hand."""
        return self._answers.get(search_id)

    def put_answer(self, search_id: str, answer: SignedAnswer) -> None:
        """Keeps an answer at hand, at the cost of the oldest."""
        if search_id in self._answers:
            return
        self._answers[search_id] = answer
        self._answers_bytes += answer.ByteSize()
        while self._answers_bytes > ANSWERS_BYTES_MAX:
            _, dropped = self._answers.popitem(last=False)
            self._answers_bytes -= dropped.ByteSize()

    def stop(self) -> None:
        """Wakes everybody who waits: the broker is about to end, and another takes their next call."""
        self.stopping = True
        for events in self._changes.values():
            for changed in events:
                changed.set()

    def changes(self, search_id: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever the search changes."""
        return _Changes(self._changes, search_id)


class _Changes:
    """Listens while it is entered. No generator: nearly every search is waited for."""

    __slots__ = ("_changed", "_listeners", "_search_id")

    def __init__(self, listeners: dict[str, list[asyncio.Event]], search_id: str) -> None:
        self._listeners = listeners
        self._search_id = search_id
        self._changed = asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._listeners.setdefault(self._search_id, []).append(self._changed)
        return self._changed

    def __exit__(self, *_: object) -> None:
        listening = self._listeners[self._search_id]
        listening.remove(self._changed)
        if not listening:
            del self._listeners[self._search_id]
