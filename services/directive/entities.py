"""The registry as Cedar entities: each by itself, or all in one handle.

Always built with the schema: without it `action in Action::"search"` is silently false, and a
prohibition written for searches would not apply. Every reference is checked before: a rule that
reads through a dangling one errs, and Cedar skips it.
"""

import functools
import json
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final, TypeAlias

import cedarpy

from countersign.type.v1.search_pb2 import GalleryClass
from directive.guards import KnownNames
from directive.vocabulary import NAMESPACE, Vocabulary
from shared.registry import Gallery, Officer, Registry

ISSUED: Final = ".issued"
"""What follows the course in the tag with the day on which its certificate was issued."""

Uid: TypeAlias = tuple[str, str]
"""Entity type and name: ("Agency", "CA0194200")."""


class EntitiesError(Exception):
    """The registry does not make a sound set of entities; the message names what is wrong."""


def ref(kind: str, name: str) -> dict[str, str]:
    """A reference as Cedar's JSON reads it where the schema says that an entity is meant.

    Measured: the explicit form ("__entity") costs a tenth more for each reference.
    """
    return {"type": f"{NAMESPACE}::{kind}", "id": name}


def known_names(registry: Registry, *, officers_known: bool = True) -> KnownNames:
    """What rules may name."""
    return KnownNames(
        members={
            "Jurisdiction": registry.jurisdictions,
            "Agency": frozenset(registry.agencies),
            "NamedList": frozenset(registry.lists),
            "System": frozenset(registry.systems),
            "Gallery": frozenset(registry.galleries),
            "OffenceSet": frozenset(registry.offence_sets),
        },
        officers={name: officer.agency for name, officer in registry.officers.items()},
        courses=frozenset(tag for _, tags in _tagged(registry) for tag in tags),
        officers_known=officers_known,
    )


def build(registry: Registry, vocabulary: Vocabulary) -> cedarpy.Entities:
    """The handle; raises EntitiesError."""
    found = list(records(registry, vocabulary))
    check_references(found, vocabulary)
    return _parsed(found, vocabulary)


def _parsed(found: list[dict[str, Any]], vocabulary: Vocabulary) -> cedarpy.Entities:
    try:
        return cedarpy.Entities.from_json_str(json.dumps(found), vocabulary.schema)
    except ValueError as error:
        raise EntitiesError(f"the registry does not fit the vocabulary: {error}") from error


def check(registry: Registry, vocabulary: Vocabulary) -> None:
    """Raises EntitiesError where the registry makes no sound set of entities.

    Officers are looked at without the engine: there may be very many, and each is made alike.
    """
    found = list(records_but_officers(registry, vocabulary))
    check_references(found, vocabulary)
    _parsed(found, vocabulary)
    for name, officer in registry.officers.items():
        if officer.agency not in registry.agencies or not registry.lists.keys() >= {*officer.lists}:
            raise EntitiesError(f"officer {name} names what the registry does not have")


def but_officers(registry: Registry) -> Hashable:
    """Equal where all tables but that of the officers are the very same, of registries that still are."""
    tables = (name for name in Registry.model_fields if name != "officers")
    return registry.expelled, *(id(getattr(registry, name)) for name in tables)


def instants(registry: Registry) -> tuple[datetime, ...]:
    """Every time that an entity holds, sorted."""
    return _midnights(registry.days)


@functools.lru_cache(maxsize=8)  # several ask of one registry, and then of the next
def _midnights(days: frozenset[date]) -> tuple[datetime, ...]:
    return tuple(datetime.combine(day, time(), UTC) for day in sorted(days))


def _tagged(registry: Registry) -> Iterator[tuple[str, Mapping[str, date]]]:
    """Every officer's certificates and every agency's agreements, as the tags that rules ask for."""
    for ori, agency in registry.agencies.items():
        yield ori, agency.agreements
    for name, officer in registry.officers.items():
        yield name, certificates(officer)


def certificates(officer: Officer) -> dict[str, date]:
    """The days that an officer's tags tell, by the tag."""
    issued = {f"{course}{ISSUED}": day for course, day in officer.certificates_issued.items()}
    return {**officer.certificates, **issued}


def check_references(found: list[dict[str, Any]], vocabulary: Vocabulary) -> None:
    """Every entity that one names exists; raises EntitiesError. Cedar itself does not look."""
    present = {_uid(record["uid"]) for record in found}
    for kind, words in vocabulary.closed_lists.items():
        present.update((f"{NAMESPACE}::{kind}", word) for word in words)
    for record in found:
        for named in _references([record["attrs"], record["parents"]]):
            if named not in present:
                kind, name = named
                raise EntitiesError(
                    f'{record["uid"]["type"]}::"{record["uid"]["id"]}" names {kind}::"{name}", '
                    "which the registry does not have"
                )


def _uid(value: Mapping[str, str]) -> Uid:
    return value["type"], value["id"]


def _references(value: Any) -> Iterator[Uid]:
    if isinstance(value, list):
        for element in value:
            yield from _references(element)
    elif isinstance(value, dict):
        if value.keys() == {"type", "id"}:
            yield _uid(value)
        else:
            yield from _references(list(value.values()))


def _record(
    kind: str,
    name: str,
    attrs: Mapping[str, Any] | None = None,
    parents: list[dict[str, str]] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "uid": ref(kind, name),
        "attrs": dict(attrs or {}),
        "parents": parents or [],
        "tags": dict(tags or {}),
    }


def records(registry: Registry, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """The registry's entities in Cedar's JSON."""
    yield from records_but_officers(registry, vocabulary)
    for name, officer in registry.officers.items():
        yield _officer(name, officer)


def records_but_officers(registry: Registry, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """Those of which there are few."""
    for code in sorted(registry.jurisdictions):
        yield _record("Jurisdiction", code)
    for name in registry.offence_sets:
        yield _record("OffenceSet", name)
    for kind, table in (
        ("Agency", registry.agencies),
        ("NamedList", registry.lists),
        ("System", registry.systems),
        ("Gallery", registry.galleries),
    ):
        for name in table:
            found = record_of(registry, vocabulary, kind, name)
            assert found is not None, "it is in its table"
            yield found


def record_of(
    registry: Registry, vocabulary: Vocabulary, kind: str, name: str
) -> dict[str, Any] | None:
    """One entity in Cedar's JSON; None when it has nothing to say but its name, or there is none."""
    if kind == "Officer" and name in registry.officers:
        return _officer(name, registry.officers[name])
    if kind == "Agency" and name in registry.agencies:
        agency = registry.agencies[name]
        above = sorted(registry.above(agency.jurisdiction))
        binding = [ref("Jurisdiction", code) for code in (agency.jurisdiction, *above)]
        return _record(kind, name, parents=binding, tags=_instants(agency.agreements))
    if kind == "NamedList" and name in registry.lists:
        return _record(kind, name, {"owner": ref("Agency", registry.lists[name].owner)})
    if kind == "System" and name in registry.systems:
        system = registry.systems[name]
        return _record(
            kind,
            name,
            {"operator": ref("Agency", system.operator), "commercial": system.commercial},
        )
    if kind == "Gallery" and name in registry.galleries:
        return _gallery(name, registry.galleries[name], vocabulary)
    return None


def _officer(name: str, officer: Officer) -> dict[str, Any]:
    return _record(
        "Officer",
        name,
        {"agency": ref("Agency", officer.agency), "active": officer.active},
        [ref("NamedList", listed) for listed in officer.lists],
        _instants(certificates(officer)),
    )


def _gallery(name: str, gallery: Gallery, vocabulary: Vocabulary) -> dict[str, Any]:
    word = vocabulary.word("GalleryClass", gallery.proto_class)
    if word is None:
        raise EntitiesError(f"gallery {name}: {GalleryClass.Name(gallery.proto_class)} has no word")
    return _record(
        "Gallery",
        name,
        {
            "owner": ref("Agency", gallery.owner),
            "system": ref("System", gallery.system),
            "class": ref("GalleryClass", word),
        },
        [ref("System", gallery.system)],
    )


_DATETIME: Final = "datetime"


def _instants(days: Mapping[str, date]) -> dict[str, Any]:
    return {tag: _instant(day) for tag, day in days.items()}


def _instant(day: date) -> dict[str, Any]:
    """Midnight UTC at the beginning of the day. Tags need the explicit form."""
    return {"__extn": {"fn": _DATETIME, "arg": day.isoformat()}}
