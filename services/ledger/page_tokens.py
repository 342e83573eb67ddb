"""Page tokens: where a list goes on, and for which question. Opaque to whoever gets one.

A token is no secret and no authority: what may be read is decided anew with each page.
"""

import base64
import binascii
import hashlib
import struct
from typing import Final

from google.protobuf.message import Message

from ledger.requests import invalid
from shared.errors import InvalidRequest
from tlog.merkle import TREE_SIZE_MAX

_TOKEN: Final = struct.Struct(">BQQ8s")
_VERSION: Final = 2
"""Raised with every change of what a token holds: others are refused, and the list is begun anew."""


def token(next_index: int, size: int = 0, question: Message | None = None) -> str:
    """A token: where to go on, in the tree of which size (0 where that is not fixed), for which question."""
    raw = _TOKEN.pack(_VERSION, next_index, size, _digest(question))
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_token(text: str, question: Message | None = None) -> tuple[int, int]:
    """The next index and the size; raises InvalidRequest."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, next_index, size, digest = _TOKEN.unpack(raw)
    except (binascii.Error, ValueError, struct.error):
        raise not_given() from None
    if version != _VERSION or max(next_index, size) > TREE_SIZE_MAX:
        raise not_given()
    if digest != _digest(question):
        raise invalid("page_token", "belongs to another question")
    return next_index, size


def not_given() -> InvalidRequest:
    """The refusal of a token that this service never gave."""
    return invalid("page_token", "is not one that this service gave")


def _digest(question: Message | None) -> bytes:
    asked = b"" if question is None else question.SerializeToString(deterministic=True)
    return hashlib.sha256(asked).digest()[:8]
