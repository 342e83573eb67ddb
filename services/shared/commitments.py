"""Salted commitments: how a value is committed to, for who makes them and for who checks an opening."""

import hmac
from typing import Final

CONTEXT: Final = b"countersign/commitment/v1\0"
SALT_BYTES: Final = 32


def commit_to(field: str, salt: bytes, value: str) -> bytes:
    """Give the commitment to a value (see entry.proto)."""
    return hmac.digest(salt, CONTEXT + field.encode() + b"\0" + value.encode(), "sha256")
