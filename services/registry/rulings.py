"""What the registrars have ordered of owners, as far as it counts.

Invariants:
- An order counts once, in its log, before its day, and with a quorum. That follows from public bytes and the
  trust roots.
- From an order on, no key of before signs anything for the owner, whatever documents name it.
- Who is expelled takes part again only once it has published under keys that a later order gave it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from directive.findings import Finding
from registry.findings import refused
from registry.orders import Order, OrderNotProved, SignedOrder, check_quorum
from shared.registrars import Registrars
from tlog.note import Verifier

_NONE: Final = frozenset[bytes]()


@dataclass(frozen=True)
class OwnKeys:
    """The public keys of an owner, to tell those of before from new ones and from a registrar's."""

    ever: frozenset[bytes] = _NONE
    """All with which its documents could be signed at some time."""
    signed_with: frozenset[bytes] = _NONE
    """Those with which it did sign, and those of the trust roots. What it merely names may be another's."""
    given_up: frozenset[bytes] = _NONE
    """Those of before an order."""

    def with_keys(self, keys: Iterable[Verifier], signed_with: Iterable[Verifier]) -> "OwnKeys":
        """After a publication: what it names, and what it was signed with."""
        return replace(
            self,
            ever=self.ever | _public(keys),
            signed_with=self.signed_with | _public(signed_with),
        )

    def replaced_by(self, keys: Iterable[Verifier]) -> "OwnKeys":
        """After an order."""
        new = _public(keys)
        return replace(self, ever=self.ever | new, given_up=(self.given_up | self.ever) - new)


@dataclass(frozen=True)
class Ruled:
    """How an owner stands by what was ordered of it."""

    order: Order
    """The newest that counts."""
    signed_by: tuple[str, ...]
    """The registrars who did."""
    expelled: bool
    """Whether it counts for nothing."""
    answered: bool = False
    """Whether it has published since, under the keys that it was given."""


class Rulings:
    """The orders that count, by owner."""

    def __init__(self, log: str, registrars: Sequence[Registrars]) -> None:
        self._log = log
        self._registrars = registrars
        self._ruled: dict[str, Ruled] = {}

    def copy(self) -> "Rulings":
        """The same; what is changed in one is not in the other."""
        other = Rulings(self._log, self._registrars)
        other._ruled = dict(self._ruled)
        return other

    def get(self, owner: str) -> Ruled | None:
        """What was ordered of an owner last."""
        return self._ruled.get(owner)

    @property
    def owners(self) -> frozenset[str]:
        """Of whom anything was ordered."""
        return frozenset(self._ruled)

    @property
    def silenced(self) -> frozenset[str]:
        """Owners who have not published since: no key of theirs but those that they were given counts."""
        return frozenset(owner for owner, one in self._ruled.items() if not one.answered)

    def judge(self, entry: Entry, own: OwnKeys | None, *, on_record: bool) -> Ruled:
        """What would count; raises RegistryRefused, and OrderNotProved. Changes nothing.

        `own` are the keys of the owner; None when nobody knows it.
        """
        signed = SignedOrder.parse(entry.registrars_ordered.note)
        order, label = signed.order, signed.label
        day = _recorded(entry)
        if order.owner != entry.registrars_ordered.owner:
            raise refused("ORDER", label, f"is on record for {entry.registrars_ordered.owner!r}")
        if self._log and order.log != self._log:
            message = f"was signed for {order.log}, and this is {self._log}"
            raise refused("SIGNED_FOR_OTHER_LOG", label, message)
        if own is None:
            raise refused("OWNER_UNKNOWN", label, f"{order.owner} is nobody who may register")
        before = self._ruled.get(order.owner)
        if order.follows != (before.order.sha256 if before else None):
            follows, last = _named(order.follows), _named(before.order.sha256 if before else None)
            message = f"follows {follows}; the last about {order.owner} is {last}"
            raise refused("ORDER_REPLAYED", label, message)
        if day is None or day >= order.before:
            raise refused("ORDER_EXPIRED", label, f"could be put on record until {order.before}")
        new = _public(order.verifiers)
        if not on_record and new & own.ever:
            # On record the trust roots may have been given the new key since.
            message = f"gives {order.owner} a key that it had before: make another"
            raise refused("KEY_NOT_NEW", label, message)
        signers = check_quorum(signed, self._registrars, day)
        if _public(signers) & (own.signed_with | new):
            message = f"is signed with a key of {order.owner} itself"
            raise OrderNotProved([Finding("REGISTRAR_IS_OWNER", label, "", message)])
        expelled = order.action == "expel" or (before is not None and before.expelled)
        return Ruled(order, tuple(one.name for one in signers), expelled)

    def take(self, ruled: Ruled) -> None:
        """Makes it count: it was judged."""
        self._ruled[ruled.order.owner] = ruled

    def answer(self, owner: str) -> None:
        """The owner has published."""
        ruled = self._ruled.get(owner)
        if ruled is not None and not ruled.answered:
            self._ruled[owner] = replace(ruled, answered=True, expelled=False)


def _public(keys: Iterable[Verifier]) -> frozenset[bytes]:
    return frozenset(one.public_key for one in keys)


def _named(digest: bytes | None) -> str:
    return "nothing" if digest is None else f"sha256:{digest.hex()}"


def _recorded(entry: Entry) -> date | None:
    """The day on which it was recorded (UTC), or is to be."""
    if not entry.HasField("recorded_at"):
        return None
    try:
        return entry.recorded_at.ToDatetime(UTC).date()
    except (ValueError, OverflowError):
        return None
