"""Says what goes on record when a log starts with other keys than those that it told of last.

The entry names the keys before and after, and each key that signs from now on endorses it. While the old
key still signs, that is both: whoever trusts the old one learns of the new one from the log itself.
"""

import logging
from typing import Final
from uuid import uuid4

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.event_pb2 import KEY_ROLE_LOG, KeyRotated
from ledger.keys import LogKeys
from ledger.last_signed import recorded
from ledger.log import OpenLog

log = logging.getLogger(__name__)

CONTEXT: Final = b"countersign/key-rotation/v1\0"


def keys_rotated(opened: OpenLog, keys: LogKeys) -> PendingEntry | None:
    """Give a `key_rotated` entry; None when the keys are those of the record, or nothing is signed.

    Called before anything is appended: the keys endorse it, and they are used by one thread at a time. A
    crash right after it is appended may record it twice, which says nothing wrong. Raises KeyUnavailable.
    """
    known = {recorded(vkey): vkey for vkey in keys.vkeys}
    last = opened.guard.last.vkeys
    if opened.guard.refused is not None or not last or set(last) == set(known):
        return None
    # A post-quantum key that is gone is named by its hash: the entry that announced it has all of it.
    before = [known.get(one, one) for one in last]
    rotated = KeyRotated(
        role=KEY_ROLE_LOG, holder=keys.origin, old_keys=before, new_keys=keys.vkeys
    )
    signed = CONTEXT + rotated.SerializeToString(deterministic=True)
    for vkey, signature in keys.endorse(signed):
        rotated.endorsements.add(key=vkey, signature=signature)
    pending = PendingEntry(idempotency_key=f"keys/{uuid4()}")
    pending.entry.key_rotated.CopyFrom(rotated)
    fields = {"old_keys": list(last), "new_keys": list(known)}
    log.warning("the keys of the log have changed", extra={"fields": fields})
    return pending
