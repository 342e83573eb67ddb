"""`countersign registry list`: who takes part, worked out from what is public."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.output import OK, cells, json_option, out, print_json, progress, table
from countersign.client import ClientSettings
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from registry.findings import RegistryRefused
from registry.public import PublicDocuments
from registry.rulings import Ruled
from shared.kinds import DOCUMENTS, REGISTRATIONS
from shared.registry import TrustRoots
from shared.settings import SettingsError
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError


@dataclass(frozen=True)
class _Owner:
    """One owner as it stands."""

    name: str
    serial: int | None
    """None where it has published nothing."""
    entry: int | None
    """Of its newest publication that counts."""
    ruled: Ruled | None
    ordered: int | None
    """The entry of the newest order about it that counts."""

    @property
    def state(self) -> str:
        """How it stands, in a word or two."""
        if self.ruled is not None and self.ruled.expelled:
            return "expelled"
        if self.ruled is not None and not self.ruled.answered:
            return "given new keys"
        return "registered" if self.serial is not None else "nothing published"

    @property
    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        shown = {
            "owner": self.name,
            "state": self.state,
            "serial": self.serial,
            "entry": self.entry,
        }
        if self.ruled is None:
            return {**shown, "order": None}
        order = self.ruled.order
        told = {
            "entry": self.ordered,
            "order": order.action,
            "sha256": order.sha256.hex(),
            "authority": order.authority,
            "reason": order.reason,
            "signed_by": list(self.ruled.signed_by),
        }
        return {**shown, "order": told}


@click.command("list")
@config_option
@json_option
def list_owners(config: Path, as_json: bool) -> int:
    """List owners, and what registrars have ordered of them, as public entries and your trust roots have it.

    Nobody is asked who counts: signatures, quorums and the order of documents are looked at here. Your trust
    roots must name who may register (`registry_signers`) and the registrars.

    \b
    Example:
      countersign registry list
    """
    settings = load(config)
    with progress("reading the ledger's documents"):
        owners = run(_read(settings))
    if as_json:
        print_json({"owners": [one.as_dict for one in owners]})
        return OK
    rows = table(
        *("owner", "state", "serial", "entry", "order", "by", "authority and reason"),
        text={"authority and reason", "by"},
        below={"authority and reason": "owner"},
    )
    for one in owners:
        rows.add_row(*cells(*_row(one)))
    out().print(rows)
    return OK


def _row(one: _Owner) -> tuple[object, ...]:
    known = "-" if one.serial is None else one.serial
    at = "-" if one.entry is None else one.entry
    if one.ruled is None:
        return one.name, one.state, known, at, "-", "-", ""
    order = one.ruled.order
    said = f"{order.authority}: {order.reason} (order sha256:{order.sha256.hex()})"
    ordered = f"{order.action}, entry {one.ordered}"
    return one.name, one.state, known, at, ordered, ", ".join(one.ruled.signed_by), said


async def _read(settings: ClientSettings) -> list[_Owner]:
    trust = TrustRoots.load(settings.trust_roots)
    if not trust.registry_signers:
        raise SettingsError(
            f"{settings.trust_roots}: registry_signers is missing: nobody is known who may register"
        )
    found = []
    async with LedgerClient.connect(settings) as client:
        for kind in DOCUMENTS:
            wanted = ListEntriesRequest(kind=str(kind))
            found += [(one.index, one.leaf) async for one in client.entries(wanted)]
    try:
        return _owners(trust, sorted(found))
    except (TlogError, RegistryRefused) as error:
        raise SettingsError(f"what the ledger holds cannot be followed: {error}") from error


def _owners(trust: TrustRoots, documents: list[tuple[int, bytes]]) -> list[_Owner]:
    followed = PublicDocuments(trust, parse_log_vkey(trust.log_verifier_keys[0]).name)
    fold = followed.fold
    entries: dict[str, int] = {}
    ordered: dict[str, int] = {}
    for index, leaf in documents:
        entry = Entry.FromString(leaf)
        owner = _concerned(entry)
        before = fold.published(owner), fold.ruled(owner)
        followed.follow(index, entry, {})
        if fold.published(owner) is not before[0]:
            entries[owner] = index
        elif fold.ruled(owner) is not before[1]:
            ordered[owner] = index
    names = sorted({*trust.registry_signers, *fold.owners})
    return [
        _Owner(
            name,
            published.statement.serial if (published := fold.published(name)) else None,
            entries.get(name),
            fold.ruled(name),
            ordered.get(name),
        )
        for name in names
    ]


def _concerned(entry: Entry) -> str:
    """Whose standing it may change; empty for a directive."""
    kind = entry.WhichOneof("event")
    if kind in REGISTRATIONS:
        return str(getattr(entry, kind).statement.owner)
    return entry.registrars_ordered.owner
