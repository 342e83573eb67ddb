"""What a decision was made by, as one digest: what must be the same to decide the same."""

import hashlib
from collections.abc import Iterable
from typing import Final

from countersign.type.v1.decision_pb2 import Verdict
from directive.vocabulary import Vocabulary
from shared.registry import Registry

_DIGEST_CONTEXT: Final = b"countersign/policy-set/v1\0"


def policy_set_sha256(
    vocabulary: Vocabulary, registry: Registry, engine: str, verdicts: Iterable[Verdict]
) -> bytes:
    """What a decision with these verdicts says of what it was decided by."""
    return ended(begun(vocabulary, registry, engine), verdicts)


def begun(vocabulary: Vocabulary, registry: Registry, engine: str) -> "hashlib._Hash":
    """The part that is the same for every question."""
    return hashlib.sha256(
        _DIGEST_CONTEXT
        + b"".join(one.sha256 for one in (vocabulary, *vocabulary.earlier.values()))
        + registry.sha256
        + engine.encode()
        + b"\0"
    )


def ended(sha256: "hashlib._Hash", verdicts: Iterable[Verdict]) -> bytes:
    """The digest, with the directives that were applied here: a peer's are in its own digest."""
    here = (verdict for verdict in verdicts if not verdict.asked_at)
    applied = {v.name: v.sha256 for verdict in here for v in verdict.directives}
    for name, digest in sorted(applied.items()):
        sha256.update(name.encode() + b"\0" + digest)
    return sha256.digest()
