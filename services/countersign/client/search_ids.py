"""New ids for searches."""

import secrets
import time
import uuid

_VERSION_7 = 7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = ((1 << 12) - 1) << 64
_RANDOM_B = (1 << 62) - 1


def new_search_id() -> str:
    """A UUID that begins with the time in milliseconds (RFC 9562, version 7); 74 bits of it are random.

    Any UUID will do. With ids in the order of time, ledger and connector write to few pages of their
    databases, and not to a random one for each search. When a search was asked for is on record anyway.
    """
    since_epoch_ms = time.time_ns() // 1_000_000
    drawn = secrets.randbits(76)
    random_bits = (drawn & _RANDOM_A) | (drawn & _RANDOM_B)
    return str(uuid.UUID(int=since_epoch_ms << 80 | _VERSION_7 | _VARIANT | random_bits))
