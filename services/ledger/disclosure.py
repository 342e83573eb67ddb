"""Discloses openings, and finds entries by what they hold: by right, and on the record first.

Invariant: the entry of a reading is durable before a value leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import OpeningRead, OpeningsSearched
from countersign.ledger.v1.query_pb2 import OpeningMatch
from ledger.custody import Custody, stated, used
from ledger.entry import Opening, holder_of
from ledger.requests import invalid
from ledger.sequencer import Placed
from ledger.vault import LOOKED_UP
from shared.errors import Conflict, NotFound
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
        committed = {one.field for one in entry.commitments}
        for field in fields:
            # Anybody can see which it has: who mistakes the entry is told so, not that a right is lacking.
            if field not in committed:
                raise invalid("fields", f"entry {index} has no sensitive field {field!r}")
        holder = holder_of(entry)
        custody.rights.require(caller, "disclose", holder)
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
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

    async def find(self, caller: SpiffeId, match: OpeningMatch) -> list[int]:
        """Find an agency's entries by what only openings hold, once the search is on record."""
        custody, field = self._custody, match.field
        custody.rights.require(caller, "find", match.agency)
        if caller.kind == "agency" and not match.request_id:
            raise invalid(
                "filter.opening.request_id", "an agency's look-up has one, for its officer's token"
            )
        person = custody.people.person(caller, match.officer_token, match.request_id)
        if field not in LOOKED_UP:
            raise invalid("field", f"is not one of {', '.join(sorted(LOOKED_UP))}")
        found = await custody.in_vault(lambda: custody.vault.find(match.agency, field, match.value))
        event = OpeningsSearched(
            caller=str(caller),
            agencies=[match.agency],
            field=field,
            authority=match.authority,
            found=len(found),
        )
        key = f"find/{match.request_id}" if match.request_id else ""
        pending = PendingEntry(entry=Entry(openings_searched=event), idempotency_key=key)
        sensitive = {"reason": match.reason, "searched_value": match.value}
        if person.officer:
            sensitive["officer"] = person.officer
        for name, value in sensitive.items():
            pending.sensitive.add(field=name, value=value)
        placed = await custody.record(pending)
        if placed.existing and not await self._is_the_same(placed, event, sensitive):
            raise Conflict("REQUEST_ID_USED", f"request {match.request_id} was made already")
        return found

    async def _is_the_same(
        self, placed: Placed, event: OpeningsSearched, sensitive: Mapping[str, str]
    ) -> bool:
        """Whether a look-up is one that is on record: its next page, or an answer that was lost."""
        stored = Entry.FromString(placed.leaf)
        earlier = OpeningsSearched()
        earlier.CopyFrom(stored.openings_searched)
        earlier.found = event.found  # there may be more entries by now
        if not stored.HasField("openings_searched") or earlier != event:
            return False
        opened = await self._custody.in_vault(lambda: self._custody.vault.open(placed.index))
        return {one.field: one.value for one in opened} == sensitive
