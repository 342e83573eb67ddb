"""What the log signed last, kept apart from the log's database: the memory that no restore rolls back.

Invariants:
- a record is only ever replaced by one who names the record that it replaces (compare-and-swap);
- a crash in the middle of a swap leaves the old record or the new one;
- a record that cannot be read is never taken for an older one that can, nor for none.

The store belongs on another disk, or another machine, than the database, and in no backup: a record that
came back from yesterday would vouch for yesterday's log.
"""

import base64
import fcntl
import json
import os
import struct
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from shared import whole_files
from tlog.merkle import EMPTY_ROOT

MAGIC: Final = b"cslast1\n"
SLOT_BYTES: Final = 4096
"""One page, which the kernel writes whole, and room for the largest tree's peaks. The file never grows,
so a full disk does not stop it."""
VKEY_CHARACTERS_MAX: Final = 400
"""An Ed25519 key with a name of the greatest length has 309."""
_SLOTS: Final = 2
_SLOT_HEAD = struct.Struct(">8sQI32s")
"""Magic, sequence number, length of what follows, and the SHA-256 of sequence and content."""


class SigningRefused(Exception):
    """Nothing may be signed; the message says what to do. `reason` is stable."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Signed:
    """The last checkpoint that was signed."""

    origin: str
    size: int = 0
    root: bytes = EMPTY_ROOT
    time_us: int = 0
    """When, in microseconds since 1970."""
    peaks: tuple[bytes, ...] = ()
    """Roots of the complete subtrees that make up the tree, largest first: what lets it grow on."""
    vkeys: tuple[str, ...] = ()
    """Verifier keys that the log has told of as its own, as `recorded` shortens them."""
    ended: str = ""
    """Why nothing may ever be signed after this; empty while the log goes on."""

    @property
    def encoded(self) -> bytes:
        """The record as stored; the inverse of `decode`."""
        fields = {
            "origin": self.origin,
            "size": self.size,
            "root": self.root.hex(),
            "time_us": self.time_us,
            "peaks": base64.b64encode(b"".join(self.peaks)).decode(),
            "vkeys": self.vkeys,
            "ended": self.ended,
        }
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "Signed":
        """Read a record; raises ValueError."""
        try:
            fields = json.loads(raw)
            peaks = base64.b64decode(fields.pop("peaks"))
            root = bytes.fromhex(fields.pop("root"))
            hashes = tuple(peaks[at : at + 32] for at in range(0, len(peaks), 32))
            vkeys = tuple(fields.pop("vkeys"))
            return cls(root=root, peaks=hashes, vkeys=vkeys, **fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("not a record of what was signed") from error

    def with_end(self, why: str) -> "Signed":
        """Say that nothing is ever signed after this."""
        return replace(self, ended=why)


class RecordDamaged(SigningRefused):
    """The newest record may be lost.

    `survivor` is one that is whole, of which nobody knows whether it is the last.
    """

    def __init__(self, where: str, what: str, survivor: Signed | None) -> None:
        super().__init__(
            "LAST_SIGNED_DAMAGED",
            f"{where} cannot be trusted: {what}. It says which checkpoint was signed last, so "
            "nothing is signed until that is known: see the ledger's runbook, 'The record of the "
            "last signature'",
        )
        self.survivor = survivor


class LastSigned(Protocol):
    """A small store for one record. Used by one thread at a time."""

    @property
    def where(self) -> str:
        """Names the store in messages."""

    def read(self) -> Signed | None:
        """Give the record; None when none was ever written. Raises SigningRefused or OSError."""

    def swap(self, old: Signed | None, new: Signed) -> None:
        """Replace `old` by `new`, durably.

        Raises SigningRefused when another record than `old` is there, OSError when it cannot be known
        whether `new` is durable.
        """

    def close(self) -> None:
        """Let go of the store."""


class FileLastSigned:
    """The record in a file of fixed length, in two slots that are written by turns.

    `alone` keeps the file locked for as long as it is open, so that a second writer is refused at its
    start; without, the lock is held for each swap only, and another process may take over.
    """

    def __init__(self, path: Path, descriptor: int, *, alone: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._alone = alone
        self._said: list[tuple[bytes, tuple[int, Signed] | None]] = [(b"", None)] * _SLOTS
        """What each slot held when it was last read: the file is read before each signature and before each
        record, and in between one slot changes."""

    @classmethod
    def open(cls, path: Path, *, alone: bool = True) -> "FileLastSigned":
        """Open the file, made empty if it is not there; raises SigningRefused."""
        try:
            if not path.exists():
                _make_empty(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise unusable(str(path), error) from error
        try:
            if alone:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise SigningRefused(
                "LAST_SIGNED_LOCKED",
                f"another process signs for this log ({path} is locked): two writers would be two "
                "histories. Find it and stop it, or leave this one stopped",
            ) from error
        return cls(path, descriptor, alone=alone)

    @property
    def where(self) -> str:
        """Names the file."""
        return str(self._path)

    def read(self) -> Signed | None:
        """Give the record of the newest slot; None when none was ever written."""
        newest, damage = self._newest()
        if damage is not None:
            raise RecordDamaged(self.where, damage, None if newest is None else newest[1])
        return None if newest is None else newest[1]

    def swap(self, old: Signed | None, new: Signed) -> None:
        """Write the slot that is not the newest, which may be one that a crash left half written."""
        if not self._alone:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            newest, _ = self._newest()
            sequence, found = newest or (0, None)
            if found != old:
                raise changed_elsewhere(self.where, old, found)
            self._write(sequence + 1, new)
        finally:
            if not self._alone:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file and give up its lock."""
        os.close(self._descriptor)

    def _newest(self) -> tuple[tuple[int, Signed] | None, str | None]:
        """Give the newest record that is whole, with its number, and what is wrong with the file."""
        whole = os.pread(self._descriptor, SLOT_BYTES * _SLOTS + 1, 0)
        if len(whole) != SLOT_BYTES * _SLOTS:
            return None, f"it is not of {SLOT_BYTES * _SLOTS} bytes"
        found: list[tuple[int, Signed]] = []
        damage = None
        for number in range(_SLOTS):
            raw = whole[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]
            if raw == bytes(SLOT_BYTES):
                continue
            try:
                found.append(self._slot(number, raw))
            except ValueError as error:
                damage = f"record {number} of {_SLOTS} is not what was written: {error}"
        numbers = [sequence for sequence, _ in found]
        # The first record is alone in the file; after it, the last two are there.
        if damage is None and numbers not in ([], [1]) and abs(numbers[0] - numbers[-1]) != 1:
            damage = "one of its records is gone"
        return max(found, key=lambda one: one[0], default=None), damage

    def _slot(self, number: int, raw: bytes) -> tuple[int, Signed]:
        """Say what a slot's bytes say; those that say it already are not taken apart again."""
        before, one = self._said[number]
        if one is None or raw != before:
            one = _read_slot(raw)
            self._said[number] = raw, one
        return one

    def _write(self, sequence: int, record: Signed) -> None:
        content = record.encoded
        head = _SLOT_HEAD.pack(MAGIC, sequence, len(content), _digest(sequence, content))
        raw = (head + content).ljust(SLOT_BYTES, b"\0")
        if len(raw) != SLOT_BYTES:
            raise ValueError(f"a record of {len(content)} bytes is too long")
        written = os.pwrite(self._descriptor, raw, sequence % _SLOTS * SLOT_BYTES)
        if written != SLOT_BYTES:
            raise OSError(f"only {written} bytes were written to {self._path}")
        os.fdatasync(self._descriptor)


def recorded(vkey: str) -> str:
    """Give a verifier key as the record holds it: a post-quantum one, of 1.8 kB, by its hash."""
    if len(vkey) <= VKEY_CHARACTERS_MAX:
        return vkey
    name, key_id, _ = vkey.split("+", 2)
    return f"{name}+{key_id}+sha256:{sha256(vkey.encode()).hexdigest()}"


def beside(database: Path) -> Path:
    """Where the record is kept unless the configuration says where."""
    return database.with_name(f"{database.name}.last-signed")


def changed_elsewhere(where: str, old: Signed | None, found: Signed | None) -> SigningRefused:
    """Say that somebody else has signed since."""
    return SigningRefused(
        "SIGNED_ELSEWHERE",
        f"somebody else signs for this log: {where} says that {_size(found)} were signed for "
        f"last, and this process had signed for {_size(old)}. Stop all writers, and start the one "
        "whose database has the size in that record",
    )


def unusable(where: str, error: Exception) -> SigningRefused:
    """Say that the store cannot be opened or read."""
    return SigningRefused(
        "LAST_SIGNED_UNUSABLE",
        f"the record of the last signature, {where}, cannot be used: {error}",
    )


def _read_slot(raw: bytes) -> tuple[int, Signed]:
    magic, sequence, length, digest = _SLOT_HEAD.unpack_from(raw)
    content = raw[_SLOT_HEAD.size : _SLOT_HEAD.size + length]
    if magic != MAGIC or digest != _digest(sequence, content):
        raise ValueError("its hash differs")
    return sequence, Signed.decode(content)


def _size(record: Signed | None) -> str:
    return "no entries" if record is None else f"{record.size} entries"


def _digest(sequence: int, content: bytes) -> bytes:
    return sha256(sequence.to_bytes(8) + content).digest()


def _make_empty(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_files.put(path, bytes(SLOT_BYTES * _SLOTS), sync=True, mode=0o600)
