"""What a decision was made by, as one digest: what must be the same to decide the same."""

import hashlib
from collections.abc import Iterable
from typing import Final

from countersign.type.v1.decision_pb2 import Verdict
from directive.vocabulary import Vocabulary
from shared.registry import Registry

KEPT_MAX: Final = 50_000
"""Decisions with verdicts that are unlike."""

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


def applied(verdicts: Iterable[Verdict]) -> bytes:
    """The part of the digest that says which directives were applied here: a peer's are in its own digest."""
    here = (verdict for verdict in verdicts if not verdict.asked_at)
    texts = {v.name: v.sha256 for verdict in here for v in verdict.directives}
    return b"".join(name.encode() + b"\0" + digest for name, digest in sorted(texts.items()))


def ended(sha256: "hashlib._Hash", verdicts: Iterable[Verdict]) -> bytes:
    """The digest."""
    sha256.update(applied(verdicts))
    return sha256.digest()


class Digests:
    """Digests of very many decisions, by one registry after the other."""

    def __init__(self, vocabulary: Vocabulary, registry: Registry) -> None:
        self._vocabulary = vocabulary
        self._applied: dict[bytes, bytes] = {}
        self.over(registry)

    def over(self, registry: Registry) -> None:
        """From now on by this registry."""
        self._registry = registry
        self._begun: dict[str, hashlib._Hash] = {}

    def of(self, content: bytes, engine: str, verdicts: Iterable[Verdict]) -> bytes:
        """What `policy_set_sha256` gives; of decisions with the same content verdicts are the same."""
        texts = self._applied.get(content)
        if texts is None:
            if len(self._applied) >= KEPT_MAX:
                self._applied.clear()
            texts = self._applied[content] = applied(verdicts)
        started = self._begun.get(engine)
        if started is None:
            started = begun(self._vocabulary, self._registry, engine)
            self._begun[engine] = started
        digest = started.copy()
        digest.update(texts)
        return digest.digest()
