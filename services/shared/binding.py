"""Binds everything that one decision is about to one digest.

The broker serialises a `BoundRequest` once; those exact bytes travel in the order, and the digest of
them stands in the ledger. A connector therefore compares bytes and never depends on how protobuf
serialises. The salt keeps the digest from being guessed from a case number.
"""

import hashlib
from typing import Final

from countersign.type.v1.search_pb2 import BoundRequest, SealedPayload, SearchFacts

_CONTEXT: Final = b"countersign/request/v1\0"


def payload_digest(payload: SealedPayload) -> bytes:
    """SHA-256 of the ciphertext."""
    return hashlib.sha256(payload.ciphertext).digest()


def bind(
    facts: SearchFacts,
    officer: str,
    sealed_probe: SealedPayload,
    answer_public_key: bytes,
    salt: bytes,
) -> bytes:
    """The bytes of the BoundRequest."""
    bound = BoundRequest(
        officer=officer,
        sealed_probe_sha256=payload_digest(sealed_probe),
        answer_public_key=answer_public_key,
        salt=salt,
    )
    # Copied into place: given to the constructor, it is serialised and read again.
    bound.facts.CopyFrom(facts)
    return bound.SerializeToString(deterministic=True)


def request_digest(bound_request: bytes) -> bytes:
    """SHA-256 over the context and the bytes of a BoundRequest."""
    return hashlib.sha256(_CONTEXT + bound_request).digest()
