"""A large table that never changes: one with other entries shares all but a few small parts of it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

_PARTS: Final = 1024
"""With a hundred thousand officers a part has a hundred; to copy one takes microseconds."""

_Value = TypeVar("_Value")


class Parted(Mapping[str, _Value]):
    """A table by name. In no particular order."""

    __slots__ = ("_length", "_parts")

    def __init__(self) -> None:
        self._parts: tuple[dict[str, _Value], ...] = tuple({} for _ in range(_PARTS))
        self._length = 0

    def __getitem__(self, name: str) -> _Value:
        return self._parts[hash(name) % _PARTS][name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts[hash(name) % _PARTS]

    def __iter__(self) -> Iterator[str]:
        return (name for part in self._parts for name in part)

    def __len__(self) -> int:
        return self._length

    def changed(self, removed: Iterable[str], added: Mapping[str, _Value]) -> "Parted[_Value]":
        """With some taken out and then others put in; raises KeyError for one that is not there."""
        parts, copied = list(self._parts), set()

        def writable(name: str) -> dict[str, _Value]:
            number = hash(name) % _PARTS
            if number not in copied:
                parts[number] = dict(parts[number])
                copied.add(number)
            return parts[number]

        length = self._length
        for name in removed:
            del writable(name)[name]
            length -= 1
        for name, value in added.items():
            part = writable(name)
            length += name not in part
            part[name] = value
        made: Parted[_Value] = Parted.__new__(Parted)
        made._parts, made._length = tuple(parts), length
        return made
