"""Discloses openings and has them destroyed: by right, on the record first, destruction by two people.

Invariants:
- the entry of a reading is durable before a value leaves;
- a request is approved by another person than the one who made it, once, and before it lapses;
- the entry of an expungement is durable before anything is destroyed; what a crash leaves undone the next
  start does (see `ledger.openings`).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Final, TypeVar

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import (
    ExpungeRequested,
    OpeningRead,
    OpeningsExpunged,
    OpeningsSearched,
)
from ledger.archive import Archive
from ledger.entry import Completer, Opening, holder_of
from ledger.reading import Filter, StorageFailed
from ledger.requests import invalid
from ledger.rights import People, Person, Rights
from ledger.sequencer import Placed, Sequencer
from ledger.tree import unreadable
from ledger.vault import LOOKED_UP, OpeningDamaged, Vault
from shared.clock import Clock
from shared.errors import (
    Broken,
    Conflict,
    NotAllowed,
    NotFound,
    NotReady,
)
from shared.identity import SpiffeId
from shared.kinds import KINDS

REQUEST_LIFE: Final = timedelta(days=30)
"""What nobody approved in a month is asked again."""
ENTRIES_MAX: Final = 1000
"""Entries of one expungement; its entry names them all in less than 10 kB."""
PAGE_ENTRIES: Final = 500
REQUESTS_MAX: Final = 10_000
"""Requests that are looked through for one list."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Disclosed:
    """Openings, and the entry that says that they were read."""

    openings: list[Opening]
    reading: Placed


@dataclass(frozen=True)
class Expunged:
    """An approved request, the entry that says so, and how many openings there were."""

    request: pb.ExpungeRequest
    entry: Placed
    openings: int


class Disclosure:
    """What may be done with openings. Used on the loop; the vault works on a thread of its own."""

    def __init__(
        self,
        *,
        rights: Rights,
        people: People,
        vault: Vault,
        archive: Archive,
        sequencer: Sequencer,
        completer: Completer,
        clock: Clock,
    ) -> None:
        self._rights = rights
        self._people = people
        self._vault = vault
        self._archive = archive
        self._sequencer = sequencer
        self._completer = completer
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "ledger-vault")
        self._one_at_a_time = asyncio.Lock()

    def close(self) -> None:
        """Finish what the vault is doing."""
        self._thread.shutdown(cancel_futures=True)

    async def disclose(
        self, caller: SpiffeId, index: int, fields: Sequence[str], ground: pb.Ground
    ) -> Disclosed:
        """Give openings of an entry, once the reading is on record."""
        entry = Entry.FromString(await self._archive.entry(index))
        holder = holder_of(entry)
        self._rights.require(caller, "disclose", holder)
        person = self._people.person(caller, ground.officer_token, ground.request_id)
        committed = {one.field for one in entry.commitments}
        for field in fields:
            if field not in committed:
                raise invalid("fields", f"entry {index} has no sensitive field {field!r}")
        found = {one.field: one for one in await self._in_vault(lambda: self._vault.open(index))}
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
        pending = _on(Entry(opening_read=event), person, ground, f"disclose/{ground.request_id}")
        placed = await self._append(pending)
        if placed.existing:
            raise _used(ground)
        return Disclosed([found[field] for field in fields], placed)

    async def find(
        self, caller: SpiffeId, agency: str, field: str, value: str, *, authority: str, reason: str
    ) -> list[int]:
        """Find an agency's entries by what only openings hold, once the search is on record."""
        self._rights.require(caller, "find", agency)
        if field not in LOOKED_UP:
            raise invalid("field", f"is not one of {', '.join(sorted(LOOKED_UP))}")
        found = await self._in_vault(lambda: self._vault.find(agency, field, value))
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
        await self._append(pending)
        return found

    async def request_expunge(
        self, caller: SpiffeId, indexes: Sequence[int], search_id: str, ground: pb.Ground
    ) -> tuple[pb.ExpungeRequest, Placed]:
        """Put a request on record."""
        if bool(indexes) == bool(search_id):
            raise invalid("indexes", "either these or search_id must be given")
        wanted = sorted(indexes) if indexes else await self._entries_of(search_id)
        if not 1 <= len(wanted) <= ENTRIES_MAX:
            raise invalid("indexes", f"{len(wanted)} entries; 1 to {ENTRIES_MAX} at once")
        holders = {holder_of(Entry.FromString(await self._archive.entry(one))) for one in wanted}
        for holder in sorted(holders):
            self._rights.require(caller, "expunge", holder)
        if len(holders) != 1:
            raise invalid("indexes", "the entries are of several agencies; ask for each")
        person = self._people.person(caller, ground.officer_token, ground.request_id)
        await self._require_openings(wanted)
        event = ExpungeRequested(
            caller=str(caller),
            origin_agency=holders.pop(),
            entry_indexes=wanted,
            search_id=search_id,
            authority=ground.authority,
        )
        event.lapses_at.FromDatetime(self._clock.now() + REQUEST_LIFE)
        pending = _on(
            Entry(expunge_requested=event), person, ground, f"expunge/{ground.request_id}"
        )
        placed = await self._append(pending)
        if placed.existing:
            raise _used(ground)
        return self._request(placed.index, Entry.FromString(placed.leaf), None), placed

    async def approve_expunge(
        self, caller: SpiffeId, requested_index: int, ground: pb.Ground
    ) -> Expunged:
        """Have openings destroyed, on the word of a second person."""
        entry = Entry.FromString(await self._archive.entry(requested_index))
        if not entry.HasField("expunge_requested"):
            raise NotFound("REQUEST_UNKNOWN", f"entry {requested_index} is no request to expunge")
        asked = entry.expunge_requested
        self._rights.require(caller, "expunge", asked.origin_agency)
        person = self._people.person(caller, ground.officer_token, ground.request_id)
        await self._require_second_person(requested_index, asked, person)
        if ground.authority != asked.authority:
            raise invalid("ground.authority", "is not that of the request")
        async with self._one_at_a_time:
            state = self._request(
                requested_index, entry, (await self._expunged()).get(requested_index)
            )
            if state.state == pb.EXPUNGE_STATE_LAPSED:
                raise NotReady("REQUEST_LAPSED", f"request {requested_index} has lapsed; ask again")
            indexes = list(asked.entry_indexes)
            # Whatever was sealed under keys of the same blocks is on record before the entry that follows.
            await self._in_vault(lambda: self._vault.retire(indexes))
            event = OpeningsExpunged(
                requested_index=requested_index,
                caller=str(caller),
                origin_agency=asked.origin_agency,
                entry_indexes=indexes,
                authority=asked.authority,
            )
            pending = _on(
                Entry(openings_expunged=event), person, ground, f"expunged/{requested_index}"
            )
            placed = await self._append(pending)
            count = await self._in_vault(lambda: self._vault.destroy(indexes))
        return Expunged(self._request(requested_index, entry, placed.index), placed, count)

    async def requests(self, caller: SpiffeId) -> list[pb.ExpungeRequest]:
        """List the requests that concern openings which the caller may have destroyed, newest first."""
        expunged = await self._expunged()
        return [
            self._request(index, entry, expunged.get(index))
            for index, entry in reversed(await self._of_kind("expunge_requested"))
            if self._rights.has(caller, "expunge", entry.expunge_requested.origin_agency)
        ]

    async def _require_second_person(
        self, requested_index: int, asked: ExpungeRequested, person: Person
    ) -> None:
        if str(person.caller) != asked.caller:
            return
        first = None
        if person.officer:
            opened = await self._in_vault(lambda: self._vault.open(requested_index))
            first = next((one.value for one in opened if one.field == "officer"), None)
        # Of an oversight body all calls come from one seat; and who asked may be unknown by now.
        if first is None or first == person.officer:
            raise NotAllowed(
                "SECOND_PERSON_NEEDED",
                "who asked cannot approve: another officer, or another body with the right, must",
            )

    async def _require_openings(self, indexes: Sequence[int]) -> None:
        def lacking() -> list[int]:
            return [index for index in indexes if not self._vault.has_openings(index)]

        if gone := await self._in_vault(lacking):
            raise NotFound("OPENING_EXPUNGED", f"entry {gone[0]} has no opening to destroy")

    async def _entries_of(self, search_id: str) -> list[int]:
        """Find the entries of a search that have openings."""
        page = await self._archive.page(Filter(search_id=search_id), ENTRIES_MAX)
        indexes = [index for index, leaf in page.entries if Entry.FromString(leaf).commitments]

        def left() -> list[int]:
            return [index for index in indexes if self._vault.has_openings(index)]

        found = await self._in_vault(left)
        if not found:
            raise NotFound("SEARCH_UNKNOWN", "no entry of this search has an opening")
        return found

    async def _expunged(self) -> dict[int, int]:
        """Give the index of the approval of each request that was approved."""
        found = await self._of_kind("openings_expunged")
        return {entry.openings_expunged.requested_index: index for index, entry in found}

    async def _of_kind(self, kind: str) -> list[tuple[int, Entry]]:
        found: list[tuple[int, Entry]] = []
        at: int | None = 0
        while at is not None and len(found) < REQUESTS_MAX:
            page = await self._archive.page(Filter(start_index=at, kind=KINDS[kind]), PAGE_ENTRIES)
            found += ((index, Entry.FromString(leaf)) for index, leaf in page.entries)
            at = page.next_index
        return found

    def _request(self, index: int, entry: Entry, expunged: int | None) -> pb.ExpungeRequest:
        asked = entry.expunge_requested
        state = pb.EXPUNGE_STATE_PENDING
        if expunged is not None:
            state = pb.EXPUNGE_STATE_EXPUNGED
        elif self._clock.now() >= asked.lapses_at.ToDatetime(UTC):
            state = pb.EXPUNGE_STATE_LAPSED
        return pb.ExpungeRequest(
            requested_index=index,
            state=state,
            origin_agency=asked.origin_agency,
            indexes=asked.entry_indexes,
            authority=asked.authority,
            caller=asked.caller,
            requested_at=entry.recorded_at,
            lapses_at=asked.lapses_at,
            expunged_index=expunged,
        )

    async def _append(self, pending: PendingEntry) -> Placed:
        (placed,) = await self._sequencer.append([self._completer.complete(pending, "entry")])
        return placed

    async def _in_vault(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except StorageFailed as error:
            raise unreadable() from error
        except OpeningDamaged as error:
            raise Broken("OPENING_DAMAGED", "an opening is not what was sealed") from error


def _on(entry: Entry, person: Person, ground: pb.Ground, key: str) -> PendingEntry:
    pending = PendingEntry(entry=entry, idempotency_key=key)
    pending.sensitive.add(field="reason", value=ground.reason)
    pending.sensitive.add(field="officer", value=person.officer)
    return pending


def _used(ground: pb.Ground) -> Conflict:
    return Conflict("REQUEST_ID_USED", f"request {ground.request_id} was made already")
