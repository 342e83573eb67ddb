"""The openings: sealed when an entry is completed, opened by right, found by value, destroyed for good.

Invariants:
- nothing that is stored has a value or a salt in the clear;
- an opening is bound to the commitment in its entry: in another row it cannot be opened, and what is
  opened is compared with the commitment;
- after `destroy`, nothing in database or key store opens the entry's openings or tells their values by
  trial: rows, data key and the block's look-up key are gone.
"""

import hashlib
import hmac
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.entry import Opening, SealedOpening, holder_of
from ledger.key_provider import key_missing
from ledger.keyring import Keyring
from ledger.opening_rows import OpeningRows, Token
from shared.commitments import SALT_BYTES, commit_to, keyed_hash

LOOKED_UP: Final = frozenset({"officer", "case_number", "search_id"})
"""Fields by whose value entries can be found."""

LOOKUP_TOKEN_BYTES: Final = 16
"""Two values of one field share one by chance once in 2^64 pairs."""
CLEAR_AT_ONCE: Final = 256
"""Openings of release 0.1 that are sealed in one transaction."""

_SEAL_CONTEXT: Final = b"countersign/opening/v1\0"
_LOOKUP_CONTEXT: Final = b"countersign/lookup/v1\0"


class OpeningDamaged(Exception):
    """What is stored does not open the commitment that it stands for."""


def normalised(value: str) -> str:
    """Give the form in which values are compared: case, spaces and spelling of characters do not count."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def lookup_token(key: bytes, field: str, value: str) -> bytes:
    """Give the token by which a value is found in one block."""
    message = _LOOKUP_CONTEXT + field.encode() + b"\0" + normalised(value).encode()
    return keyed_hash(key, message)[:LOOKUP_TOKEN_BYTES]


@cache
def _nonce(field: str) -> bytes:
    """A data key seals each field once, so the field is nonce enough."""
    return hashlib.sha256(field.encode()).digest()[:12]


def _bound(field: str, commitment: bytes) -> bytes:
    return _SEAL_CONTEXT + field.encode() + b"\0" + commitment


def unsealed(keyring: Keyring, one: SealedOpening, commitment: bytes) -> Opening | None:
    """Open a row; None when its key was destroyed. Raises OpeningDamaged, NotReady for a lost key."""
    block = keyring.block(one.block)
    if block is None:
        # Destroying a key leaves its block there. A block that is gone was lost, which is another matter.
        raise key_missing(f"block {one.block} of the opening keys is not in the key store")
    key = block.key(one.slot)
    if key is None:
        return None
    try:
        plain = AESGCM(key).decrypt(_nonce(one.field), one.sealed, _bound(one.field, commitment))
        opening = Opening(one.field, plain[:SALT_BYTES], plain[SALT_BYTES:].decode())
    except (InvalidTag, ValueError):
        raise OpeningDamaged("it cannot be decrypted") from None
    if not hmac.compare_digest(commit_to(one.field, opening.salt, opening.value), commitment):
        raise OpeningDamaged("it opens no commitment of the entry")
    return opening


def commitments_of(leaf: bytes) -> dict[str, bytes]:
    """Give an entry's commitments by field."""
    return {one.field: one.commitment for one in Entry.FromString(leaf).commitments}


class KeyringSealer:
    """Seals openings as entries are completed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def is_ready(self, holder: str, count: int) -> bool:
        """Whether so many entries can be sealed without waiting for the store of the keys."""
        return self._keyring.has(holder, count)

    def prepare(self, holder: str) -> None:
        """Wait until more entries can be sealed."""
        self._keyring.prepare(holder)

    def seal(
        self, holder: str, openings: Sequence[tuple[Opening, bytes]]
    ) -> tuple[SealedOpening, ...]:
        """Seal the openings of one entry under a data key of its own."""
        block, slot, key, lookup_key = self._keyring.take(holder)
        cipher = AESGCM(key)
        sealed = []
        for (field, salt, value), commitment in openings:
            token = None
            if value and field in LOOKED_UP:
                token = lookup_token(lookup_key, field, value)
            secret = cipher.encrypt(_nonce(field), salt + value.encode(), _bound(field, commitment))
            sealed.append(SealedOpening(field, holder, block, slot, secret, token))
        return tuple(sealed)


class Vault:
    """Opens, finds and destroys. Used by one thread at a time. Raises StorageFailed, ServiceError."""

    def __init__(self, keyring: Keyring, rows: OpeningRows) -> None:
        self._keyring = keyring
        self._rows = rows
        self._sealer = KeyringSealer(keyring)

    def close(self) -> None:
        """Close the connection to the rows."""
        self._rows.close()

    def open(self, entry_index: int) -> list[Opening]:
        """Open an entry's openings, by field; none when they were destroyed. Raises OpeningDamaged."""
        leaf = self._rows.leaf(entry_index)
        commitments = {} if leaf is None else commitments_of(leaf)
        openings = []
        for one in self._rows.openings_of(entry_index):
            commitment = commitments.get(one.field)
            if commitment is None:
                raise OpeningDamaged(f"{one.field}: the entry has no such commitment")
            opening = unsealed(self._keyring, one, commitment)
            if opening is not None:
                openings.append(opening)
        return openings

    def has_openings(self, entry_index: int) -> bool:
        """Whether an entry has openings."""
        return bool(self._rows.openings_of(entry_index))

    def find(self, holder: str, field: str, value: str) -> list[int]:
        """Find the entries of one holder whose opening has this value, by index."""
        assert field in LOOKED_UP, "the caller asks for a field that can be looked up"
        if not normalised(value):
            return []
        found: set[int] = set()
        for block, key in self._keyring.lookup_keys(holder):
            found.update(self._rows.bearing(block, lookup_token(key, field, value)))
        return sorted(found)

    def holders(self) -> list[str]:
        """List whose openings there are."""
        return self._keyring.holders()

    def retire(self, entries: Iterable[int]) -> None:
        """Have no entry sealed any more under keys that share a block with those of these entries.

        Before an expungement is appended: whatever was sealed earlier is then on record before it.
        """
        self._keyring.retire(self._slots(entries).keys())

    def destroy(self, entries: Sequence[int]) -> int:
        """Destroy the openings of entries and their keys; give how many openings there were.

        Keys first: should the process end before the rows are gone, they cannot be opened already,
        and `finish` removes them at the next start.
        """
        slots = self._slots(entries)
        gone = sum(len(self._rows.openings_of(index)) for index in entries)
        tokens: list[Token] = []
        for block, of_block in slots.items():
            renewed = self._keyring.destroy(block, of_block)
            tokens += self._renewed_tokens(block, renewed.lookup_key, set(entries))
        self._keyring.forget()
        self._rows.remove(entries, tokens)
        self._rows.forget()
        return gone

    def finish(self, expunged: Iterable[int]) -> int:
        """Destroy what should be destroyed already; give how many entries still had openings."""
        left = [index for index in expunged if self._rows.openings_of(index)]
        if left:
            self.destroy(left)
        return len(left)

    def seal_clear(self) -> int:
        """Seal the openings that release 0.1 kept in the clear, and give how many there were."""
        count = 0
        while rows := self._rows.clear_openings(CLEAR_AT_ONCE):
            entries: dict[int, list[Opening]] = {}
            for index, field, salt, value in rows:
                entries.setdefault(index, []).append(Opening(field, salt, value))
            sealed = [(i, one) for i, of in entries.items() for one in self._sealed_anew(i, of)]
            self._rows.replace_clear(sealed)
            count += len(rows)
        return count

    def _sealed_anew(self, index: int, openings: list[Opening]) -> tuple[SealedOpening, ...]:
        leaf = self._rows.leaf(index)
        commitments: Mapping[str, bytes] = {} if leaf is None else commitments_of(leaf)
        pairs = []
        for one in openings:
            commitment = commitments.get(one.field, b"")
            if not hmac.compare_digest(commit_to(one.field, one.salt, one.value), commitment):
                raise OpeningDamaged(f"entry {index}: {one.field} opens no commitment of the entry")
            pairs.append((one, commitment))
        return self._sealer.seal(holder_of(Entry.FromString(leaf or b"")), pairs)

    def _slots(self, entries: Iterable[int]) -> dict[int, set[int]]:
        slots: dict[int, set[int]] = {}
        for index in entries:
            for one in self._rows.openings_of(index):
                slots.setdefault(one.block, set()).add(one.slot)
        return slots

    def _renewed_tokens(self, block: int, key: bytes, destroyed: set[int]) -> list[Token]:
        tokens: list[Token] = []
        for index, one in self._rows.openings_in(block):
            leaf = self._rows.leaf(index)
            if index in destroyed or leaf is None:
                continue
            opening = unsealed(self._keyring, one, commitments_of(leaf)[one.field])
            if opening is not None:
                tokens.append((index, one.field, lookup_token(key, one.field, opening.value)))
        return tokens
