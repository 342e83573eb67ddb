"""Has openings destroyed: asked for by one person, approved or declined by another, each step on record.

Invariants:
- a request is approved by another person than the one who made it, once, and before it lapses;
- a request ends once: the entries that approve and decline it bear the same idempotency key, so that only
  one of them can ever be on record;
- the entry of an expungement is durable before anything is destroyed; what a crash leaves undone the next
  start does (see `ledger.openings`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Final

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import ExpungeDeclined, ExpungeRequested, OpeningsExpunged
from ledger.custody import Custody, stated, used
from ledger.entry import holder_of
from ledger.reading import Filter
from ledger.requests import invalid
from ledger.rights import Person
from ledger.sequencer import Placed
from shared.errors import NotAllowed, NotFound, NotReady
from shared.identity import SpiffeId
from shared.kinds import KINDS

REQUEST_LIFE: Final = timedelta(days=30)
"""What nobody approved in a month is asked again."""
ENTRIES_MAX: Final = 1000
"""Entries of one expungement; its entry names them all in less than 10 kB."""
PAGE_ENTRIES: Final = 200
LOOKED_AT_MAX: Final = 1000
"""Requests that are looked at for one page of a list: few of them may be the caller's to see."""

_REQUESTED: Final = KINDS["expunge_requested"]


@dataclass(frozen=True)
class Expunged:
    """An approved request, the entry that says so, and how many openings there were."""

    request: pb.ExpungeRequest
    entry: Placed
    openings: int


@dataclass(frozen=True)
class Requests:
    """Requests, newest first, and below which index to go on; None at the end."""

    found: list[pb.ExpungeRequest]
    before: int | None


@dataclass(frozen=True)
class _Made:
    """A request as it was made."""

    index: int
    entry: Entry

    @property
    def asked(self) -> ExpungeRequested:
        return self.entry.expunge_requested


class Expungement:
    """What becomes of requests."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._one_at_a_time = asyncio.Lock()

    async def request(
        self, caller: SpiffeId, indexes: Sequence[int], search_id: str, ground: pb.Ground
    ) -> tuple[pb.ExpungeRequest, Placed]:
        """Put a request on record."""
        custody = self._custody
        if bool(indexes) == bool(search_id):
            raise invalid("indexes", "either these or search_id must be given")
        wanted = sorted(indexes) if indexes else await self._entries_of(search_id)
        if not 1 <= len(wanted) <= ENTRIES_MAX:
            raise invalid("indexes", f"{len(wanted)} entries; 1 to {ENTRIES_MAX} at once")
        holders = {holder_of(Entry.FromString(await custody.archive.entry(one))) for one in wanted}
        for holder in sorted(holders):
            custody.rights.require(caller, "expunge", holder)
        if len(holders) != 1:
            raise invalid("indexes", "the entries are of several agencies; ask for each")
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
        await self._require_openings(wanted)
        event = ExpungeRequested(
            caller=str(caller),
            origin_agency=holders.pop(),
            entry_indexes=wanted,
            search_id=search_id,
            authority=ground.authority,
        )
        event.lapses_at.FromDatetime(custody.clock.now() + REQUEST_LIFE)
        key = f"expunge/{ground.request_id}"
        placed = await custody.record(stated(Entry(expunge_requested=event), person, ground, key))
        if placed.existing:
            raise used(ground)
        return self._shown(_Made(placed.index, Entry.FromString(placed.leaf)), None), placed

    async def approve(self, caller: SpiffeId, requested_index: int, ground: pb.Ground) -> Expunged:
        """Have openings destroyed, on the word of a second person."""
        custody = self._custody
        made = await self._made(requested_index)
        asked = made.asked
        custody.rights.require(caller, "expunge", asked.origin_agency)
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
        if await self._by_the_same(made, person) is not False:
            raise NotAllowed(
                "SECOND_PERSON_NEEDED",
                "who asked cannot approve: another officer, or another body with the right, must",
            )
        if ground.authority != asked.authority:
            raise invalid("ground.authority", "is not that of the request")
        async with self._one_at_a_time:
            await self._require_open(made, "openings_expunged")
            indexes = list(asked.entry_indexes)
            # Whatever was sealed under keys of the same blocks is on record before the entry that follows.
            await custody.in_vault(lambda: custody.vault.retire(indexes))
            event = OpeningsExpunged(
                requested_index=requested_index,
                caller=str(caller),
                origin_agency=asked.origin_agency,
                entry_indexes=indexes,
                authority=asked.authority,
            )
            placed = await self._end(made, Entry(openings_expunged=event), person, ground)
            count = await custody.in_vault(lambda: custody.vault.destroy(indexes))
        return Expunged(self._shown(made, _ended(placed)), placed, count)

    async def decline(
        self, caller: SpiffeId, requested_index: int, ground: pb.Ground
    ) -> tuple[pb.ExpungeRequest, Placed]:
        """Have a request end without effect; who made it takes it back so."""
        custody = self._custody
        made = await self._made(requested_index)
        custody.rights.require(caller, "expunge", made.asked.origin_agency)
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
        event = ExpungeDeclined(
            requested_index=requested_index,
            caller=str(caller),
            origin_agency=made.asked.origin_agency,
            authority=ground.authority,
            withdrawn=await self._by_the_same(made, person) is True,
        )
        async with self._one_at_a_time:
            await self._require_open(made, "expunge_declined")
            placed = await self._end(made, Entry(expunge_declined=event), person, ground)
        return self._shown(made, _ended(placed)), placed

    async def requests(self, caller: SpiffeId, before: int, count: int) -> Requests:
        """List requests that concern openings which the caller may have destroyed, newest first.

        `before` 0 is no bound. Ends early when too many had to be passed over.
        """
        holders = self._custody.rights.holders(caller, "expunge")
        found: list[_Made] = []
        looked_at = 0
        following: int | None = before
        while following is not None and len(found) < count and looked_at < LOOKED_AT_MAX:
            rows = await self._custody.archive.newest(_REQUESTED, following, PAGE_ENTRIES)
            following = rows[-1][0] if len(rows) == PAGE_ENTRIES else None
            looked_at += len(rows)
            for index, leaf in rows:
                made = _Made(index, Entry.FromString(leaf))
                if made.asked.origin_agency not in holders:
                    continue
                if len(found) == count:
                    following = found[-1].index
                    break
                found.append(made)
        ends = await self._ends(found)
        return Requests([self._shown(one, ends.get(one.index)) for one in found], following)

    async def _made(self, requested_index: int) -> _Made:
        entry = Entry.FromString(await self._custody.archive.entry(requested_index))
        if not entry.HasField("expunge_requested"):
            raise NotFound("REQUEST_UNKNOWN", f"entry {requested_index} is no request to expunge")
        return _Made(requested_index, entry)

    async def _by_the_same(self, made: _Made, person: Person) -> bool | None:
        """Whether this person made the request; None when nobody can tell any more."""
        if str(person.caller) != made.asked.caller:
            return False
        if not person.officer:
            return True  # of an oversight body all calls come from one seat
        opened = await self._custody.in_vault(lambda: self._custody.vault.open(made.index))
        first = next((one.value for one in opened if one.field == "officer"), None)
        return None if first is None else first == person.officer

    async def _require_open(self, made: _Made, wanted: str) -> None:
        """Raise NotReady unless the request waits, or has ended in the way that is wanted again."""
        ended = (await self._ends([made])).get(made.index)
        if ended is None:
            if self._shown(made, None).state == pb.EXPUNGE_STATE_LAPSED:
                raise NotReady("REQUEST_LAPSED", f"request {made.index} has lapsed; ask again")
        elif ended[1].WhichOneof("event") != wanted:
            raise _has_ended(made, ended[1])

    async def _end(self, made: _Made, entry: Entry, person: Person, ground: pb.Ground) -> Placed:
        """Put the end of a request on record, or give the same end that it had before."""
        # The name of the key is that of release 0.1, which knew of approvals only.
        pending = stated(entry, person, ground, _end_key(made.index))
        placed = await self._custody.record(pending)
        stored = Entry.FromString(placed.leaf)
        if stored.WhichOneof("event") != entry.WhichOneof("event"):
            raise _has_ended(made, stored)
        return placed

    async def _ends(self, made: Sequence[_Made]) -> dict[int, tuple[int, Entry]]:
        """Find the entries that ended requests, by the request's index."""
        keys = [_end_key(one.index) for one in made]
        found: dict[int, tuple[int, Entry]] = {}
        for index, leaf in await self._custody.archive.bearing_keys(keys):
            entry = Entry.FromString(leaf)
            event = getattr(entry, entry.WhichOneof("event") or "heartbeat")
            found[getattr(event, "requested_index", -1)] = (index, entry)
        return found

    def _shown(self, made: _Made, ended: tuple[int, Entry] | None) -> pb.ExpungeRequest:
        asked = made.asked
        shown = pb.ExpungeRequest(
            requested_index=made.index,
            state=pb.EXPUNGE_STATE_PENDING,
            origin_agency=asked.origin_agency,
            indexes=asked.entry_indexes,
            authority=asked.authority,
            caller=asked.caller,
            requested_at=made.entry.recorded_at,
            lapses_at=asked.lapses_at,
        )
        if ended is None:
            if self._custody.clock.now() >= asked.lapses_at.ToDatetime(UTC):
                shown.state = pb.EXPUNGE_STATE_LAPSED
        elif ended[1].HasField("expunge_declined"):
            taken_back = ended[1].expunge_declined.withdrawn
            shown.state = pb.EXPUNGE_STATE_WITHDRAWN if taken_back else pb.EXPUNGE_STATE_DECLINED
            shown.declined_index = ended[0]
        else:
            shown.state, shown.expunged_index = pb.EXPUNGE_STATE_EXPUNGED, ended[0]
        return shown

    async def _require_openings(self, indexes: Sequence[int]) -> None:
        def lacking() -> list[int]:
            return [index for index in indexes if not self._custody.vault.has_openings(index)]

        if gone := await self._custody.in_vault(lacking):
            raise NotFound("OPENING_EXPUNGED", f"entry {gone[0]} has no opening to destroy")

    async def _entries_of(self, search_id: str) -> list[int]:
        """Find the entries of a search that have openings."""
        page = await self._custody.archive.page(Filter(search_id=search_id), ENTRIES_MAX)
        indexes = [index for index, leaf in page.entries if Entry.FromString(leaf).commitments]

        def left() -> list[int]:
            return [index for index in indexes if self._custody.vault.has_openings(index)]

        found = await self._custody.in_vault(left)
        if not found:
            raise NotFound("SEARCH_UNKNOWN", "no entry of this search has an opening")
        return found


def _end_key(requested_index: int) -> str:
    return f"expunged/{requested_index}"


def _ended(placed: Placed) -> tuple[int, Entry]:
    return placed.index, Entry.FromString(placed.leaf)


def _has_ended(made: _Made, entry: Entry) -> NotReady:
    if entry.HasField("openings_expunged"):
        return NotReady("REQUEST_APPROVED", f"request {made.index} was approved: nothing is left")
    return NotReady(
        "REQUEST_DECLINED", f"request {made.index} was declined or taken back; ask again"
    )
