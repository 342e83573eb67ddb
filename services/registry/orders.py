"""What the registrars order of an owner: new keys, or that it takes part no more. A C2SP signed note.

Its text is that of RegistrarsOrdered (event.proto). It names the log, the owner, the order before it about
the same owner and a last day, so that it counts once, in one place, and lies in no drawer. It does not name
the owner's newest document: whoever holds a stolen key could publish another before each quorum has signed.

A quorum is counted by keys, not by names: one key under two names is one signer.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final, Literal

from directive.findings import Finding
from registry.document import KEYS_MAX
from registry.findings import RegistryRefused, refused
from registry.signature import ORIGIN
from shared.registrars import Registrars
from tlog.errors import TlogError
from tlog.note import NoteSigner, UnverifiedNote, Verifier, sign_note

Action = Literal["recover", "expel"]

TEXT_MAX: Final = 1000
NOTE_BYTES_MAX: Final = 32 * 1024

_CONTEXT: Final = "countersign/registrars-order/v1"
_NOTHING: Final = "nothing"
_ORDER: Final = re.compile(
    rf"{_CONTEXT}\nlog (?P<log>{ORIGIN.pattern})\n"
    r"owner (?P<owner>[A-Z0-9]{9}|[A-Z]{2}(?:-[A-Z0-9]{1,3})?)\n"
    r"follows (?:nothing|sha256:(?P<follows>[0-9a-f]{64}))\n"
    r"before (?P<before>[0-9]{4}-[0-9]{2}-[0-9]{2})\n"
    r"order (?P<action>recover|expel)\n(?P<keys>(?:key [^\n]+\n)*)"
    r"authority (?P<authority>[^\n]+)\nreason (?P<reason>[^\n]+)\n"
)


class OrderNotProved(RegistryRefused):
    """No quorum of the registrars known here signed it. On record, others may know them: doubt refuses."""


@dataclass(frozen=True)
class Order:
    """What a quorum signs."""

    log: str
    owner: str
    follows: bytes | None
    """Digest of the order before about this owner; None for the first."""
    before: date
    """First day on which it is too late to put it on record."""
    action: Action
    keys: tuple[str, ...]
    """The owner's new keys; none where it is expelled."""
    authority: str
    reason: str

    @property
    def text(self) -> str:
        """The note's text."""
        follows = _NOTHING if self.follows is None else f"sha256:{self.follows.hex()}"
        keys = "".join(f"key {vkey}\n" for vkey in self.keys)
        return (
            f"{_CONTEXT}\nlog {self.log}\nowner {self.owner}\nfollows {follows}\n"
            f"before {self.before.isoformat()}\norder {self.action}\n{keys}"
            f"authority {self.authority}\nreason {self.reason}\n"
        )

    @cached_property
    def sha256(self) -> bytes:
        """Digest of the text: what the next order about the owner follows."""
        return hashlib.sha256(self.text.encode()).digest()

    @cached_property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The new keys."""
        return tuple(map(Verifier.parse, self.keys))

    @classmethod
    def parse(cls, text: str) -> "Order | None":
        """Reads a text; None when it is none that anybody could have been asked to sign."""
        found = _ORDER.fullmatch(text)
        if found is None:
            return None
        try:
            order = cls(
                found["log"],
                found["owner"],
                bytes.fromhex(found["follows"]) if found["follows"] else None,
                date.fromisoformat(found["before"]),
                "recover" if found["action"] == "recover" else "expel",
                tuple(line.removeprefix("key ") for line in found["keys"].splitlines()),
                found["authority"],
                found["reason"],
            )
            distinct = {one.public_key for one in order.verifiers}
        except (TlogError, ValueError):
            return None
        wanted = range(1, KEYS_MAX + 1) if order.action == "recover" else range(1)
        texts = (order.authority, order.reason)
        whole = len(order.keys) in wanted and len(distinct) == len(order.keys)
        fits = all(_is_a_line(one) for one in texts)
        return order if whole and fits and order.text == text else None


@dataclass(frozen=True)
class SignedOrder:
    """An order with signatures of which nothing is known yet."""

    order: Order
    note: UnverifiedNote

    @classmethod
    def parse(cls, note: str | bytes) -> "SignedOrder":
        """Takes a note apart; raises RegistryRefused."""
        if len(note) > NOTE_BYTES_MAX:
            raise refused("ORDER", "order", f"has more than {NOTE_BYTES_MAX} bytes")
        try:
            parsed = UnverifiedNote.parse(note)
        except TlogError as error:
            raise refused("ORDER", "order", f"is no signed note: {error}") from error
        order = Order.parse(parsed.text)
        if order is None:
            raise refused("ORDER", "order", "is a note about something else, or not written as one")
        return cls(order, parsed)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.order.owner}: order to {self.order.action}"


def sign(order: Order, signer: NoteSigner) -> str:
    """The note with its first signature; raises RegistryRefused for an order that nobody could read."""
    if Order.parse(order.text) != order:
        what = f"authority and reason are 1 to {TEXT_MAX} visible characters in one line"
        raise refused("ORDER", "order", f"cannot be written: {what}")
    return sign_note(order.text, [signer])


def cosign(note: str | bytes, signer: NoteSigner) -> str:
    """The same note with one signature more; raises RegistryRefused."""
    given = SignedOrder.parse(note)
    own = Verifier.parse(signer.vkey)
    if any((one.name, one.key_id) == (own.name, own.key_id) for one in given.note.signatures):
        raise refused("SIGNED_TWICE", given.label, f"{own.name} has signed it already")
    lines = "".join(one.line for one in given.note.signatures)
    return f"{given.note.text}\n{lines}{signer.sign(given.note.text)}"


def check_quorum(
    signed: SignedOrder, registrars: Sequence[Registrars], day: date
) -> tuple[Verifier, ...]:
    """The registrars who signed, where they are enough of those in office on a day.

    Raises RegistryRefused, and OrderNotProved where it is only that others must have signed.
    """
    lines = [(one.name, one.key_id) for one in signed.note.signatures]
    if len(set(lines)) != len(lines):
        raise refused("SIGNED_TWICE", signed.label, "has two signatures by the same key")
    in_office = [one for one in registrars if one.until is None or day < one.until]
    if not in_office:
        finding = Finding("NO_REGISTRARS", signed.label, "", "no registrars are known who could")
        raise OrderNotProved([finding])
    most, wanted = 0, in_office[0].threshold
    for one in in_office:
        found = _who_signed(signed, map(Verifier.parse, one.keys))
        if len(found) >= one.threshold:
            return found
        if len(found) >= most:
            most, wanted = len(found), one.threshold
    message = f"is signed by {most} of the registrars; {wanted} must sign"
    raise OrderNotProved([Finding("QUORUM", signed.label, "", message)])


def _who_signed(signed: SignedOrder, keys: Iterable[Verifier]) -> tuple[Verifier, ...]:
    known = {(one.name, one.key_id): one for one in keys}
    found = []
    for line in signed.note.signatures:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        try:
            key.verify(signed.note.text, line.signature)
        except TlogError as error:
            raise OrderNotProved(
                [Finding("SIGNATURE_FALSE", signed.label, "", str(error))]
            ) from error
        found.append(key)
    return tuple(found)


def _is_a_line(text: str) -> bool:
    """Visible, and read by everybody in the same order: nothing that turns or hides what follows."""
    return len(text) <= TEXT_MAX and text == text.strip() != "" and text.isprintable()
