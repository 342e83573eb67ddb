"""Gives what decisions were made by, so that they can be made again: by right, and on the record first.

It is the requests behind them, or, asked for by itself, what officers were registered as.

Invariants:
- the entry of a reading is durable before the first value leaves, and says over how many entries, which;
- of each entry only the openings that were asked for leave, and only of agencies that the reader has a
  right to.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RequestsRead
from ledger.custody import Custody, stated, used
from ledger.entry import Opening
from ledger.query_filters import micros
from ledger.questions import Found, Question
from ledger.requests import invalid, known_index
from ledger.sequencer import Placed, Sequencer
from ledger.tree import Published
from shared.errors import InvalidRequest
from shared.identity import SpiffeId
from shared.kinds import KINDS

REQUESTS_MAX: Final = 200_000
"""Some minutes of the vault's time, and twice what a replay is measured with."""
AGENCIES_MAX: Final = 1000
"""The entry of a reading names each of them, and has a bound."""
INDEXES_PAGE: Final = 10_000
VAULT_PAGE: Final = 100
"""Entries that are opened in one go, while nobody else reads an opening."""
MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""No further request is put into a message that has come to this."""

_DECIDED: Final = KINDS["search_decided"]
_CHECKED: Final = KINDS["search_checked"]
_OFFICERS: Final = KINDS["officers_published"]


class Index(Protocol):
    """Finds entries."""

    async def page(self, question: Question, count_max: int) -> Found:
        """Find entries by index, at most so many."""


@dataclass(frozen=True)
class Reading:
    """A reading that is on record."""

    entry: Placed
    tree: Published
    """That all proofs are against: it has the reading."""
    indexes: Sequence[int]
    fields: Sequence[str]


class RecordedRequests:
    """What may be read of the requests behind decisions."""

    def __init__(self, custody: Custody, sequencer: Sequencer, index: Index) -> None:
        self._custody = custody
        self._sequencer = sequencer
        self._index = index

    async def begin(self, caller: SpiffeId, request: pb.ReadRequestsRequest) -> Reading:
        """Find the decisions, and put the reading on record. Raises ServiceError."""
        custody, ground = self._custody, request.ground
        agencies = self._agencies(caller, request.agencies)
        person = custody.people.person(caller, ground.officer_token, ground.request_id)
        size = self._sequencer.published.size
        indexes = await self._found(request, agencies, size)
        event = RequestsRead(
            caller=str(caller),
            agencies=agencies,
            fields=request.fields,
            authority=ground.authority,
            with_checks=request.with_checks,
            registrations=request.registrations,
            tree_size=size,
            found=len(indexes),
            indexes_sha256=hashlib.sha256(b"".join(i.to_bytes(8, "big") for i in indexes)).digest(),
        )
        for bound in ("recorded_from", "recorded_until"):
            if request.HasField(bound):
                getattr(event, bound).CopyFrom(getattr(request, bound))
        # To make decisions again takes one reading of each, on one ground.
        key = f"{'officers' if request.registrations else 'requests'}/{ground.request_id}"
        placed = await custody.record(stated(Entry(requests_read=event), person, ground, key))
        if placed.existing:
            raise used(ground)
        return Reading(placed, self._sequencer.published, indexes, tuple(request.fields))

    def _agencies(self, caller: SpiffeId, named: Sequence[str]) -> list[str]:
        rights = self._custody.rights
        agencies = sorted(named) or rights.scope(caller, "disclose")
        # Looked up once for all: each look-up goes through every agency, and appends wait meanwhile.
        others = set(agencies or [""]) - rights.holders(caller, "disclose")
        if others:
            rights.require(caller, "disclose", min(others))
        if len(agencies) > AGENCIES_MAX:
            raise invalid("agencies", f"name those that are meant, at most {AGENCIES_MAX}")
        return agencies

    async def _found(
        self, request: pb.ReadRequestsRequest, agencies: Sequence[str], size: int
    ) -> list[int]:
        question = Question(
            size=size,
            start_index=known_index(request.start_index, "start_index"),
            from_us=micros(request, "recorded_from"),
            until_us=micros(request, "recorded_until"),
            origins=tuple(agencies),
            kinds=_kinds(request),
        )
        found: list[int] = []
        at: int | None = question.start_index
        while at is not None:
            page = await self._index.page(replace(question, start_index=at), INDEXES_PAGE)
            found += page.indexes
            at = page.next_index
            if len(found) > REQUESTS_MAX:
                raise InvalidRequest(
                    "TOO_MANY_REQUESTS",
                    f"more than {REQUESTS_MAX} entries; ask for a shorter time, or for fewer agencies",
                )
        return found

    async def read(self, reading: Reading) -> AsyncIterator[pb.RecordedRequests]:
        """Give what was found, in parts."""
        indexes = iter(reading.indexes)
        part, part_bytes = pb.RecordedRequests(), 0
        while some := list(islice(indexes, VAULT_PAGE)):
            opened = await self._custody.in_vault(
                lambda: [self._custody.vault.open(index) for index in some]  # awaited here
            )
            proved = await self._custody.archive.proved(reading.tree, some)
            for (index, leaf, hashes), openings in zip(proved, opened, strict=True):
                row = part.requests.add(index=index, leaf=leaf, hashes=hashes)
                row.openings.extend(_disclosed(openings, reading.fields))
                part_bytes += row.ByteSize()
                if part_bytes > MESSAGE_BYTES_MAX:
                    yield part
                    part, part_bytes = pb.RecordedRequests(), 0
        if part.requests:
            yield part


def _kinds(request: pb.ReadRequestsRequest) -> tuple[int, ...]:
    if request.registrations:
        return (_OFFICERS,)
    return (_DECIDED, _CHECKED) if request.with_checks else (_DECIDED,)


def _disclosed(openings: Sequence[Opening], fields: Sequence[str]) -> Iterator[pb.DisclosedOpening]:
    found = {one.field: one for one in openings}
    for field in fields:
        if (one := found.get(field)) is not None:
            yield pb.DisclosedOpening(field=field, salt=one.salt, value=one.value)
