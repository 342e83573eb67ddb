"""Stores that fail in a named way: each around a real one, of whichever engine."""

import threading
from collections.abc import Callable, Iterable, Sequence

from ledger.entry import CompletedEntry
from ledger.last_signed import LastSigned
from ledger.reading import Reading
from ledger.storage import Head, Storage, StorageFailed, StorageInDoubt
from support.waiting import WAIT_S_MAX
from tlog.tiles import FullTile


class StorageAround(Storage):
    """Does what the store within does."""

    def __init__(self, within: Storage) -> None:
        self._within = within

    def close(self) -> None:
        self._within.close()

    def head(self) -> Head:
        return self._within.head()

    def reading(self) -> Reading:
        return self._within.reading()

    def open_reading(self) -> Reading:
        return self._within.open_reading()

    def open_last_signed(self) -> LastSigned:
        return self._within.open_last_signed()

    def confirm(self, reading: Reading) -> None:
        self._within.confirm(reading)

    def when_lost(self, told: Callable[[], object]) -> None:
        self._within.when_lost(told)

    def begin(self) -> None:
        self._within.begin()

    def indexes_of(self, keys: Sequence[str]) -> dict[str, int]:
        return self._within.indexes_of(keys)

    def add_entries(self, start: int, entries: Sequence[CompletedEntry]) -> None:
        self._within.add_entries(start, entries)

    def read_back(self, start: int) -> list[bytes]:
        return self._within.read_back(start)

    def add_tiles(self, tiles: Iterable[FullTile]) -> None:
        self._within.add_tiles(tiles)

    def set_head(self, old_size: int, head: Head) -> None:
        self._within.set_head(old_size, head)

    def commit(self) -> None:
        self._within.commit()

    def roll_back(self) -> None:
        self._within.roll_back()


class StorageThatKeepsButFails(StorageAround):
    """Commits, and then reports that it could not."""

    def commit(self) -> None:
        super().commit()
        raise StorageInDoubt("disk I/O error")


class StorageThatLosesAndFails(StorageAround):
    """Does not commit, and says it does not know."""

    def commit(self) -> None:
        raise StorageInDoubt("disk I/O error")


class StorageWithAFullDisk(StorageAround):
    """Finds the disk full at the commit, until there is room again."""

    has_room = False

    def commit(self) -> None:
        if not self.has_room:
            raise StorageFailed("database or disk is full")
        super().commit()


class StorageThatTakesItsTime(StorageAround):
    """Stands in the commit until it is told to go on."""

    def __init__(self, within: Storage) -> None:
        super().__init__(within)
        self.committing = threading.Event()
        self.go_on = threading.Event()

    def commit(self) -> None:
        self.committing.set()
        assert self.go_on.wait(WAIT_S_MAX)
        super().commit()


class StorageThatCannotInsert(StorageAround):
    """Finds the store read-only at the first insert, until it is writable again."""

    is_writable = False

    def add_entries(self, start: int, entries: Sequence[CompletedEntry]) -> None:
        if not self.is_writable:
            raise StorageFailed("attempt to write a readonly database")
        super().add_entries(start, entries)


class StorageThatFlipsABit(StorageAround):
    """Gives an entry back with one bit changed."""

    def read_back(self, start: int) -> list[bytes]:
        first, *rest = super().read_back(start)
        return [bytes([first[0] ^ 1]) + first[1:], *rest]
