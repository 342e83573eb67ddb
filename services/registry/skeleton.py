"""The first version of a folder: as an example to change, or out of a registry file that was in use."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final

from registry.document import AGENCY_FILE, OFFICERS_FILE
from shared.registry import Registry

EXAMPLE_NAME: Final = "Our name"
"""Of an agency that has not said its own yet."""
_EXAMPLE_AGENCY = """
# Remove the "#" from what you have, and change it. docs/registry.md says what each line means.

# [systems.our-system]
# name = "Our system"
# commercial = false

# [galleries.our-booking]
# name = "Booking photographs"
# system = "our-system"
# gallery_class = "booking_photos"
# origin = "criminal_proceedings"
# records = 120000
# as_of = {day}

# [lists.our-fr-users]
# title = "Personnel who may use face recognition"
"""
_EXAMPLE_OFFICERS = """# Private: never hand this file or officers.secret to anybody.

# [officers.our-40123]
# active = true
# lists = ["our-fr-users"]
# certificates = { COURSE = 2027-01-31 }
"""


def files(owner: str, vkey: str, known: Registry | None, day: date) -> Mapping[str, str]:
    """The text of each file; with a registry, what it has of the owner, without the galleries' sizes."""
    agency = known.agencies.get(owner) if known is not None else None
    is_agency = len(owner) == 9
    lines = [f"owner = {_text(owner)}"]
    if known is not None and owner in known.unions:
        lines.append(f"members = {_value(known.unions[owner])}")
    if is_agency:
        # An ORI begins with its State, and a jurisdiction cannot be changed once it is published.
        begun = {"name": EXAMPLE_NAME, "jurisdiction": f"US-{owner[:2]}"}
        said = agency.model_dump() if agency else begun
        lines += _table("agency", said)
    lines += _table("keys", {"registry": [vkey]})
    if known is not None:
        lines += _owned(known, owner, day)
    elif is_agency:
        lines.append(_EXAMPLE_AGENCY.format(day=day.isoformat()).rstrip())
    written = {AGENCY_FILE: "\n".join(lines) + "\n"}
    if is_agency:
        officers = [
            line
            for name, officer in (known.officers.items() if known is not None else ())
            if officer.agency == owner
            for line in _table(f"officers.{name}", officer.model_dump(exclude={"agency"}))
        ]
        written[OFFICERS_FILE] = "\n".join(officers) + "\n" if officers else _EXAMPLE_OFFICERS
    return written


def _owned(known: Registry, owner: str, day: date) -> Iterator[str]:
    for name, system in known.systems.items():
        if system.operator == owner:
            yield from _table(f"systems.{name}", system.model_dump(exclude={"operator"}))
    for name, gallery in known.galleries.items():
        if gallery.owner == owner:
            said = {**gallery.model_dump(exclude={"owner"}), "records": 0, "as_of": day}
            yield from _table(f"galleries.{name}", said)
    for name, kept in known.lists.items():
        if kept.owner == owner:
            others = {
                officer.agency for officer in known.officers.values() if name in officer.lists
            }
            entered_by = sorted(others - {owner})
            yield from _table(f"lists.{name}", {"title": kept.title, "entered_by": entered_by})
    for name, offences in known.offence_sets.items():
        if offences.owner == owner:
            yield from _table(f"offence_sets.{name}", offences.model_dump(exclude={"owner"}))
    for name, body in known.oversight.items():
        if body.jurisdictions == (owner,):
            yield from _table(f"oversight.{name}", body.model_dump())


def _table(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"[{name}]"
    for key, value in said.items():
        if value is not None and value not in ((), [], {}):
            yield f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, date):
        return value.isoformat()
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
