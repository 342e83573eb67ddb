"""Sealing of payloads end to end with HPKE (RFC 9180), base mode, one suite.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. `info` binds a ciphertext to its search and
direction, so that a sealed probe cannot be passed off as another search's.
"""

from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from countersign.type.v1.search_pb2 import SealedPayload
from shared.signing import BadKey, key_id

KEM_X25519: Final = 0x0020
KDF_HKDF_SHA256: Final = 0x0001
AEAD_AES_256_GCM: Final = 0x0002
SEALED_BYTES_MAX: Final = 2 * 1024 * 1024
"""Upper bound of a ciphertext: what fits an order message with room for its proof."""
SEALING_OVERHEAD_BYTES: Final = 32 + 16
"""Encapsulated X25519 key and GCM tag."""

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

_PRIME: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
"""The points of the curve and of its twist of which eight times is nothing, by their coordinate u."""

_NO_KEY: Final = "an X25519 public key has 32 bytes and is not a point of low order"


class Unopenable(Exception):
    """The payload was not sealed to this key for this purpose, or was changed."""


def probe_info(search_id: str, system: str) -> bytes:
    """What a sealed probe is bound to."""
    return b"\0".join([b"countersign/probe/v1", search_id.encode(), system.encode()])


def candidates_info(search_id: str, order_sha256: bytes) -> bytes:
    """What a sealed candidate list is bound to."""
    return b"\0".join([b"countersign/candidates/v1", search_id.encode(), order_sha256])


def can_be_sealed_to(public_key: bytes) -> bool:
    """Whether `seal` takes this key. The library tells only by sealing, at a hundred times the cost."""
    point = int.from_bytes(public_key, "little") % 2**255 % _PRIME
    return len(public_key) == 32 and point not in _LOW_ORDER


class PublicKey:
    """An X25519 public key (32 raw bytes) to which is sealed. Who seals to one often keeps it read."""

    def __init__(self, raw: bytes) -> None:
        """Raises BadKey for a wrong length."""
        try:
            self._key = X25519PublicKey.from_public_bytes(raw)
        except ValueError as error:
            raise BadKey(_NO_KEY) from error
        self.key_id = key_id(raw)

    def seal(self, plaintext: bytes, info: bytes) -> SealedPayload:
        """Only the holder of the private key can open it. Raises BadKey for a point of low order."""
        try:
            ciphertext = _SUITE.encrypt(plaintext, self._key, info=info)
        except ValueError as error:
            raise BadKey(_NO_KEY) from error
        return SealedPayload(
            kem_id=KEM_X25519,
            kdf_id=KDF_HKDF_SHA256,
            aead_id=AEAD_AES_256_GCM,
            key_id=self.key_id,
            ciphertext=ciphertext,
        )


def seal(public_key: bytes, plaintext: bytes, info: bytes) -> SealedPayload:
    """Seals to a raw X25519 public key (32 bytes); raises BadKey."""
    return PublicKey(public_key).seal(plaintext, info)


class PrivateKey:
    """An X25519 private key that opens what was sealed to it."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "PrivateKey":
        """A new key."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "PrivateKey":
        """Reads a PKCS #8 PEM file; raises BadKey."""
        try:
            return cls.from_pem(path.read_bytes())
        except OSError as error:
            raise BadKey(f"cannot read a private key from {path}: {error}") from error

    @classmethod
    def from_pem(cls, pem: bytes) -> "PrivateKey":
        """Reads PKCS #8 PEM; raises BadKey."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey(f"not a private key: {error}") from error
        if not isinstance(key, X25519PrivateKey):
            raise BadKey("not an X25519 key")
        return cls(key)

    def pem(self) -> bytes:
        """The key as PKCS #8 PEM, not encrypted: write it with mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def open(self, payload: SealedPayload, info: bytes) -> bytes:
        """The plaintext; raises Unopenable."""
        suite = (payload.kem_id, payload.kdf_id, payload.aead_id)
        if suite != (KEM_X25519, KDF_HKDF_SHA256, AEAD_AES_256_GCM):
            raise Unopenable(f"the payload uses HPKE suite {suite}, which this key does not")
        # Each look at the field copies it.
        ciphertext = payload.ciphertext
        if len(ciphertext) > SEALED_BYTES_MAX:
            raise Unopenable("the payload is larger than accepted")
        try:
            return _SUITE.decrypt(ciphertext, self._key, info=info)
        except (InvalidTag, ValueError):
            raise Unopenable("the payload does not open with this key for this search") from None
