"""Salted commitments: how a value is committed to, for who makes them and for who checks an opening."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

CONTEXT: Final = b"countersign/commitment/v1\0"
SALT_BYTES: Final = 32

_SHA256: Final = SHA256()


def commit_to(field: str, salt: bytes, value: str) -> bytes:
    """Give the commitment to a value (see entry.proto)."""
    return keyed_hash(salt, CONTEXT + field.encode() + b"\0" + value.encode())


def keyed_hash(key: bytes, message: bytes) -> bytes:
    """Give HMAC-SHA-256.

    Not `hmac.digest`: it lets go of the interpreter's lock each time, and with another thread at work that
    costs more than the hash.
    """
    made = HMAC(key, _SHA256)
    made.update(message)
    return made.finalize()
