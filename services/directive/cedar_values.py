"""Cedar's values in Python, for rules that are compiled: facts, entities, and the question that is asked.

Invariant: no set holds a truth value, which Python would take for a number.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

from directive.vocabulary import NAMESPACE

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?(Z|[+-](?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})))?"
)


class Uid(NamedTuple):
    """An entity by its type and name, of no type that any other value has."""

    kind: str
    name: str


Value: TypeAlias = bool | int | str | Uid | datetime | frozenset[Any]
"""Times are in UTC without saying so: comparing them is quicker."""


class NotCompiled(Exception):
    """The rules have something that is not known here: ask the engine."""


class Unsure(Exception):
    """What came up is not known here: ask the engine."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What is known of one entity."""

    attributes: Mapping[str, Value] = field(default_factory=dict)
    tags: Mapping[str, Value] = field(default_factory=dict)
    ancestors: frozenset[Uid] = frozenset()


Entities: TypeAlias = Mapping[Uid, Entity]


@dataclass(slots=True)
class Asked:
    """One question: who asks for what, and the facts."""

    principal: Uid
    resource: Uid
    context: dict[str, Value]


def action(name: str) -> Uid:
    """An action of the vocabulary."""
    return Uid(f"{NAMESPACE}::Action", name)


def moment(text: str) -> datetime | None:
    """A time as Cedar writes it; None for one that is not Cedar's, or not in Python's calendar."""
    spelt = _TIME.fullmatch(text)
    if spelt is None:
        return None
    if spelt["hours"] and (int(spelt["hours"]) > 23 or int(spelt["minutes"]) > 59):
        return None
    try:
        read = datetime.fromisoformat(text)
        return read.astimezone(UTC).replace(tzinfo=None) if read.tzinfo else read
    except (ValueError, OverflowError):
        return None


def known_entities(records: Iterable[Mapping[str, Any]]) -> dict[Uid, Entity]:
    """Entities from Cedar's JSON; raises NotCompiled for a value that is not known here."""
    found = {_uid(record["uid"]): record for record in records}
    parents = {uid: tuple(map(_uid, record["parents"])) for uid, record in found.items()}
    return {
        uid: Entity(
            {name: value_of(value) for name, value in record["attrs"].items()},
            {name: value_of(value) for name, value in record["tags"].items()},
            _ancestors(uid, parents),
        )
        for uid, record in found.items()
    }


def value_of(told: Any) -> Value:
    """A value from Cedar's JSON; raises NotCompiled for one that is not known here."""
    if isinstance(told, bool | int | str):
        return told
    if isinstance(told, list):
        return frozenset(element(value_of(one), NotCompiled) for one in told)
    if isinstance(told, dict) and told.keys() == {"type", "id"}:
        return _uid(told)
    if isinstance(told, dict) and told.get("__extn", {}).get("fn") == "datetime":
        read = moment(told["__extn"]["arg"])
        if read is not None:
            return read
    raise NotCompiled(f"a value of a kind that is not known here: {type(told).__name__}")


def _uid(told: Mapping[str, str]) -> Uid:
    return Uid(told["type"], told["id"])


def _ancestors(uid: Uid, parents: Mapping[Uid, Sequence[Uid]]) -> frozenset[Uid]:
    found: set[Uid] = set()
    waiting = list(parents.get(uid, ()))
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += parents.get(one, ())
    return frozenset(found)


def element(value: Value, doubt: type[Exception]) -> Value:
    """What may be a member of a set; raises `doubt` for what may not."""
    if type(value) is bool:
        raise doubt("a truth value in a set")
    return value
