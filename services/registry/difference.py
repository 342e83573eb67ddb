"""What a new version of a registry document changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.document import Document


@dataclass(frozen=True)
class Change:
    """One thing that was, is, or both."""

    what: str
    """Where it stands: "galleries.our-booking.records"."""
    old: str
    """Empty when it is new."""
    new: str
    """Empty when it is gone."""


def compare(old: Document, new: Document) -> list[Change]:
    """All that differs, the public part first."""
    public = _changes("", old.public.model_dump(mode="json"), new.public.model_dump(mode="json"))
    officers = _changes(
        "officers",
        {name: one.model_dump(mode="json") for name, one in old.officers.items()},
        {name: one.model_dump(mode="json") for name, one in new.officers.items()},
    )
    return [*public, *officers]


def _changes(what: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _changes(f"{what}.{key}" if what else str(key), old.get(key), new.get(key))
        return
    yield Change(what, _shown(old), _shown(new))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        said = (f"{key}: {_shown(one)}" for key, one in value.items() if one not in (None, [], {}))
        return ", ".join(said)
    if isinstance(value, list):
        return f"[{', '.join(_shown(one) for one in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
