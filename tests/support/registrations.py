"""Owners that register themselves, sign, and publish to somebody who follows."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from registry import signature
from registry.commitments import Committed, commit
from registry.document import Document, parse_officers, parse_public
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.publication import pending_entries
from registry.published import Applied
from registry.signature import Signed, key_name, statement
from support.directives import registry
from support.ledgers import ORIGIN
from tlog.note import Signer, UnverifiedNote, sign_note

LAPD, LASD, BURBANK, CALIFORNIA = "CA0194200", "CA0190000", "CA0191200", "US-CA"
SECRET = bytes(range(32))

OFFICERS = """
[officers.lapd-40123]
active = true
lists = ["lapd-fr-users"]
certificates = { LACRIS-FR = 2099-01-01 }

[officers.lapd-50999]
active = true
"""


@cache
def signer(owner: str, number: int = 1) -> Signer:
    """The key of an owner."""
    seed = hashlib.sha256(f"{owner} {number}".encode()).digest()
    return Signer.from_seed(f"{owner.lower()}.example/registry", seed)


def agency(owner: str, more: str = "", *, keys: Iterable[str] | None = None) -> str:
    """A short agency.toml, or that of a jurisdiction."""
    listed = ", ".join(f'"{key}"' for key in keys or [signer(owner).vkey])
    head = f'owner = "{owner}"\n'
    if len(owner) == 9:
        head += f'\n[agency]\nname = "The agency {owner}"\njurisdiction = "US-CA"\n'
    return f"{head}\n[keys]\nregistry = [{listed}]\n{more}"


def system(name: str) -> str:
    return f'\n[systems.{name}]\nname = "{name}"\ncommercial = false\n'


def gallery(name: str, within: str, records: int = 1) -> str:
    return (
        f'\n[galleries.{name}]\nname = "{name}"\nsystem = "{within}"\n'
        f'gallery_class = "booking_photos"\nrecords = {records}\nas_of = 2026-11-01\n'
    )


def kept_list(name: str, *entered_by: str) -> str:
    listed = ", ".join(f'"{ori}"' for ori in entered_by)
    return f'\n[lists.{name}]\ntitle = "{name}"\nentered_by = [{listed}]\n'


LAPD_PUBLIC = agency(LAPD, kept_list("lapd-fr-users"))
LASD_PUBLIC = agency(LASD, system("lacris") + gallery("lacris-booking", "lacris"))


def document(public: str, officers: str = "") -> Document:
    """Read as from a folder."""
    read = parse_public("folder/agency.toml", public.encode())
    listed = parse_officers("folder/officers.toml", officers.encode(), read)
    return Document(read, public.encode(), listed)


def signed(read: Document, serial: int, by: Signer | None = None, log: str = ORIGIN) -> Signed:
    """Signed by its owner's key, or another's, for the ledger of tests; "" for none, as version 1 was."""
    key = by or signer(read.owner)
    officers = commit(SECRET, read.owner, read.officers)
    note = sign_note(statement(read, officers, serial, log).text, [key])
    return signature.check("folder", note.encode(), read, SECRET, [key.verifier])


def forged(owner: str, read: Document, officers: tuple[Committed, ...], serial: int) -> Signed:
    """Signed by the owner, whatever it is: not made with our program, which would refuse."""
    said = statement(read, officers, serial, ORIGIN)
    said = dataclasses.replace(said, owner=owner)
    note = UnverifiedNote.parse(sign_note(said.text, [signer(owner)]))
    key = key_name(signer(owner).verifier)
    return Signed(read, officers, said, key, note.signatures[0].signature)


def admitting(*owners: str) -> Fold:
    """Nobody has published yet; these may."""
    return Fold({owner: [signer(owner).vkey] for owner in owners}, ORIGIN)


def openings(pending: PendingEntry) -> Mapping[str, str]:
    """What the ledger would keep of an entry."""
    return {one.field: one.value for one in pending.sensitive}


def published(fold: Fold, ready: Signed) -> list[PendingEntry]:
    """The entries that would publish it now."""
    return pending_entries(ready, fold.previous(ready.document.owner))


def publish(fold: Fold, ready: Signed) -> Applied:
    """Publishes and follows."""
    fold.check(ready)
    *first, last = published(fold, ready)
    for pending in first:
        assert fold.apply(pending.entry, openings(pending)) is None
    applied = fold.apply(last.entry, openings(last))
    assert applied is not None
    return applied


def follow(fold: Fold, ready: Signed) -> Applied | None:
    """Follows what is on record, though nobody tried it before."""
    applied = None
    for pending in published(fold, ready):
        applied = fold.follow(pending.entry, openings(pending))
    return applied


def los_angeles() -> Fold:
    """LASD operates LACRIS; LAPD has two officers, one of them on its list."""
    fold = admitting(LAPD, LASD, BURBANK, CALIFORNIA)
    public = agency(LASD, system("lacris") + gallery("lacris-booking", "lacris"))
    publish(fold, signed(document(public), 1))
    publish(fold, signed(document(agency(LAPD, kept_list("lapd-fr-users")), OFFICERS), 1))
    return fold


def write(
    folder: Path, public: str, officers: str = "", *, serial: int = 1, by: Signer | None = None
) -> Path:
    """A signed folder."""
    folder.mkdir(parents=True)
    (folder / "agency.toml").write_text(public)
    (folder / "officers.secret").write_text(SECRET.hex())
    if officers:
        (folder / "officers.toml").write_text(officers)
    read = document(public, officers)
    note = signature.sign(read, SECRET, serial, by or signer(read.owner), ORIGIN)
    (folder / signature.SIGNATURE_FILE).write_text(note)
    return folder


def state(fold: Fold) -> object:
    """All that can be seen of it."""
    return fold.sha256, fold.registry, fold.owners


def refusal(fold: Fold, ready: Signed) -> str:
    """Why a document is refused: before it is published, and by who follows, who has not changed."""
    before = state(fold)
    with pytest.raises(RegistryRefused) as asked:
        fold.check(ready)
    # Published all the same, as by a service that does not look.
    if "[SERIAL_OLD]" not in str(asked.value):
        *first, last = published(fold, ready)
        for pending in first:
            fold.apply(pending.entry, openings(pending))
        with pytest.raises(RegistryRefused) as followed:
            fold.apply(last.entry, openings(last))
        assert str(followed.value) == str(asked.value)
    assert state(fold) == before
    return str(asked.value)


def demonstration() -> dict[str, tuple[str, str]]:
    """The demonstration's registry as its owners would register it: owner to agency.toml and officers.toml.

    Operators first: a gallery is in a system that somebody operates.
    """
    known = registry().model_dump(mode="json")
    made = {}
    for ori, one in sorted(known["agencies"].items(), reverse=True):
        public = f'owner = "{ori}"\n[agency]\nname = "{one["name"]}"\njurisdiction = "US-CA"\n'
        public += f'[keys]\nregistry = ["{signer(ori).vkey}"]\n'
        for name, its in known["systems"].items():
            if its["operator"] == ori:
                said = str(its["commercial"]).lower()
                public += f'[systems.{name}]\nname = "{its["name"]}"\ncommercial = {said}\n'
        for name, its in known["galleries"].items():
            if its["owner"] == ori:
                public += gallery(name, its["system"]).replace(
                    "booking_photos", its["gallery_class"]
                )
        for name, its in known["lists"].items():
            if its["owner"] == ori:
                public += f'[lists.{name}]\ntitle = "{its["title"]}"\n'
        officers = ""
        for name, its in known["officers"].items():
            if its["agency"] == ori:
                dated = ", ".join(
                    f"{course} = {day}" for course, day in its["certificates"].items()
                )
                officers += f"[officers.{name}]\nactive = {str(its['active']).lower()}\n"
                officers += f"lists = {its['lists']}\ncertificates = {{ {dated} }}\n"
        made[ori] = public, officers
    return made | {"US-CA": (agency("US-CA"), "")}
