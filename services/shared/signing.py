"""Ed25519 signatures (RFC 8032) over exact bytes, each bound to what it is for.

What is signed is the context, one zero byte and the data, so that a signature made for one purpose
never verifies for another.

Keys are kept as PEM by `cryptography`; libsodium (PyNaCl) does the signing and verifying, in 60 per cent
of the time, and refuses keys of low order and spellings that are not canonical.
"""

import hashlib
from pathlib import Path
from typing import Final

import nacl.exceptions
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_PUBLICKEYBYTES,
    crypto_sign_seed_keypair,
)

from tlog.errors import TlogError
from tlog.note import NoteSigner, Signer

ORDER_CONTEXT: Final = "countersign/order/v1"
ANSWER_CONTEXT: Final = "countersign/answer/v1"
RUNS_CONTEXT: Final = "countersign/runs/v1"


class BadSignature(Exception):
    """The signature does not verify, or the key is not one."""


class BadKey(Exception):
    """A key file is missing or holds no key of the expected kind."""


def key_id(raw_public_key: bytes) -> str:
    """Short name of a key: the first 8 bytes of its SHA-256, in hex. Finds a key, proves nothing."""
    return hashlib.sha256(raw_public_key).digest()[:8].hex()


class VerifyKey:
    """An Ed25519 public key, 32 raw bytes."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != crypto_sign_PUBLICKEYBYTES:
            raise BadKey("an Ed25519 public key has 32 bytes")
        self.raw = raw
        self.key_id = key_id(raw)

    def verify(self, context: str, data: bytes, signature: bytes) -> None:
        """Raises BadSignature unless the signature is this key's over the context and the data."""
        try:
            # Of another length it would be a signature and a part of the message.
            if len(signature) == crypto_sign_BYTES:
                signed = b"".join((signature, context.encode(), b"\0", data))
                crypto_sign_open(signed, self.raw)
                return
        except nacl.exceptions.CryptoError:
            pass
        raise BadSignature(f"no valid signature of key {self.key_id}")


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        _, self._secret = crypto_sign_seed_keypair(key.private_bytes_raw())
        self.verify_key = VerifyKey(key.public_key().public_bytes_raw())
        self.key_id = self.verify_key.key_id

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Reads a PKCS #8 PEM file; raises BadKey."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey(f"cannot read a private key from {path}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey(f"the key in {path} is not an Ed25519 key")
        return cls(key)

    def note_signer(self, name: str) -> NoteSigner:
        """Signs C2SP notes under this name; raises BadKey for a name that cannot be one."""
        try:
            return Signer(name, self._key)
        except TlogError as error:
            raise BadKey(f"{name!r} cannot be a key's name: {error}") from error

    def pem(self) -> bytes:
        """The key as PKCS #8 PEM, not encrypted: write it with mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, context: str, data: bytes) -> bytes:
        """64 bytes over the context and the data."""
        message = b"".join((context.encode(), b"\0", data))
        return crypto_sign(message, self._secret)[:crypto_sign_BYTES]
