"""What the ledger's doors refuse in the same words, whichever of them a request comes through."""

from shared.errors import FieldViolation, InvalidRequest
from tlog.merkle import TREE_SIZE_MAX


def invalid(field: str, description: str) -> InvalidRequest:
    """Give the refusal of a request for one of its fields."""
    return InvalidRequest(
        "INVALID_REQUEST",
        f"{field}: {description}",
        violations=[FieldViolation(field, description)],
    )


def known_index(value: int, field: str) -> int:
    """Give the index, or a size, back; raises InvalidRequest when no tree can have it."""
    if value > TREE_SIZE_MAX:
        raise invalid(field, f"is more than {TREE_SIZE_MAX}")
    return value
