"""What is wrong with folders before anybody signs them: each by itself, and beside the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from directive.findings import Finding
from registry import document, secret, skeleton
from registry.commitments import commit
from registry.document import Document
from registry.findings import RegistryRefused
from registry.names import OWNED, Names, check_provider, names_in, officer_finding


@dataclass(frozen=True)
class Reviewed:
    """One folder: as it was read, or why it cannot be."""

    folder: Path
    document: Document | None
    findings: tuple[Finding, ...]


def review(folders: Sequence[Path], beside: Sequence[Path] = ()) -> list[Reviewed]:
    """Looks at folders, with the names that they and those beside them have."""
    read = [_read(folder) for folder in folders]
    others = [_read(folder) for folder in beside]
    names, holders, taken = Names(), dict[str, str](), {}
    for one in [*others, *read]:
        if one.document is not None:
            taken[one.folder] = list(_taken(names, one.document))
            names.replace(one.document.public)
    for one in [*others, *read]:
        if one.document is not None:
            for officer in one.document.officers:
                holders.setdefault(officer, one.document.owner)
    found = []
    for one in read:
        more = list(_beside(names, holders, one.document)) if one.document is not None else []
        found.append(
            Reviewed(one.folder, one.document, (*one.findings, *taken.get(one.folder, ()), *more))
        )
    for one in others:
        if one.findings:
            found.append(one)
    return found


def _read(folder: Path) -> Reviewed:
    try:
        read = document.read(folder)
    except RegistryRefused as refused:
        return Reviewed(folder, None, refused.findings)
    found = tuple(_begun(read))
    try:
        commit(secret.of(folder, read), read.owner, read.officers)
    except RegistryRefused as refused:
        return Reviewed(folder, read, (*found, *refused.findings))
    return Reviewed(folder, read, found)


def _taken(names: Names, read: Document) -> Iterator[Finding]:
    """Names that one of those before has."""
    if read.owner in names.publics:
        yield Finding("NAME_TAKEN", read.owner, "owner", "has another folder among these")
    for section in OWNED:
        for name in names_in(read.public, section):
            holder = names.owners.get((section, name), read.owner)
            if holder != read.owner:
                about, message = f"{section}.{name}", f"belongs to {holder}"
                yield Finding("NAME_TAKEN", f"{read.owner}/agency.toml", about, message)


def _begun(read: Document) -> Iterator[Finding]:
    """What `registry init` wrote for its owner to change, and stands there still."""
    agency, file = read.public.agency, f"{read.owner}/{document.AGENCY_FILE}"
    if agency is not None and agency.name == skeleton.EXAMPLE_NAME:
        place = document.place_of(read.public_bytes.decode(), ("agency", "name"))
        message = f"is still {agency.name!r}, with which every document begins: write your agency's"
        yield Finding("NAME_NOT_GIVEN", file, "agency.name", message, place)


def _beside(names: Names, holders: Mapping[str, str], read: Document) -> Iterator[Finding]:
    # A name that somebody else has was reported where it was taken.
    public = (one for one in names.check_public(read.public) if one.guard != "NAME_TAKEN")
    yield from public
    yield from check_provider(read.public)
    for officer, standing in read.officers.items():
        if holders[officer] != read.owner:
            message = "is an officer of another agency"
            yield officer_finding("NAME_TAKEN", read.owner, officer, message)
        yield from names.check_lists(read.public, officer, standing.lists)
