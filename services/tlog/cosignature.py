"""C2SP tlog-cosignatures: timed signatures on checkpoints, by witnesses and by logs themselves.

Two types, and what each of them covers:
- 0x04, Ed25519: the time and the whole text of the checkpoint, but not the cosigner's name, so that
  every cosigner needs a key of its own;
- 0x06, ML-DSA-44 (FIPS 204): cosigner, time, origin, size and root, but no extension lines.

A time other than 0 says: this was the largest consistent tree of the log that I had seen by then.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

import nacl.exceptions
import nacl.signing
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from tlog.checkpoint import Checkpoint
from tlog.errors import FalseSignature, TlogError
from tlog.merkle import HASH_BYTES
from tlog.note import (
    ED25519,
    UnverifiedNote,
    Verifier,
    check_key_name,
    key_id_of,
    read_vkey,
    write_signature,
    write_vkey,
)

TIME_MAX_S: Final = 2**63 - 1
SEED_BYTES: Final = 32

_TIME_BYTES = 8
_SUBTREE_LABEL = b"subtree/v1\n\0"


class CosignatureKind(IntEnum):
    """The type of a cosignature, as in its key id."""

    ED25519 = 0x04
    ML_DSA_44 = 0x06


_PUBLIC_BYTES = {CosignatureKind.ED25519: 32, CosignatureKind.ML_DSA_44: 1312}
_SIGNATURE_BYTES = {CosignatureKind.ED25519: 64, CosignatureKind.ML_DSA_44: 2420}


def ed25519_message(checkpoint_text: str, time_s: int) -> bytes:
    """Give the bytes that a cosignature of type 0x04 signs."""
    return f"cosignature/v1\ntime {time_s}\n{checkpoint_text}".encode()


def subtree_message(
    cosigner: str, time_s: int, origin: str, start: int, end: int, root: bytes
) -> bytes:
    """Give the bytes that a cosignature of type 0x06 signs: of a checkpoint, from 0 to its size."""
    check_key_name(cosigner)
    check_key_name(origin)
    _check_time(time_s)
    if not 0 <= start < end and not start == end == 0:
        raise TlogError("a subtree ends after its start")
    if start and time_s:
        raise TlogError("only a tree from its first entry on is the largest that was seen")
    if end > TIME_MAX_S or len(root) != HASH_BYTES:
        raise TlogError("a subtree has an end within 63 bits and a root of 32 bytes")
    name, log = cosigner.encode(), origin.encode()
    return b"".join(
        (
            _SUBTREE_LABEL,
            bytes([len(name)]) + name,
            time_s.to_bytes(8),
            bytes([len(log)]) + log,
            start.to_bytes(8),
            end.to_bytes(8),
            root,
        )
    )


@dataclass(frozen=True)
class CosignatureVerifier:
    """A cosigner's public key with the name under which it signs."""

    name: str
    kind: CosignatureKind
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _PUBLIC_BYTES[self.kind]:
            raise TlogError(f"the public key of {self.name} has the wrong length")

    @classmethod
    def parse(cls, vkey: str) -> "CosignatureVerifier":
        """Read a verifier key text of one of the two types."""
        name, kind, public_key = read_vkey(vkey)
        try:
            return cls(name, CosignatureKind(kind), public_key)
        except ValueError:
            raise TlogError("the verifier key is not of a cosigner") from None

    @functools.cached_property
    def key_id(self) -> bytes:
        """Four bytes that say which key of this name signed."""
        return key_id_of(self.name, self.kind, self.public_key)

    @property
    def vkey(self) -> str:
        """The text form, as `parse` reads it."""
        return write_vkey(self.name, self.kind, self.public_key)

    def verify(self, text: str, signature: bytes) -> int:
        """Give the time at which this key cosigned this checkpoint's text; raise TlogError if never.

        The time is 0 when the cosigner does not claim to have seen no larger tree.
        """
        time, raw = signature[:_TIME_BYTES], signature[_TIME_BYTES:]
        if len(raw) != _SIGNATURE_BYTES[self.kind]:
            raise FalseSignature(self.name, self.key_id, "has the wrong length")
        time_s = int.from_bytes(time)
        _check_time(time_s)
        try:
            if self.kind is CosignatureKind.ED25519:
                nacl.signing.VerifyKey(self.public_key).verify(ed25519_message(text, time_s), raw)
            else:
                self._ml_dsa.verify(raw, _checkpoint_message(self.name, time_s, text))
        except (nacl.exceptions.CryptoError, InvalidSignature):
            raise FalseSignature(self.name, self.key_id, "does not verify") from None
        return time_s

    @functools.cached_property
    def _ml_dsa(self) -> MLDSA44PublicKey:
        return MLDSA44PublicKey.from_public_bytes(self.public_key)


LogVerifier: TypeAlias = Verifier | CosignatureVerifier
"""A log's key: Ed25519 (0x01), or ML-DSA-44 (0x06) with which it cosigns its own checkpoints."""


def parse_log_vkey(vkey: str) -> LogVerifier:
    """Read a log's verifier key."""
    _, kind, _ = read_vkey(vkey)
    if kind == ED25519:
        return Verifier.parse(vkey)
    if kind == CosignatureKind.ML_DSA_44:
        return CosignatureVerifier.parse(vkey)
    raise TlogError(f"a log's key is of type 1 (Ed25519) or 6 (ML-DSA-44), not of type {kind}")


def open_by_any(
    note: str | bytes, verifiers: Iterable[LogVerifier]
) -> tuple[Checkpoint, list[str]]:
    """Verify a log's checkpoint note with any of its keys; give it and the keys that signed.

    Raises TlogError: also when a line of a known key is false.
    """
    unverified = UnverifiedNote.parse(note)
    signed = unverified.verify(verifiers)
    checkpoint = Checkpoint.parse(unverified.text)
    if any(verifier.name != checkpoint.origin for verifier in signed):
        raise TlogError(f"the checkpoint is of {checkpoint.origin}, not of {signed[0].name}")
    return checkpoint, [verifier.vkey for verifier in signed]


def parse_witness_vkey(vkey: str) -> CosignatureVerifier:
    """Read a witness's verifier key."""
    _, kind, _ = read_vkey(vkey)
    if kind not in tuple(CosignatureKind):
        raise TlogError(f"a witness's key is of type 4 (Ed25519) or 6 (ML-DSA-44), not {kind}")
    return CosignatureVerifier.parse(vkey)


class Cosigner:
    """A private key that cosigns checkpoints."""

    def __init__(self, verifier: CosignatureVerifier, sign: Callable[[bytes], bytes]) -> None:
        self.verifier = verifier
        self._sign = sign

    @classmethod
    def from_seed(cls, name: str, seed: bytes, kind: CosignatureKind) -> "Cosigner":
        """Make a cosigner from the 32 secret bytes of RFC 8032 or of FIPS 204."""
        if len(seed) != SEED_BYTES:
            raise TlogError(f"a seed has {SEED_BYTES} bytes")
        kind = CosignatureKind(kind)
        if kind is CosignatureKind.ED25519:
            ed25519 = nacl.signing.SigningKey(seed)
            public_key = bytes(ed25519.verify_key)
            verifier = CosignatureVerifier(name, kind, public_key)
            return cls(verifier, lambda message: ed25519.sign(message).signature)
        ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seed)
        public_key = ml_dsa.public_key().public_bytes_raw()
        return cls(CosignatureVerifier(name, kind, public_key), ml_dsa.sign)

    def sign_bytes(self, data: bytes) -> bytes:
        """Give the raw signature over data that begins with a context of its own, unlike a cosignature's."""
        return self._sign(data)

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> str:
        """Give one signature line, with its line feed.

        The caller has seen no larger tree of this log, and keeps a record before it gives the line away.
        """
        _check_time(time_s)
        # Without a time the line would not say that there was no larger tree; no witness may mean that.
        if time_s == 0:
            raise TlogError("a cosignature has a time")
        verifier = self.verifier
        if verifier.kind is CosignatureKind.ED25519:
            message = ed25519_message(checkpoint.text, time_s)
        else:
            message = _checkpoint_message(verifier.name, time_s, checkpoint.text)
        signature = time_s.to_bytes(_TIME_BYTES) + self._sign(message)
        return write_signature(verifier.name, verifier.key_id, signature)


class LogCosigner:
    """A log's ML-DSA-44 key: a NoteSigner beside the log's Ed25519 key."""

    def __init__(self, cosigner: Cosigner, now_s: Callable[[], int]) -> None:
        """`now_s` gives POSIX seconds; the log sees to it that they never go back."""
        if cosigner.verifier.kind is not CosignatureKind.ML_DSA_44:
            raise TlogError("a log cosigns its checkpoints with ML-DSA-44")
        self._cosigner = cosigner
        self._now_s = now_s

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self._cosigner.verifier.name

    @property
    def vkey(self) -> str:
        """The verifier key that others need."""
        return self._cosigner.verifier.vkey

    def sign(self, text: str) -> str:
        """Give one signature line for a checkpoint's text, with its line feed."""
        return self._cosigner.cosign(Checkpoint.parse(text), self._now_s())


def _checkpoint_message(cosigner: str, time_s: int, text: str) -> bytes:
    checkpoint = Checkpoint.parse(text)
    return subtree_message(cosigner, time_s, checkpoint.origin, 0, checkpoint.size, checkpoint.root)


def _check_time(time_s: int) -> None:
    if not 0 <= time_s <= TIME_MAX_S:
        raise TlogError("a cosignature's time is outside 63 bits")
