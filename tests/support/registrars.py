"""Registrars who order something of an owner."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RegistrarsOrdered
from registry.folding import Fold
from registry.orders import Action, Order
from shared.registrars import Registrars
from support.ledgers import ORIGIN
from support.registrations import signer
from tlog.note import Signer, sign_note

DAY = date(2026, 11, 22)
THREE = tuple(Signer.from_seed(f"registrar-{n}.example", bytes([n]) * 32) for n in (1, 2, 3))
REGISTRARS = Registrars(threshold=2, keys=tuple(one.vkey for one in THREE))


def admitting(*owners: str, registrars: Sequence[Registrars] = (REGISTRARS,)) -> Fold:
    """Nobody has published yet; these may, and registrars are named."""
    return Fold({owner: [signer(owner).vkey] for owner in owners}, ORIGIN, registrars)


def order(
    owner: str,
    action: Action = "expel",
    *keys: str,
    follows: Order | None = None,
    log: str = ORIGIN,
    before: date = date(2026, 12, 1),
    reason: str = "Its keys were found on a lost laptop",
) -> Order:
    """What registrars would sign."""
    digest = follows.sha256 if follows else None
    return Order(log, owner, digest, before, action, keys, "Order 26-17 of the board", reason)


def note(said: Order, by: Sequence[Signer] = THREE[:2]) -> str:
    """Signed, by whomever."""
    return sign_note(said.text, by)


def on_record(said: Order, by: Sequence[Signer] = THREE[:2], day: date = DAY) -> Entry:
    """As the ledger would have it."""
    entry = Entry(registrars_ordered=RegistrarsOrdered(owner=said.owner, note=note(said, by)))
    entry.recorded_at.FromDatetime(datetime.combine(day, datetime.min.time(), UTC))
    return entry
