"""One owner's publication: as it comes, as it is judged, and as it counts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from countersign.ledger.v1.event_pb2 import RegistryStatement
from registry.commitments import Commitments, Committed
from registry.document import PublicPart
from registry.signature import Statement


@dataclass(frozen=True)
class Published:
    """What counts of one owner."""

    statement: Statement
    public: PublicPart
    commitments: Commitments
    keys_registered: frozenset[str]
    """For what it has ever registered keys: those of the trust roots count no more for that."""

    def has_registered(self, purpose: str) -> bool:
        """Whether its own keys count for this purpose, and nobody's where it has none any more."""
        return purpose in self.keys_registered


@dataclass(frozen=True)
class Applied:
    """What a publication changed."""

    owner: str
    serial: int
    public_changed: bool
    officers_changed: int
    unopened: int
    """Officers added whom nothing opens: they are unknown, and their searches refused."""
    doubtful: int
    """Officers whom it leaves in doubt (`Standings`): they are unknown too."""


@dataclass
class Pending:
    """A publication that is not complete."""

    statement: RegistryStatement
    parts: int
    seen: int
    content: bytes
    removed: list[bytes]
    added: list[tuple[bytes, Committed | None]]


@dataclass(frozen=True)
class Candidate:
    """A publication as a whole."""

    statement: Statement
    key_id: str
    public: PublicPart | None
    """None where it stays as it is."""
    removed: Collection[bytes]
    added: Sequence[tuple[bytes, Committed | None]]
