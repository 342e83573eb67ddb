"""Discloses openings, and finds entries by what they hold: by right, and on the record first.

Invariant: the entry of a reading is durable before a value leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import OpeningRead, OpeningsSearched
from ledger.custody import Custody, stated, used
from ledger.entry import Opening, holder_of
from ledger.requests import invalid
from ledger.sequencer import Placed
from ledger.vault import LOOKED_UP
from shared.errors import NotFound
from shared.identity import SpiffeId


@dataclass(frozen=True)
class Disclosed:
    """Openings, and the entry that says that they were read."""

    openings: list[Opening]
    reading: Placed


class Disclosure:
    """What may be read of openings."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    async def disclose(
        self, caller: SpiffeId, index: int, fields: Sequence[str], ground: pb.Ground
    ) -> Disclosed:
        """Give openings of an entry, once the reading is on record."""
        custody = self._custody
        entry = Entry.FromString(await custody.archive.entry(index))
        holder = holder_of(entry)
        custody.rights.require(caller, "disclose", holder)
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
        committed = {one.field for one in entry.commitments}
        for field in fields:
            if field not in committed:
                raise invalid("fields", f"entry {index} has no sensitive field {field!r}")
        opened = await custody.in_vault(lambda: custody.vault.open(index))
        found = {one.field: one for one in opened}
        gone = [field for field in fields if field not in found]
        if gone:
            raise NotFound("OPENING_EXPUNGED", f"entry {index}: {', '.join(gone)} was destroyed")
        event = OpeningRead(
            caller=str(caller),
            origin_agency=holder,
            entry_index=index,
            fields=fields,
            authority=ground.authority,
        )
        pending = stated(Entry(opening_read=event), person, ground, f"disclose/{ground.request_id}")
        placed = await custody.record(pending)
        if placed.existing:
            raise used(ground)
        return Disclosed([found[field] for field in fields], placed)

    async def find(
        self, caller: SpiffeId, agency: str, field: str, value: str, *, authority: str, reason: str
    ) -> list[int]:
        """Find an agency's entries by what only openings hold, once the search is on record."""
        custody = self._custody
        custody.rights.require(caller, "find", agency)
        if field not in LOOKED_UP:
            raise invalid("field", f"is not one of {', '.join(sorted(LOOKED_UP))}")
        found = await custody.in_vault(lambda: custody.vault.find(agency, field, value))
        event = OpeningsSearched(
            caller=str(caller),
            agencies=[agency],
            field=field,
            authority=authority,
            found=len(found),
        )
        pending = PendingEntry(entry=Entry(openings_searched=event))
        pending.sensitive.add(field="reason", value=reason)
        pending.sensitive.add(field="searched_value", value=value)
        await custody.record(pending)
        return found
