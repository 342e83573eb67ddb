"""Signed orders and answers: each signed by itself, and several by one signature besides.

Whoever has many of one signer to verify verifies one signature for all that were signed together. A message
is believed for either signature; its own is there for readers of release 0.1, which know no other.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

from countersign.connector.v1.connector_pb2 import SignedAnswer, SignedOrder, SignedTogether
from shared.signing import ANSWER_CONTEXT, ORDER_CONTEXT, BadSignature, SigningKey, VerifyKey

ORDERS_CONTEXT: Final = "countersign/orders/v1"
ANSWERS_CONTEXT: Final = "countersign/answers/v1"
TOGETHER_MAX: Final = 32
"""Messages under one signature: each of them bears the digests of all."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_DIGESTS_BYTES_MAX: Final = TOGETHER_MAX * _DIGEST_BYTES
_SIGNATURE_BYTES_MAX: Final = 64
_AT_HAND: Final = 128
"""Signatures over several that are kept as verified, or as not, 6 kB each at most: messages that were signed
together come within a second, and what is kept longer only grows."""


def sign_together(key: SigningKey, context: str, digests: Sequence[bytes]) -> SignedTogether:
    """One signature over the SHA-256 digests of at most TOGETHER_MAX messages."""
    joined = b"".join(digests)
    return SignedTogether(digests=joined, signature=key.sign(context, joined))


def verify_order(key: VerifyKey, signed: SignedOrder) -> bytes:
    """The order's SHA-256. Raises BadSignature unless the key signed it, alone or with others."""
    return _verify(key, (ORDER_CONTEXT, ORDERS_CONTEXT), signed.order, signed)


def verify_answer(key: VerifyKey, signed: SignedAnswer) -> bytes:
    """The answer's SHA-256. Raises BadSignature unless the key signed it, alone or with others."""
    return _verify(key, (ANSWER_CONTEXT, ANSWERS_CONTEXT), signed.answer, signed)


def _verify(
    key: VerifyKey, contexts: tuple[str, str], data: bytes, signed: SignedOrder | SignedAnswer
) -> bytes:
    alone, together = contexts
    digest = hashlib.sha256(data).digest()
    if signed.HasField("together"):
        digests, signature = signed.together.digests, signed.together.signature
        # Looked at before anything is kept: whoever signs may write any length.
        fits = len(digests) <= _DIGESTS_BYTES_MAX and len(signature) <= _SIGNATURE_BYTES_MAX
        if fits and digest in _signed_together(key, together, digests, signature):
            return digest
    key.verify(alone, data, signed.signature)
    return digest


@functools.lru_cache(maxsize=_AT_HAND)
def _signed_together(
    key: VerifyKey, context: str, digests: bytes, signature: bytes
) -> frozenset[bytes]:
    """The digests that the key signed; none where it did not, or signed anything but whole digests."""
    if len(digests) % _DIGEST_BYTES:
        return frozenset()
    try:
        key.verify(context, digests, signature)
    except BadSignature:
        return frozenset()
    starts = range(0, len(digests), _DIGEST_BYTES)
    return frozenset(digests[start : start + _DIGEST_BYTES] for start in starts)
